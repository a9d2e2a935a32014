"""`maxsup data`, `export` and `import`: what comes in, and what goes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from maxsup.lab.commands.printing import print_measures
from maxsup.lab.names import lookup
from maxsup.lab.options import DataMake, DataShow, Export, Import
from maxsup.lab.parsing import UsageError, parse
from maxsup.lab.recipes import Data, Model

T = TypeVar("T")


def data(arguments: Sequence[str]) -> int:
    """Makes a set of glyphs, or draws a contact sheet."""
    if not arguments or arguments[0] not in ("make", "show"):
        raise UsageError("`maxsup data` takes make or show, then a data set: `maxsup data make glyphs`")
    from maxsup.lab.commands import data as commands
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


def export(arguments: Sequence[str]) -> int:
    """Writes a finished run's network for others."""
    options = _parse_with_file(Export, "export", "the folder of a finished run", arguments)
    from maxsup.lab import export

    written = export.export(options.run, options.out, options.data_dir)
    print("written: " + ", ".join(str(path) for path in written))
    return 0


def import_checkpoint(arguments: Sequence[str]) -> int:
    """Makes a run's folder of a checkpoint from elsewhere."""
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
    print_measures(result)
    print(f"records: {options.out}")
    return 0
