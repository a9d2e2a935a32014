"""`maxsup tune`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from maxsup.lab.commands.printing import exit_code, write_and_print_study
from maxsup.lab.commands.training import check_names
from maxsup.lab.options import Tune
from maxsup.lab.parsing import UsageError, parse_with_recipe


def tune(arguments: Sequence[str]) -> int:
    """Chooses learning rate and weight decay for each method on a grid, then compares with them."""
    options = parse_with_recipe(Tune, "tune", arguments)
    check_names(options.recipe, options.methods)
    from maxsup.lab import executors, processes
    from maxsup.lab.studies import tuning

    plan = tuning.plan(
        options.recipe,
        options.methods,
        seeds=options.seeds,
        tuning_seeds=options.tuning_seeds,
        lrs=options.lrs,
        weight_decays=options.weight_decays,
    )
    if processes.launched()[1] > 1:
        raise UsageError("`maxsup tune` starts its own processes; of the commands only `maxsup train` is launched")
    how: dict[str, Any] = {
        "workers": options.workers,
        "data_dir": options.data_dir,
        "executor": executors.choose(options.executor, options.ray_address, options.gpus_per_run),
        "tell": lambda line: print(line, file=sys.stderr),
    }
    problems = tuning.search(plan, options.out, **how)
    if not problems:
        print((options.out / "tuned.md").read_text(encoding="utf-8"))
        problems = tuning.compare_chosen(plan, options.out, **how)
        write_and_print_study(tuning.report_directory(options.out))
    return exit_code(problems)
