"""`maxsup study`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from maxsup.lab.commands.printing import exit_code, write_and_print_study
from maxsup.lab.commands.training import check_names
from maxsup.lab.names import lookup
from maxsup.lab.options import StudyList
from maxsup.lab.parsing import UsageError, parse


def study(arguments: Sequence[str]) -> int:
    """Lists the studies, or makes one of them."""
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
        check_names(recipe, [])
    problems = run.run(
        study,
        recipes,
        options.seeds,
        options.out,
        workers=options.workers,
        data_dir=options.data_dir,
        executor=executors.choose(options.executor, options.ray_address, options.gpus_per_run),
        probe=command.probe_of(study, options),
        only=options.only,
        tell=lambda line: print(line, file=sys.stderr),
    )
    write_and_print_study(run.study_directory(study, options.out))
    return exit_code(problems)


def _study_list(arguments: Sequence[str]) -> int:
    options = parse(StudyList, "study list", arguments)
    if options.seeds is not None and options.seeds < 1:
        raise UsageError(f"--seeds must be at least 1, got {options.seeds}")
    from maxsup.lab.studies import listing

    studies = listing.named(options.names)
    speeds = listing.measured(studies, lambda line: print(line, file=sys.stderr)) if options.measure else {}
    print(listing.text(studies, options.seeds, speeds, Console().width), listing.notes(speeds), sep="\n\n")
    return 0
