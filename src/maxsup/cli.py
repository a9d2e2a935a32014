"""The `maxsup` command: parsing, printing, exit codes; nothing else."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

try:
    from rich.console import Console

    from maxsup.lab.parsing import UsageError, parse, parse_with_paths, parse_with_recipe, take
except ModuleNotFoundError as missing:
    raise SystemExit(f"maxsup: {missing.name} is not installed; the command needs pip install 'maxsup[lab]'") from None

from maxsup._version import __version__
from maxsup.lab.names import lookup
from maxsup.lab.options import (
    Analyze,
    Compare,
    Corrupt,
    DataMake,
    DataShow,
    Distill,
    Export,
    Import,
    Probe,
    Report,
    Segment,
    StudyList,
    Train,
)
from maxsup.lab.recipes import RECIPES, Data, Model, Recipe
from maxsup.lab.records import DataError, Json

if TYPE_CHECKING:
    from maxsup.lab.analysis.batch import Outcome

T = TypeVar("T")

MANUAL = f"""\
maxsup {__version__}: does MaxSup, or another regulariser of the logits, help on your data?

usage: maxsup list                      the recipes, methods and data sets
       maxsup train RECIPE [options]    one run: one method, one seed
       maxsup compare RECIPE [options]  methods × seeds, several runs at a time, and the report
       maxsup analyze PATH...           measures, curves and pictures of finished runs, from their records and weights
       maxsup probe PATH... --data NAME linear and k-NN accuracy of their frozen features on other images
       maxsup corrupt PATH...           error, NLL and ECE on corrupted test images
       maxsup segment PATH... --data NAME
                                        mean IoU of UPerNet, fine-tuned on their backbones
       maxsup report DIR                the tables and report.html of a comparison or study, written anew
       maxsup study list [--measure]    the paper's tables as studies: data, runs, GPU hours
       maxsup study NAME [options]      one of them: recipes × methods × seeds, and the paper's numbers beside ours
       maxsup distill TEACHER... [opts] students of finished runs' networks, seed by seed, as a comparison
       maxsup export RUN --out DIR      its network as safetensors with timm's config and a model card
       maxsup import FILE --model NAME  a checkpoint from elsewhere as a run to analyze, probe or export
       maxsup data make NAME            glyphs or glyphs-large: images of the letters of this machine's fonts
       maxsup data show NAME --out PNG  a contact sheet of a data set
       maxsup COMMAND --help            the options of a command
       maxsup --version

Start with
       maxsup compare digits-convnet --methods cross-entropy label-smoothing max-sup --seeds 0 1 2 --out runs/first
It needs no download and takes about a minute on two cores.

Every field of a recipe is an option: --epochs 5, --optimizer.lr 0.05, --data.train-size 5000, …;
`maxsup train RECIPE --help` shows them all, with that recipe's values.

PATH is the folder of a run or of a comparison; of the latter all finished runs are taken, several at a time, and the
report is written again. What was computed before is kept; segment alone trains. Networks that were trained with
--data.classes 0 1 2 3 4 (or, the same, --pretrain-classes 0 1 2 3 4) are probed on the other classes of that data:
       maxsup compare fashion-mnist-resnet18 --pretrain-classes 0 1 2 3 4 --out runs/half
       maxsup probe runs/half --data fashion-mnist

A command that was interrupted or killed goes on when it is given again: finished runs are skipped, an unfinished
one resumes. A folder that holds another recipe's records is refused, never overwritten.

Exit codes: 0 done; 1 a run failed, or a file cannot be read or written; 2 wrong command line; 130 interrupted.
"""


def _check_names(recipe: Recipe, methods: Sequence[str]) -> None:
    """Unknown names are the command line's fault: they are found before anything is written."""
    from maxsup.lab.data import DATA_SETS
    from maxsup.lab.methods import METHODS
    from maxsup.lab.models import check_name

    for method in methods:
        lookup("method", method, METHODS)
    lookup("data set", recipe.data.name, DATA_SETS)
    check_name(recipe.model.name)


def _list(arguments: Sequence[str]) -> int:
    from maxsup.lab.data import DATA_SETS
    from maxsup.lab.methods import METHODS
    from maxsup.lab.segmentation.recipes import RECIPES as SEGMENTATION
    from maxsup.lab.segmentation.sources import DATA_SETS as LABELLED

    if arguments:
        raise UsageError(f"unexpected argument {arguments[0]!r}")

    def first_line(of: Callable[..., Any]) -> str:
        return (of.__doc__ or "").strip().splitlines()[0]

    sections = {
        "recipes": {name: first_line(recipe) for name, recipe in RECIPES.items()},
        "methods": {name: method.summary for name, method in METHODS.items()},
        "data sets": {name: first_line(loader) for name, loader in DATA_SETS.items()},
        "segmentation recipes": {name: first_line(recipe) for name, recipe in SEGMENTATION.items()},
        "segmentation data sets": {name: first_line(loader) for name, loader in LABELLED.items()},
    }
    for title, entries in sections.items():
        print(title)
        width = max(map(len, entries))
        for name, line in entries.items():
            print(f"  {name:<{width}}  {line}")
        print()
    return 0


def _train(arguments: Sequence[str]) -> int:
    options = parse_with_recipe(Train, "train", arguments)
    _check_names(options.recipe, [options.method])
    from maxsup.lab import processes, progress, train

    first = processes.launched()[0] == 0
    shown_by_first = progress.of_run(options.recipe.epochs, f"{options.method} seed {options.seed}")
    with shown_by_first if first else nullcontext() as on_epoch:
        result = train.train(
            options.recipe,
            options.method,
            options.seed,
            options.out,
            data_dir=options.data_dir,
            on_epoch=on_epoch,
        )
    if not first:
        return 0
    if result["status"] == "diverged":
        print(f"diverged in epoch {result['epochs'] + 1}: the loss is not finite any more (recorded in {options.out})")
        return 0
    _print_measures(result)
    print(f"records: {options.out}")
    return 0


def _compare(arguments: Sequence[str]) -> int:
    options = parse_with_recipe(Compare, "compare", arguments)
    _check_names(options.recipe, options.methods)
    return _make_comparison("compare", options, options.recipe, options.methods, options.seeds)


def _distill(arguments: Sequence[str]) -> int:
    from maxsup.lab import distill_command as command
    from maxsup.lab.recipes.distillation import student

    folders, options = command.parse_distill(arguments)
    methods, seeds = command.students(folders, options.methods, options.seeds, alone=options.alone)
    _check_names(options.recipe, [])
    teachers = tuple(str(folder.resolve()) for folder in folders)
    recipe = student(options.recipe, options.temperature, options.weight, teachers)
    return _make_comparison("distill", options, recipe, methods, seeds)


def _make_comparison(
    command: str, options: Compare | Distill, recipe: Recipe, methods: Sequence[str], seeds: Sequence[int]
) -> int:
    from maxsup.lab import compare, data, executors, processes, progress

    if processes.launched()[1] > 1:
        raise UsageError(
            f"`maxsup {command}` starts its own processes; of the commands only `maxsup train` is launched"
        )
    executor = executors.choose(options.executor, options.ray_address, options.gpus_per_run)
    # Absent or damaged data is one error here, and not one per run.
    data.load(recipe.data, options.data_dir)
    with progress.of_comparison(recipe.epochs) as show:
        failed = compare.compare(
            recipe,
            methods,
            seeds,
            options.out,
            executor=executor,
            workers=options.workers,
            data_dir=options.data_dir,
            show=show,
        )
    _write_and_print_report(options.out)
    for job, error in failed:
        print(
            f"maxsup: {job.method} seed {job.seed} failed: {error.strip().splitlines()[-1]} "
            f"(traceback in {job.directory / 'error.txt'})",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _analyze(arguments: Sequence[str]) -> int:
    options = parse_with_paths(Analyze, "analyze", arguments)
    from maxsup.lab import analysis_commands as commands

    runs, comparisons = commands.collect(options.paths)
    named = options.classes is not None or options.method is not None
    if named and not comparisons:
        raise UsageError("--classes and --method are for a comparison's plane of classes, and no PATH is a comparison")
    problems = []
    for comparison in comparisons:  # first, since it tells whether the names on the command line are known
        problems += commands.project(comparison, options.data_dir, options.classes, options.method)
    problems += _errors(commands.analyze(runs, options.data_dir, options.workers))
    for comparison in comparisons:
        problems += commands.gallery(comparison, options.data_dir)
        _write_and_print_report(comparison.path)
    return _exit_code(problems)


def _probe(arguments: Sequence[str]) -> int:
    options = parse_with_paths(Probe, "probe", arguments)
    from maxsup.lab import analysis_commands as commands
    from maxsup.lab.analysis.probe import Protocol
    from maxsup.lab.data import DATA_SETS

    lookup("data set", options.data, DATA_SETS)
    data, protocol = Data(options.data, options.train_size, options.classes), Protocol(options.neighbors)
    runs, comparisons = commands.collect(options.paths)
    outcomes = commands.probe(runs, data, options.data_dir, protocol, options.workers)
    for comparison in comparisons:
        Console().print(commands.probe_table(comparison, outcomes))
        _write_and_print_report(comparison.path)
    return _exit_code(_errors(outcomes))


def _corrupt(arguments: Sequence[str]) -> int:
    options = parse_with_paths(Corrupt, "corrupt", arguments)
    from maxsup.lab import analysis_commands as commands

    runs, comparisons = commands.collect(options.paths)
    outcomes = commands.corrupt(runs, options.data_dir, options.workers)
    for comparison in comparisons:
        _write_and_print_report(comparison.path)
    return _exit_code(_errors(outcomes))


def _segment(arguments: Sequence[str]) -> int:
    from maxsup.lab.segmentation.recipes import RECIPES as SEGMENTATION
    from maxsup.lab.segmentation.recipes import of_data

    wanted, rest = take("--recipe", arguments)
    data, rest = take("--data", rest)
    asks_help = bool({"-h", "--help"} & set(rest))
    if data is None and wanted is None and not asks_help:
        raise UsageError("`maxsup segment` needs --data NAME, images with labels per pixel; `maxsup list` shows them")
    recipe = lookup("recipe", wanted, SEGMENTATION)() if wanted else of_data(data or "fashion-scenes")
    recipe = dataclasses.replace(recipe, data=data or recipe.data)
    if not asks_help and (not rest or rest[0].startswith("-")):
        raise UsageError("`maxsup segment` takes folders of finished runs or comparisons first")
    options = parse(Segment, "segment", rest, recipe, place="paths")
    from maxsup.lab import segmentation_command as commands
    from maxsup.lab.segmentation.sources import DATA_SETS

    lookup("data set with labels per pixel", options.recipe.data, DATA_SETS)
    runs, comparisons = commands.collect(options.paths)
    outcomes = commands.segment(runs, options)
    if commands.is_main_process():
        for comparison in comparisons:
            _write_and_print_report(comparison.path)
    return _exit_code(_errors(outcomes))


def _errors(outcomes: Sequence[Outcome]) -> list[str]:
    return [f"{outcome.run.path}: {outcome.error}" for outcome in outcomes if outcome.error is not None]


def _exit_code(problems: Sequence[str]) -> int:
    for problem in problems:
        print(f"maxsup: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _report(arguments: Sequence[str]) -> int:
    options = parse(Report, "report", arguments)
    if (options.directory / "study.json").is_file():
        if options.reference is not None:
            raise UsageError("--reference is a comparison's; a study has its own")
        _write_and_print_study(options.directory)
    else:
        _write_and_print_report(options.directory, options.reference)
    return 0


def _study(arguments: Sequence[str]) -> int:
    from maxsup.lab.studies import STUDIES

    names = ", ".join(STUDIES)
    if not arguments:
        raise UsageError(f"`maxsup study` takes list, or a study first: {names}")
    if arguments[0] in ("-h", "--help"):
        print(f"usage: maxsup study list [--measure]\n       maxsup study NAME [options]\n\nNAME is one of {names};")
        print("`maxsup study NAME --help` shows its options, with the values of its first recipe.")
        return 0
    if arguments[0] == "list":
        return _study_list(arguments[1:])
    study = lookup("study", arguments[0], STUDIES)()
    from maxsup.lab import executors, processes
    from maxsup.lab.studies import command, run

    if processes.launched()[1] > 1:
        raise UsageError("`maxsup study` starts its own processes; of the commands only `maxsup train` is launched")
    options, recipes = command.parse_study(study, arguments[1:])
    for recipe in recipes.values():
        _check_names(recipe, [])
    problems = run.run(
        study,
        recipes,
        options.seeds,
        options.out,
        workers=options.workers,
        data_dir=options.data_dir,
        executor=executors.choose(options.executor, options.ray_address, options.gpus_per_run),
        probe=command.probe_of(options),
        tell=lambda line: print(line, file=sys.stderr),
    )
    _write_and_print_study(run.study_directory(study, options.out))
    return _exit_code(problems)


def _study_list(arguments: Sequence[str]) -> int:
    options = parse(StudyList, "study list", arguments)
    from maxsup.lab.studies import listing

    studies = listing.named(options.names)
    speeds = listing.measured(studies, lambda line: print(line, file=sys.stderr)) if options.measure else {}
    print(listing.text(studies, options.seeds, speeds, Console().width), listing.notes(speeds), sep="\n\n")
    return 0


def _write_and_print_study(directory: Path) -> None:
    from maxsup.lab.report import formats, study

    written = study.write_study_report(directory)
    summary = study.summarize_study(directory)
    console = Console()
    print(study.heading(summary))
    for table in formats.rich_grids(study.grids(summary), console.width):
        console.print(table)
    console.print("\n" + " ".join(summary["verdict"]) + "\n", highlight=False)
    print("written: " + ", ".join(str(path) for path in written))


def _data(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] not in ("make", "show"):
        raise UsageError("`maxsup data` takes make or show, then a data set: `maxsup data make glyphs`")
    from maxsup.lab import data_commands as commands
    from maxsup.lab.data import DATA_SETS
    from maxsup.lab.data.glyphs.sets import GLYPH_SETS

    if arguments[0] == "make":
        making = parse(DataMake, "data make", arguments[1:])
        lookup("set of glyphs", making.name, GLYPH_SETS)
        print("\n".join(commands.make(making.name, making.fonts, making.out)))
        return 0
    showing = parse(DataShow, "data show", arguments[1:])
    lookup("data set", showing.name, DATA_SETS)
    data = Data(showing.name, classes=showing.classes, image_size=showing.image_size)
    commands.show(data, showing.out, showing.split, showing.per_class, showing.data_dir)
    print(f"written: {showing.out}")
    return 0


def _parse_with_file(kind: Callable[..., T], command: str, what: str, arguments: Sequence[str]) -> T:
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        raise UsageError(f"`maxsup {command}` takes {what} first")
    return parse(kind, command, arguments)


def _export(arguments: Sequence[str]) -> int:
    options = _parse_with_file(Export, "export", "the folder of a finished run", arguments)
    from maxsup.lab import export

    written = export.export(options.run, options.out, options.data_dir)
    print("written: " + ", ".join(str(path) for path in written))
    return 0


def _import(arguments: Sequence[str]) -> int:
    options = _parse_with_file(Import, "import", "the file of a checkpoint", arguments)
    from maxsup.lab import imported
    from maxsup.lab.data import DATA_SETS
    from maxsup.lab.models import check_name

    model = Model(options.model)
    check_name(model.name)
    if options.data is not None:
        lookup("data set", options.data, DATA_SETS)
    data = imported.data_of(
        model, options.data or imported.NO_DATA, options.image_size, options.eval_crop, options.interpolation
    )
    result = imported.import_checkpoint(
        options.checkpoint, model, options.out, method=options.method, data=data, data_dir=options.data_dir
    )
    _print_measures(result)
    print(f"records: {options.out}")
    return 0


def _print_measures(result: Json) -> None:
    for split, measured in result["measures"].items():
        shown = ", ".join(f"{name} {value:.4g}" for name, value in measured.items() if value is not None)
        print(f"{split}: {shown}")


def _write_and_print_report(directory: Path, reference: str | None = None) -> None:
    from maxsup.lab import records, report

    written = report.write_report(directory, reference)
    summary = report.summarize(records.read_comparison(directory), reference)
    console = Console()
    for table in report.rich_tables(summary, console.width):
        console.print(table)
    console.print(report.legend(summary), style="dim", highlight=False)
    console.print("\n" + " ".join(summary["verdict"]) + "\n", highlight=False)
    print("written: " + ", ".join(str(path) for path in written))


COMMANDS = {
    "list": _list,
    "train": _train,
    "compare": _compare,
    "analyze": _analyze,
    "probe": _probe,
    "corrupt": _corrupt,
    "segment": _segment,
    "report": _report,
    "study": _study,
    "distill": _distill,
    "export": _export,
    "import": _import,
    "data": _data,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code (see `MANUAL`)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(MANUAL, end="")
        return 0
    if arguments[0] == "--version":
        print(f"maxsup {__version__}")
        return 0
    try:
        return lookup("command", arguments[0], COMMANDS)(arguments[1:])
    except KeyboardInterrupt:
        print("maxsup: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except (DataError, OSError) as error:
        print(f"maxsup: {error}", file=sys.stderr)
        return 1
    except ValueError as error:  # names, values and folders that the command line gave
        print(f"maxsup: {error}", file=sys.stderr)
        return 2
