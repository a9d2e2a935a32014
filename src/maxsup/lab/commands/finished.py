"""`maxsup analyze`, `probe`, `corrupt`, `segment` and `report`: commands on finished runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from rich.console import Console

from maxsup.lab.commands.printing import errors, exit_code, write_and_print_report, write_and_print_study
from maxsup.lab.names import lookup
from maxsup.lab.options import Analyze, Corrupt, Probe, Report, Segment
from maxsup.lab.parsing import UsageError, parse, parse_with_paths, take
from maxsup.lab.recipes import Data


def analyze(arguments: Sequence[str]) -> int:
    """Measures and draws what runs show."""
    options = parse_with_paths(Analyze, "analyze", arguments)
    from maxsup.lab import analysis_commands as commands

    runs, comparisons = commands.collect(options.paths)
    named = options.classes is not None or options.method is not None
    if named and not comparisons:
        raise UsageError("--classes and --method are for a comparison's plane of classes, and no PATH is a comparison")
    problems = []
    for comparison in comparisons:  # first, since it tells whether the names on the command line are known
        problems += commands.project(comparison, options.data_dir, options.classes, options.method)
    problems += errors(commands.analyze(runs, options.data_dir, options.workers))
    for comparison in comparisons:
        problems += commands.gallery(comparison, options.data_dir)
        write_and_print_report(comparison.path)
    return exit_code(problems)


def probe(arguments: Sequence[str]) -> int:
    """Fits classifiers on their frozen features."""
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
        write_and_print_report(comparison.path)
    return exit_code(errors(outcomes))


def corrupt(arguments: Sequence[str]) -> int:
    """Tests them on corrupted images."""
    options = parse_with_paths(Corrupt, "corrupt", arguments)
    from maxsup.lab import analysis_commands as commands

    runs, comparisons = commands.collect(options.paths)
    outcomes = commands.corrupt(runs, options.data_dir, options.workers)
    for comparison in comparisons:
        write_and_print_report(comparison.path)
    return exit_code(errors(outcomes))


def parse_segment(arguments: Sequence[str]) -> Segment:
    """The options of `maxsup segment`, with the recipe that is named, or that of the data, in them."""
    from maxsup.lab.segmentation.recipes import RECIPES, of_data

    wanted, rest = take("--recipe", arguments)
    data, rest = take("--data", rest)
    asks_help = bool({"-h", "--help"} & set(rest))
    if data is None and wanted is None and not asks_help:
        raise UsageError("`maxsup segment` needs --data NAME, images with labels per pixel; `maxsup list` shows them")
    recipe = lookup("recipe", wanted, RECIPES)() if wanted else of_data(data or "fashion-scenes")
    recipe = dataclasses.replace(recipe, data=data or recipe.data)
    if not asks_help and (not rest or rest[0].startswith("-")):
        raise UsageError("`maxsup segment` takes folders of finished runs or comparisons first")
    return parse(Segment, "segment", rest, recipe, place="paths")


def segment(arguments: Sequence[str]) -> int:
    """Fine-tunes UPerNet on their backbones."""
    options = parse_segment(arguments)
    from maxsup.lab.commands import segmentation as commands
    from maxsup.lab.segmentation.sources import DATA_SETS

    lookup("data set with labels per pixel", options.recipe.data, DATA_SETS)
    runs, comparisons = commands.collect(options.paths)
    outcomes = commands.segment(runs, options)
    if commands.is_main_process():
        for comparison in comparisons:
            write_and_print_report(comparison.path)
    return exit_code(errors(outcomes))


def report(arguments: Sequence[str]) -> int:
    """Writes the tables and the page of a comparison or study anew."""
    options = parse(Report, "report", arguments)
    if (options.directory / "study.json").is_file():
        if options.reference is not None:
            raise UsageError("--reference is a comparison's; a study has its own")
        write_and_print_study(options.directory)
    else:
        write_and_print_report(options.directory, options.reference, whole=True)
    return 0
