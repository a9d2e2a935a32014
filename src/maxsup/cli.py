"""The `maxsup` command: its manual, its commands by name and its exit codes."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

try:
    from maxsup.lab.commands import claims, files, finished, listing, studies, training, tuning
except ModuleNotFoundError as missing:
    raise SystemExit(f"maxsup: {missing.name} is not installed; the command needs pip install 'maxsup[lab]'") from None

from maxsup._version import __version__
from maxsup.lab.names import lookup
from maxsup.lab.records import DataError

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
       maxsup tune RECIPE [options]     learning rate and weight decay for each method, then the comparison with them
       maxsup study list [--measure]    the paper's tables and our campaign as studies: data, runs, GPU hours
       maxsup study NAME [options]      one of them: recipes × methods × seeds, the paper's numbers beside its own
       maxsup claims DIR                the paper's claims, each with the verdict of the comparisons under DIR
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

COMMANDS = {
    "list": listing.list_names,
    "train": training.train,
    "compare": training.compare,
    "analyze": finished.analyze,
    "probe": finished.probe,
    "corrupt": finished.corrupt,
    "segment": finished.segment,
    "report": finished.report,
    "study": studies.study,
    "tune": tuning.tune,
    "claims": claims.claims,
    "distill": training.distill,
    "export": files.export,
    "import": files.import_checkpoint,
    "data": files.data,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code (see `MANUAL`)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a character shows another
            stream.reconfigure(errors="replace")
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(MANUAL, end="")
        return 0
    if arguments[0] == "--version":
        print(f"maxsup {__version__}")
        return 0
    try:
        code = lookup("command", arguments[0], COMMANDS)(arguments[1:])
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # A reader such as `head` has seen enough. Python would complain once more on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("maxsup: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except OSError as error:
        # The file first, as everywhere; of a rename the one that was meant.
        file = error.filename2 or error.filename
        print(f"maxsup: {error if file is None else f'{file}: {error.strerror}'}", file=sys.stderr)
        return 1
    except DataError as error:
        print(f"maxsup: {error}", file=sys.stderr)
        return 1
    except ValueError as error:  # names, values and folders that the command line gave
        print(f"maxsup: {error}", file=sys.stderr)
        return 2
