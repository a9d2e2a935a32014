"""The command line of a study: its options, and each recipe as they change it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from maxsup.lab.data import DATA_SETS
from maxsup.lab.names import lookup
from maxsup.lab.options import Study as Options
from maxsup.lab.parsing import parse
from maxsup.lab.recipes import Data, Recipe
from maxsup.lab.studies.run import Probe, with_scale
from maxsup.lab.studies.scale import on_data, resized
from maxsup.lab.studies.study import Study


def parse_study(study: Study, arguments: Sequence[str]) -> tuple[Options, dict[str, Recipe]]:
    """The options, and the recipes by the name of their variant; what is on the command line goes before the scale.

    Raises:
        ValueError: for options that are unknown or out of range.
        DataError: if a scale is given and the data, whose images it counts, is absent or damaged.
    """
    # The same option by the name of what it is for.
    words = [re.sub(r"^--data(?=$|=)", "--data.name", argument) for argument in arguments]
    name = f"study {study.name}"
    recipes = {}
    for variant in study.variants:
        first = parse(Options, name, words, variant.recipe)
        recipe = on_data(variant.recipe, first.recipe.data.name)
        if first.image_size is not None:
            recipe = resized(recipe, first.image_size)
        images = parse(Options, name, words, recipe).recipe.data
        options = parse(Options, name, words, with_scale(recipe, first.scale, images, first.data_dir))
        recipes[variant.name] = options.recipe
    return options, recipes


def probe_of(study: Study, options: Options) -> Probe | None:
    """The images on which the study's runs are probed, with what the options change of them; None if they are not.

    Raises:
        UnknownNameError: for an unknown data set.
        ValueError: if options ask for a probe that the study does not have.
    """
    if options.probe_data is not None:
        lookup("data set", options.probe_data, DATA_SETS)
    asked = {
        "probe_data": options.probe_data,
        "probe_train_size": options.probe_train_size,
        "probe_data_dir": options.probe_data_dir,
    }
    given = [f"--{name.replace('_', '-')}" for name, value in asked.items() if value is not None]
    if study.probe is None:
        if given:
            raise ValueError(f"{', '.join(given)}: {study.name} probes nothing")
        return None
    data = study.probe
    if options.probe_data not in (None, data.name):
        data = Data(str(options.probe_data))
    if options.probe_train_size is not None:
        data = dataclasses.replace(data, train_size=options.probe_train_size)
    return Probe(data, options.probe_data_dir)
