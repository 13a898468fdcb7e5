"""Classifies your own pictures, of any kind and size: python predict.py --ckpt PATH IMAGE_OR_FOLDER …

PATH is a run directory, a checkpoint prefix, or a single file of the V1 format. Folders are searched for pictures, with
their subfolders, by the endings of the names; hidden files are left out, and other files are counted by ending.
Pictures that cannot be read are reported and left out, and the exit code is then 1. For a net that was trained on light
strokes on black, such as MNIST, drawings are redrawn like its training pictures. From Python:
Classifier.load(PATH).predict(FILES).
"""

import sys
from typing import Annotated, Literal

import tyro

import errors
from config import AT_LEAST_ONE, PLACE, CheckpointOptions, flag, optional, options, parse


@options
class PredictOptions(CheckpointOptions):
    """The arguments of predict.py."""

    pictures: tyro.conf.Positional[Annotated[tuple[str, ...], optional("IMAGE_OR_FOLDER …")]] = ()
    """Pictures, and folders of pictures."""
    data: Annotated[str | None, PLACE, optional("DIR")] = None
    """For a checkpoint without run directory: shards whose dataset.json names the classes."""
    batch_size: Annotated[int | None, AT_LEAST_ONE, optional("N")] = None
    """Pictures per batch. Default: that of the run, or 64."""
    invert: Literal["auto", "yes", "no"] = "auto"
    """For a net trained on light strokes on black, as dataset.json says: redraw pictures that do not look like its
    training pictures. yes: redraw all, as dark strokes; no: none."""
    max_pixels: Annotated[int | None, AT_LEAST_ONE, optional("N")] = None
    """Largest number of pixels of a picture. Default: that of the training pictures' conversion, or 64 million."""
    top_k: Annotated[int | Literal["all"], AT_LEAST_ONE, tyro.conf.arg(metavar="N|all")] = 5
    """Number of most probable classes to write."""
    json: bool = False
    """Print a JSON list: file, and predictions with label and probability."""
    csv: Annotated[str | None, PLACE, optional("FILE.csv")] = None
    """Write file, rank, label and probability."""
    sheet: Annotated[str | None, PLACE, optional("FILE.png")] = None
    """Draw the pictures with their predictions; of many, several sheets."""
    explain: Annotated[str | None, PLACE, optional("DIR")] = None
    """Draw a class activation map over each picture: the places that contribute to its class."""
    features: Annotated[str | None, optional("END_POINT")] = None
    """Write the outputs of a layer, and no table; an unknown name lists all."""
    out: Annotated[str | None, PLACE, optional("FILE.npz")] = None
    """File for --features: features [N, D], files, labels (names of folders)."""


def parse_command_line(args: list[str]) -> PredictOptions:
    """The arguments of this program. Raises UserError without a picture, and for a value that is out of its range."""
    found = parse(PredictOptions, "predict.py", __doc__, args)
    if not found.pictures:
        raise errors.UserError("no picture is named; give files or folders")
    return found


if __name__ == "__main__":  # before TensorFlow's import, which takes seconds: --help should answer at once
    errors.quit_on_signals()
    with errors.reported():
        OPTIONS = parse_command_line(sys.argv[1:])

import os
from contextlib import AbstractContextManager, ExitStack

from tqdm import tqdm

from classifier import Classifier
from files import check_output
from pipeline import montage
from prediction import drawings, writers
from prediction.pictures import Prediction, find_pictures


def predict(options: PredictOptions) -> int:
    """Predicts the pictures and writes the outputs. Returns the exit code: 1 where a picture cannot be read."""
    files, left_out = find_pictures(options.pictures)
    check_outputs(files, options)
    classifier = Classifier.of(options)
    if classifier.run and options.data:
        raise errors.UserError(f"--data {options.data}: {classifier.run} names the classes itself; leave it out")
    asked = {"top_k": options.top_k, "invert": options.invert, "end_point": options.features}
    asked["max_pixels"] = options.max_pixels
    predictions = classifier.stream(files, **asked, cam=options.explain is not None)
    print(f"{classifier.title}, on {len(files):,} picture{'s' * (len(files) != 1)}", file=sys.stderr)
    if left_out:
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in left_out.most_common())
        print(f"left out of the folders, since their endings are no picture's: {kinds}", file=sys.stderr)
    if not classifier.dataset.directory:
        background = ", without its first output, background" * classifier.background
        print(f"the checkpoint names no classes: they are numbers{background}; --data DIR gives names", file=sys.stderr)
    if line := drawings.describe(classifier.dataset, options.invert):
        print(line, file=sys.stderr)
    damaged = redrawn = 0
    with ExitStack() as stack:
        outputs = {name: stack.enter_context(writer) for name, writer in chosen(options, files, classifier).items()}
        for prediction in tqdm(predictions, total=len(files), unit="picture", disable=None, leave=False):
            damaged += prediction.error is not None
            redrawn += prediction.redrawn
            report(prediction, outputs)
    if redrawn:
        print(f"{redrawn:,} redrawn as light strokes on black; --invert no leaves all unchanged", file=sys.stderr)
    if damaged:
        print(f"{damaged:,} of {len(files):,} could not be read", file=sys.stderr)
    return 1 if damaged else 0


def check_outputs(files: list[str], options: PredictOptions) -> None:
    """Raises UserError, before any work, for outputs that cannot be written or would replace a picture."""
    for key, suffix in (("csv", ".csv"), ("sheet", ".png"), ("out", ".npz")):
        if getattr(options, key) is not None:
            check_output(flag(key), getattr(options, key), suffix)
    if (options.features is None) != (options.out is None):
        raise errors.UserError("--features END_POINT and --out FILE.npz belong together; name both")
    named = [path for path in (options.csv, options.sheet, options.explain, options.out) if path is not None]
    if len(set(map(os.path.realpath, named))) < len(named):
        raise errors.UserError(f"two outputs have one name: {', '.join(named)}; give each its own")
    pictures = set(map(os.path.realpath, files))
    for path in montage.sheet_names(options.sheet) if options.sheet else ():
        if os.path.realpath(path) in pictures:
            raise errors.UserError(f"--sheet {options.sheet}: {path} is one of the pictures; choose another name")


def chosen(options: PredictOptions, files: list[str], classifier: Classifier) -> dict[str, AbstractContextManager]:
    """The writers that the options ask for, by the names of their outputs."""
    printed = {"standard output": writers.json_list()} if options.json else {}
    if not options.json and options.features is None:
        printed = {"standard output": writers.table(files, classifier.dataset.class_names)}
    kinds = {"csv": writers.csv_file, "sheet": writers.sheets, "explain": writers.overlays, "out": writers.feature_file}
    paths = {key: getattr(options, key) for key in kinds if getattr(options, key) is not None}
    named = {"sheet": [files], "explain": [files]}  # they show the files' names
    return printed | {f"--{key} {path}": kinds[key](path, *named.get(key, ())) for key, path in paths.items()}


def report(prediction: Prediction, outputs: dict[str, writers.Write]) -> None:
    """Writes a prediction to all outputs, or an error to standard error."""
    if prediction.error:
        tqdm.write(f"{prediction.file}: {prediction.error}".replace("\n", "\\n"), file=sys.stderr)
        return
    for name, write in outputs.items():
        try:
            write(prediction)
        except BrokenPipeError:  # output_file would take it for an error of its own file
            sys.exit(1)
        except OSError as error:
            raise errors.UserError(f"{name} cannot be written ({error.strerror or error})") from error


if __name__ == "__main__":
    with errors.reported():
        sys.exit(predict(OPTIONS))
