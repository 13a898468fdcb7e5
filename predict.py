"""Names what is on your own pictures, of any kind and size: python predict.py --ckpt PATH IMAGE_OR_FOLDER …

PATH is a run directory, a checkpoint prefix, or a single file of the old V1 format. Of a folder all pictures are taken,
those in its folders too, by their endings; hidden ones are left out. What cannot be read is told and left out, and the
exit code is then 1. A net that was trained on light strokes on black, such as MNIST's, gets drawings made like those.
"""

import argparse
import sys

import errors
from arguments import checkpoint_parser


def _top_k(text: str) -> int:
    if text != "all" and not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"'{text}' is neither a number from 1 nor 'all'")
    return sys.maxsize if text == "all" else int(text)


def parse_command_line(words: list[str] | None = None) -> argparse.Namespace:
    """The arguments of this script, or of the words given."""
    parser = checkpoint_parser("predict.py", __doc__)
    parser.add_argument("pictures", nargs="+", metavar="IMAGE_OR_FOLDER", help="what to look at")
    parser.add_argument(
        "--data", metavar="DIR", help="shards whose dataset.json names the classes, where no run directory does"
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="pictures at a time (default: the run's, or 64)")
    parser.add_argument(
        "--invert",
        choices=["auto", "yes", "no"],
        default="auto",
        help="for nets trained on light strokes on black, make the same of drawings: where they are not already like "
        "the training pictures; of all, strokes being dark; of none (default: auto)",
    )
    told = parser.add_argument_group("what to tell")
    told.add_argument(
        "--top-k", type=_top_k, default=5, metavar="N|all", help="the N most probable classes (default: 5)"
    )
    told.add_argument("--json", action="store_true", help="print a list: file, predictions with label and probability")
    told.add_argument("--csv", metavar="FILE.csv", help="file, rank, label, probability")
    told.add_argument("--sheet", metavar="FILE.png", help="the pictures with their predictions; of many several sheets")
    told.add_argument("--explain", metavar="DIR", help="over each picture, which places spoke for its class")
    told.add_argument("--features", metavar="END_POINT", help="write a layer's outputs; a wrong name lists them")
    told.add_argument("--out", metavar="FILE.npz", help="where to: features [N, D], files, labels (names of folders)")
    return parser.parse_args(words)


if __name__ == "__main__":  # here, since TensorFlow's import takes seconds and --help should not
    ARGS = parse_command_line()

import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

import classifier
from checkpoints import step_of
from classifier import Trained
from files import atomic_directory, check_output, output_file, read_regular
from pipeline import images, montage
from pipeline.convert.sources.contract import files_below
from pipeline.pictures import Picture
from pipeline.preprocess import PREPROCESSINGS
from prediction import drawings as drawn
from prediction import heatmaps as explain
from prediction.features import FeatureFile
from tfcompat import tf

THUMBNAIL = 160  # pixels of the longer side: more than a sheet shows


class Seen(NamedTuple):
    """A picture as the net gets it."""

    file: str
    image: np.ndarray  # float32 [size, size, C], preprocessed
    thumbnail: np.ndarray  # uint8 [h, w, C]


class Told(NamedTuple):
    """What the net says of a picture."""

    seen: Seen
    top: list[tuple[str, float]]  # the most probable classes, the first foremost, with their probabilities
    features: np.ndarray | None  # float32 [D]
    heat: np.ndarray | None  # float32 [h, w]


def listed(arguments: Iterable[str]) -> list[str]:
    """The pictures that are named and those in the folders that are, in order.

    Raises UserError for what is not there and for folders without pictures.
    """
    found = []
    for argument in arguments:
        if not os.path.exists(argument):
            raise errors.UserError(f"{argument} does not exist")
        inside = [argument]
        if os.path.isdir(argument):
            inside = [str(path) for path in files_below(Path(argument)) if path.suffix.lower() in images.EXTENSIONS]
        if not inside:
            raise errors.UserError(f"{argument} holds no pictures ({', '.join(sorted(images.EXTENSIONS))})")
        found += inside
    return found


class Eye:
    """Reads picture files and makes of them what evaluation would, from their bytes on."""

    def __init__(self, net: Trained, session: tf.Session, invert: str):
        self.dataset, self.statistics, self.invert = net.dataset, net.statistics, invert
        self.box = drawn.box_side(net.statistics)
        if invert == "yes" and self.box is None:
            raise errors.UserError("--invert yes: the net was not trained on light strokes on black; leave it out")
        encoded = tf.placeholder(tf.string, [])
        picture = Picture.of(encoded, net.dataset["channels"])
        image = PREPROCESSINGS[net.config.preprocessing](picture, net.config.image_size, None, net.statistics)
        self.preprocess = session.make_callable(image, [encoded])
        self.redrawn = 0

    def look(self, file: str) -> Seen:
        """Raises ImageError, OSError or tf.errors.OpError where that fails."""
        stored = images.store(read_regular(file), self.dataset["channels"], self.dataset.get("short_side"))
        shrink = min(1, THUMBNAIL / max(stored.height, stored.width))
        size = max(1, round(stored.width * shrink)), max(1, round(stored.height * shrink))
        thumbnail = np.atleast_3d(cv2.resize(stored.pixels, size, interpolation=cv2.INTER_AREA))
        if self.box and self.invert != "no":
            dark = self.invert == "yes" or None
            if dark or not drawn.is_like(stored.pixels, self.statistics):
                side = len(self.statistics.pixels["mean"])
                stored = images.encode_png(drawn.redrawn(stored.pixels, side, self.box, dark))
                self.redrawn += 1
        return Seen(file, self.preprocess(stored.data), thumbnail)


def predict(args: argparse.Namespace) -> int:
    """Builds the net, restores it and tells what it says of each picture. Returns the exit code."""
    check_arguments(args)
    files = listed(args.pictures)
    check_kept(files, args)
    net = classifier.find(args, args.data, args.batch_size)
    if net.run and args.data:
        raise errors.UserError(f"--data {args.data}: {net.run} names the classes itself; leave it out")
    names, damaged = net.class_names, 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(tf.Graph().as_default())
        tf.set_random_seed(net.config.seed)
        session = stack.enter_context(tf.Session(config=net.session_config()))
        eye = Eye(net, session, args.invert)
        size = net.config.image_size
        batch = tf.placeholder(tf.float32, [None, size, size, net.dataset["channels"]])
        fetches = fetched(net, batch, args)
        net.restore(session)
        count = f"{len(files):,} picture{'s' * (len(files) != 1)}"
        print(f"{net.prefix}, step {step_of(net.prefix)}, on {count}", file=sys.stderr)
        tellers = [(where, stack.enter_context(teller)) for where, teller in chosen(args, files, net)]
        bar = stack.enter_context(tqdm(total=len(files), unit="picture", disable=None, leave=False))

        def seen() -> Iterator[Seen]:
            nonlocal damaged
            for file in files:
                try:
                    yield eye.look(file)
                except (images.ImageError, OSError, tf.errors.OpError) as error:
                    reason = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
                    tqdm.write(f"{file}: {reason}".replace("\n", "\\n"), file=sys.stderr)
                    damaged += 1
                bar.update()

        pictures = seen()
        while some := list(islice(pictures, net.config.batch_size)):
            values = session.run(fetches, {batch: np.stack([picture.image for picture in some])})
            if not np.isfinite(values["probabilities"]).all():
                raise errors.UserError(f"{net.prefix}: the net's outputs are not finite; its weights are too large")
            for i, picture in enumerate(some):
                probabilities = values["probabilities"][i]
                # Stable, so that of equal ones the first comes first, as argmax has it.
                best = np.argsort(-probabilities, kind="stable")[: args.top_k]
                top = [(names[label], float(f"{probabilities[label]:.9g}")) for label in best]
                told = Told(picture, top, *(values[key][i] if key in values else None for key in ("features", "heat")))
                for where, tell in tellers:
                    try:
                        tell(told)
                    except BrokenPipeError:  # output_file would take it for its own file's
                        sys.exit(1)
                    except OSError as error:
                        raise errors.UserError(f"{where} cannot be written ({error.strerror or error})") from error
    if eye.redrawn:
        print(f"{eye.redrawn:,} redrawn as light strokes on black; --invert no leaves all as they are", file=sys.stderr)
    if damaged:
        print(f"{damaged:,} of {len(files):,} could not be read", file=sys.stderr)
    return 1 if damaged else 0


def check_arguments(args: argparse.Namespace) -> None:
    """Raises UserError before anything is done for what could not be written in the end."""
    outputs = {"--csv": (args.csv, ".csv"), "--sheet": (args.sheet, ".png"), "--out": (args.out, ".npz")}
    for flag, (path, ending) in outputs.items():
        if path is not None:
            check_output(flag, path, ending)
    if (args.features is None) != (args.out is None):
        raise errors.UserError("--features END_POINT and --out FILE.npz belong together; name both")


def check_kept(files: list[str], args: argparse.Namespace) -> None:
    """Raises UserError where a sheet would take the place of a picture."""
    pictures = set(map(os.path.realpath, files))
    for path in montage.sheet_names(args.sheet) if args.sheet else ():
        if os.path.realpath(path) in pictures:
            raise errors.UserError(f"--sheet {args.sheet}: {path} is one of the pictures; choose another name")


def fetched(net: Trained, batch: tf.Tensor, args: argparse.Namespace) -> dict[str, tf.Tensor]:
    """Probabilities [N, classes] of a batch, and features [N, D] and heat [N, h, w] where they are asked for."""
    heads, end_points = net.build(batch)
    fetches = {"probabilities": tf.nn.softmax(heads[""])}
    if args.features is not None:
        end_points = {"logits": heads[""], **end_points}
        if args.features not in end_points:
            raise errors.unknown("end point", args.features, end_points)
        fetches["features"] = tf.reshape(end_points[args.features], [tf.shape(batch)[0], -1])
    if args.explain is not None:
        fetches["heat"] = explain.heat(batch, heads[""])
    return fetches


def chosen(
    args: argparse.Namespace, files: list[str], net: Trained
) -> list[tuple[str, contextlib.AbstractContextManager]]:
    """What tells of the pictures: where to, and a context manager that gives a function of Told."""
    chosen = [("standard output", as_json() if args.json else as_table(files, net.class_names))]
    tellers = {"csv": as_csv, "sheet": as_sheets, "explain": as_overlays, "out": as_features}
    paths = {option: getattr(args, option) for option in tellers}
    return chosen + [(f"--{key} {path}", tellers[key](path)) for key, path in paths.items() if path is not None]


@contextlib.contextmanager
def as_table(files: list[str], names: list[str]) -> Iterator[Callable]:
    """A line for each class."""
    file_width, name_width = (min(60, max(map(len, texts))) for texts in (files, names))

    def tell(told: Told) -> None:
        lines = [f"{name:<{name_width}}  {probability:>7.2%}" for name, probability in told.top]
        tqdm.write("\n".join(f"{'' if i else told.seen.file:<{file_width}}  {line}" for i, line in enumerate(lines)))

    yield tell


@contextlib.contextmanager
def as_json() -> Iterator[Callable]:
    """A list, an element a line."""
    before = "["

    def tell(told: Told) -> None:
        nonlocal before
        predictions = [{"label": name, "probability": probability} for name, probability in told.top]
        tqdm.write(before + json.dumps({"file": told.seen.file, "predictions": predictions}), end="")
        before = ",\n "

    yield tell
    print("[]" if before == "[" else "]")


@contextlib.contextmanager
def as_csv(path: str) -> Iterator[Callable]:
    """A row for each class."""
    with output_file("--csv", path) as partial, partial.open("w", newline="", errors="surrogateescape") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "rank", "label", "probability"])
        yield lambda told: rows.writerows(
            [told.seen.file, rank, name, f"{probability:.9g}"]
            for rank, (name, probability) in enumerate(told.top, start=1)
        )


@contextlib.contextmanager
def as_sheets(path: str) -> Iterator[Callable]:
    """Pictures under their class, its probability and their names."""
    with montage.sheets("--sheet", path) as draw:

        def tell(told: Told) -> None:
            (label, probability), *_ = told.top
            name = os.fsencode(os.path.basename(told.seen.file)).decode(errors="backslashreplace")
            draw(told.seen.thumbnail, f"{label[:15]} {probability:.0%}\n{name[-20:]}")

        yield tell


@contextlib.contextmanager
def as_overlays(path: str) -> Iterator[Callable]:
    """A PNG for each picture in a directory, numbered since names may repeat."""
    with atomic_directory(path) as directory:
        number = 0

        def tell(told: Told) -> None:
            nonlocal number
            number += 1
            name = f"{number:05d}_{Path(told.seen.file).stem[:50]}.png"
            (directory / name).write_bytes(images.encode_png(explain.overlay(told.seen.image, told.heat)).data)

        yield tell


@contextlib.contextmanager
def as_features(path: str) -> Iterator[Callable]:
    """FeatureFile's arrays; the label of a picture is its folder's name."""
    with output_file("--out", path) as partial, FeatureFile(partial) as file:
        yield lambda told: file.add(told.features, told.seen.file, Path(os.path.abspath(told.seen.file)).parent.name)


if __name__ == "__main__":
    with errors.reported():
        sys.exit(predict(ARGS))
