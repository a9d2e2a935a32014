"""The same small budget of tuning for every method, and the comparison that follows from it.

A folder of it::

    grid/lr-…-wd-…/        a comparison a point: every method with the tuning seeds; no report is made of them
    tuned.json, tuned.md   validation accuracies, and the point chosen for each method
    final/lr-…-wd-…/       comparisons with the seeds that count: the recipe's own point, and those that were chosen
    final/study-tuned/     the report: the same settings for all, and each method's own

Grid and comparison are in folders of their own because a comparison is methods × seeds: one folder for both would give
every method all seeds at every point. No run is made twice: a method whose own point is the recipe's has one set of
runs for both tables.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from maxsup.lab import data, records
from maxsup.lab.compare import open_comparison
from maxsup.lab.executors import Executor
from maxsup.lab.recipes import Recipe, as_json
from maxsup.lab.records import Json
from maxsup.lab.report import numbers
from maxsup.lab.statistics import describe
from maxsup.lab.studies import run as running
from maxsup.lab.studies.grid import RULE, Point, Tried, at, choose, edges, own_point, points, tried
from maxsup.lab.studies.parts import LS, MEASURES, OURS, rows
from maxsup.lab.studies.study import Column, Contrast, Pair, Row, Study, Variant, against

NAME = "tuned.json"
SAME, OWN = "The same settings for all", "Each method's own settings"
SHOWN = tuple(
    MEASURES[key]
    for key in (
        "test.accuracy",
        "test.nll",
        "test.confidence_wrong",
        "test.ece",
        "test.d_within",
        "test.r_squared",
    )
)


@dataclass(frozen=True)
class Plan:
    """What is tuned: the recipe, the methods, the grid, and the seeds of the grid and of the comparison.

    Raises:
        ValueError: if methods or seeds are missing, or a tuning seed is one of the comparison's.
    """

    recipe: Recipe
    methods: tuple[str, ...]
    grid: tuple[Point, ...]
    tuning_seeds: tuple[int, ...]
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("methods", "grid", "tuning_seeds", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name} must name at least one")
        shared = sorted(set(self.tuning_seeds) & set(self.seeds))
        if shared:
            raise ValueError(
                f"tuning_seeds must be other than seeds, which would compare what they chose; "
                f"both have {', '.join(map(str, shared))}"
            )


def plan(
    recipe: Recipe,
    methods: Sequence[str],
    *,
    seeds: Sequence[int],
    tuning_seeds: Sequence[int],
    lrs: Sequence[float] | None = None,
    weight_decays: Sequence[float] | None = None,
) -> Plan:
    """The plan with the grid of these values, as `maxsup.lab.studies.grid.points` makes it; raises as that and Plan."""
    once = [tuple(dict.fromkeys(of)) for of in (tuning_seeds, seeds)]
    return Plan(recipe, tuple(dict.fromkeys(methods)), tuple(points(recipe, lrs, weight_decays)), *once)


def search(
    plan: Plan,
    directory: Path,
    *,
    workers: int | None = None,
    data_dir: Path | None = None,
    executor: Executor | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Makes what `directory` lacks of the grid, and chooses; returns what went wrong: then nothing has been chosen.

    `tell` gets a line before each part.

    Raises:
        RecordError: if a folder holds a comparison with another recipe; nothing has been trained then.
        DataError: if the data is absent or damaged; nothing has been trained then.
        ValueError: if a method diverged at every point.
    """
    data.load(plan.recipe.data, data_dir)
    own = own_point(plan.recipe)
    for point in plan.grid:
        open_comparison(at(plan.recipe, point), plan.methods, plan.tuning_seeds, directory / "grid" / point.name)
    open_comparison(plan.recipe, plan.methods, plan.seeds, directory / "final" / own.name)
    problems: list[str] = []
    for place, point in enumerate(plan.grid, start=1):
        tell(f"grid: {point}, comparison {place} of {len(plan.grid)}")
        problems += running.train(
            at(plan.recipe, point),
            plan.methods,
            plan.tuning_seeds,
            directory / "grid" / point.name,
            workers=workers,
            data_dir=data_dir,
            executor=executor,
        )
    if problems:
        return [*problems, "nothing is chosen before all runs of the grid are done; the same command goes on from here"]
    found = read_grid(plan, directory)
    chosen = {method: choose(method, of, own) for method, of in found.items()}
    record = as_record(plan, found, chosen)
    records.write_json(directory / NAME, record)
    records.write_text(directory / "tuned.md", markdown(record))
    return []


def compare_chosen(
    plan: Plan,
    directory: Path,
    *,
    workers: int | None = None,
    data_dir: Path | None = None,
    executor: Executor | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Makes the comparison at the points that `search` chose, and its report; returns what went wrong."""
    methods = records.read_json(directory / NAME)["methods"]
    study = final_study(plan, {method: Point(**methods[method]["chosen"]) for method in plan.methods})
    return running.run(
        study,
        study.recipes(),
        None,
        directory / "final",
        workers=workers,
        data_dir=data_dir,
        executor=executor,
        tell=tell,
    )


def report_directory(directory: Path) -> Path:
    """Where `compare_chosen` writes its report."""
    return directory / "final" / "study-tuned"


def read_grid(plan: Plan, directory: Path) -> dict[str, list[Tried]]:
    """What each method gave at each point, of the plan's tuning seeds.

    Raises:
        RecordError: if a run is not done, or a record unreadable.
    """
    comparisons = {point: records.read_comparison(directory / "grid" / point.name) for point in plan.grid}
    return {
        method: [
            tried(point, [run for run in comparison.of_method(method) if run.seed in plan.tuning_seeds])
            for point, comparison in comparisons.items()
        ]
        for method in plan.methods
    }


def final_study(plan: Plan, chosen: Mapping[str, Point]) -> Study:
    """All methods at the recipe's own point, and each at the point chosen for it, with the seeds that count."""
    own = own_point(plan.recipe)
    at_points = {own: Variant(own.name, plan.recipe, plan.seeds)}
    for point in chosen.values():
        at_points.setdefault(point, Variant(point.name, at(plan.recipe, point), plan.seeds))
    same = rows(plan.methods)
    tuned = tuple(Row(f"{method} ({chosen[method]})", method, chosen[method].name) for method in plan.methods)
    columns = tuple(
        Column(of.title, own.name, of, group=group, rows=tuple(row.label for row in shown))
        for group, shown in ((SAME, same), (OWN, tuned))
        for of in SHOWN
    )
    moved = [r for r, method in enumerate(plan.methods) if chosen[method] != own]
    gain = tuple(
        Pair(plan.methods[r], of.title, (len(same) + r, len(SHOWN) + c), (r, c))
        for c, of in enumerate(SHOWN)
        for r in moved
    )
    study = Study(
        name="tuned",
        table=plan.recipe.name,
        title="the same settings for all methods, and each method's own",
        variants=tuple(at_points.values()),
        columns=columns,
        rows=(*same, *tuned),
        contrasts=(Contrast("Own settings less the same for all", gain),) if gain else (),
    )
    if {LS, OURS} <= set(plan.methods):
        labels = {method: row.label for method, row in zip(plan.methods, tuned, strict=True)}
        for row, than in ((OURS, LS), (labels[OURS], labels[LS])):
            study = against(study, row, than, by_column=True)
    return study


def as_record(plan: Plan, found: Mapping[str, Sequence[Tried]], chosen: Mapping[str, Point]) -> Json:
    """The choice as ``tuned.json`` holds it: the grid, every mean with its n, and what was chosen by which rule."""
    own = own_point(plan.recipe)
    methods: Json = {}
    for method, of in found.items():
        best = next(one.mean for one in of if one.point == chosen[method])
        methods[method] = {
            "chosen": asdict(chosen[method]),
            "at_the_edge": edges(chosen[method], plan.grid),
            "tied": [asdict(one.point) for one in of if one.mean == best and one.point != chosen[method]],
            "tried": [
                {
                    **asdict(one.point),
                    "n": len(one.accuracies),
                    "validation_accuracy": one.mean,
                    "std": describe(one.accuracies).std,
                    "diverged": one.diverged,
                }
                for one in of
            ],
        }
    return {
        "recipe": as_json(plan.recipe),
        "own": asdict(own),
        "rule": RULE,
        "grid": [asdict(point) | {"comparison": f"grid/{point.name}"} for point in plan.grid],
        "tuning_seeds": list(plan.tuning_seeds),
        "seeds": list(plan.seeds),
        "methods": methods,
    }


_ACCURACY = dataclasses.asdict(MEASURES["test.accuracy"]) | {"key": "validation.accuracy"}


def markdown(record: Json) -> str:
    """``tuned.json`` as a table: a line a point, a column a method, what was chosen in bold."""
    own = Point(**record["own"])
    methods = record["methods"]
    heads = ["", *methods]
    lines = [heads, ["---", *["---:"] * len(methods)]]
    for place, of in enumerate(record["grid"]):
        point = Point(of["lr"], of["weight_decay"])
        line = [f"{point} (the recipe's)" if point == own else str(point)]
        for found in methods.values():
            one = found["tried"][place]
            text = numbers.mean_and_std({"mean": one["validation_accuracy"], "std": one["std"]}, _ACCURACY)
            text = f"{one['diverged']} diverged" if one["diverged"] else f"{text}, n = {one['n']}"
            line.append(f"**{text}**" if Point(**found["chosen"]) == point else text)
        lines.append(line)
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    seeds, others = (", ".join(map(str, record[name])) for name in ("tuning_seeds", "seeds"))
    parts = [
        f"# {record['recipe']['name']}: learning rate and weight decay for each method",
        f"Validation accuracy in %, mean {numbers.PLUS_MINUS} std (ddof 1) over the tuning seeds {seeds}. The "
        f"comparison has the seeds {others}. No test result is read for the choice.",
        table,
        f"**Bold**: chosen, by {record['rule']}.",
    ]
    ends = [f"{name} ({' and '.join(of['at_the_edge'])})" for name, of in methods.items() if of["at_the_edge"]]
    if ends:
        parts.append(f"At the edge of the grid, beyond which a better one may lie: {', '.join(ends)}.")
    return "\n\n".join(parts) + "\n"
