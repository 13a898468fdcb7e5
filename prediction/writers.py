"""Writers of predictions. Each is a context manager that yields a function which takes one Prediction after another."""

import contextlib
import csv
import json
import os
import shutil
import sys
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from errors import printable
from files import atomic_directory, output_file
from pipeline import montage
from prediction.heatmaps import overlay
from prediction.pictures import Prediction, folder_name

WIDEST = 60  # columns of a name in a table; longer ones widen it where they are shown
LONGEST = 240  # bytes of a file's name, which can have 255

Write = Callable[[Prediction], None]


@contextlib.contextmanager
def table(files: Sequence[str], class_names: Sequence[str]) -> Iterator[Write]:
    """On standard output, a line for each class, the file before the first.

    In a terminal that is too narrow for that, the file has a line of its own.
    """
    file_width, name_width = (min(WIDEST, max(map(columns, texts), default=0)) for texts in (files, class_names))
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10**6

    def write(prediction: Prediction) -> None:
        width = max(file_width, columns(prediction.file))
        wide = max(name_width, *(columns(name) for name, _ in prediction.top))
        lines = [f"  {padded(name, wide)}  {probability:>7.2%}" for name, probability in prediction.top]
        if width + len(lines[0]) > room:
            tqdm.write("\n".join([printable(prediction.file), *lines]))
        else:
            tqdm.write(padded(prediction.file, width) + f"\n{' ' * width}".join(lines))

    yield write


def columns(text: str) -> int:
    """The columns that a terminal takes for a text: two for a Chinese character, none for a combining accent."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in printable(text)
    )


def padded(text: str, width: int) -> str:
    """A text with spaces up to a number of columns."""
    return printable(text) + " " * (width - columns(text))


@contextlib.contextmanager
def json_list() -> Iterator[Write]:
    """On standard output, a JSON list with a line for each picture."""
    before = "["

    def write(prediction: Prediction) -> None:
        nonlocal before
        predictions = [{"label": name, "probability": probability} for name, probability in prediction.top]
        tqdm.write(before + json.dumps({"file": prediction.file, "predictions": predictions}), end="")
        before = ",\n "

    yield write
    print("[]" if before == "[" else "]")


@contextlib.contextmanager
def csv_file(path: str) -> Iterator[Write]:
    """A row for each class."""
    with output_file("--csv", path) as partial, partial.open("w", newline="", errors="surrogateescape") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "rank", "label", "probability"])
        yield lambda prediction: rows.writerows(
            [prediction.file, rank, name, f"{probability:.9g}"]
            for rank, (name, probability) in enumerate(prediction.top, start=1)
        )


@contextlib.contextmanager
def sheets(path: str, files: Sequence[str]) -> Iterator[Write]:
    """Sheets of the pictures, each under its class, the probability and the file's name."""
    names = short_names(files)
    with montage.sheets("--sheet", path) as draw:

        def write(prediction: Prediction) -> None:
            draw(prediction.thumbnail, f"{headline(prediction)}\n{shown(names[prediction.file])}")

        yield write


@contextlib.contextmanager
def overlays(path: str, files: Sequence[str]) -> Iterator[Write]:
    """A directory with a PNG for each picture, in folders as the pictures are: it, and its class activation map."""
    names, relative = short_names(files), output_names(files)
    with atomic_directory(path) as directory:

        def write(prediction: Prediction) -> None:
            drawn = overlay(prediction.image, prediction.cam)
            tiles = [(prediction.thumbnail, shown(names[prediction.file])), (drawn, headline(prediction))]
            target = directory / relative[prediction.file]
            target.parent.mkdir(parents=True, exist_ok=True)
            montage.sheet(tiles, len(tiles)).savefig(target, dpi=max(drawn.shape) / montage.SIDE)

        yield write


def headline(prediction: Prediction) -> str:
    """The most probable class and its probability."""
    (label, probability), *_ = prediction.top
    return f"{label} {probability:.0%}"


def shown(name: str) -> str:
    """A file's name as text that can be drawn."""
    return os.fsencode(printable(name)).decode(errors="backslashreplace")


def short_names(files: Sequence[str]) -> dict[str, str]:
    """The names of files, with as many of their folders as it takes to tell files of one name apart."""
    parts = {file: Path(os.path.abspath(file)).parts for file in files}
    depths = dict.fromkeys(parts, 1)
    while True:
        names = {file: os.path.join(*parts[file][-depths[file] :]) for file in parts}
        counts = Counter(names.values())
        unclear = [file for file in parts if counts[names[file]] > 1 and depths[file] < len(parts[file])]
        if not unclear:
            return names
        for file in unclear:
            depths[file] += 1


def output_names(files: Sequence[str]) -> dict[str, Path]:
    """A name that ends in .png for each file, in folders as they are below the one that holds all files."""
    absolute = {file: os.path.abspath(file) for file in files}
    above = os.path.commonpath(list(map(os.path.dirname, absolute.values()))) if files else ""
    names, taken = {}, set()
    for file, path in absolute.items():
        relative = Path(os.path.relpath(path, above))
        stem = os.fsdecode(os.fsencode(relative.stem)[:LONGEST])
        name, number = relative.with_name(f"{stem}.png"), 1
        while name in taken:
            number += 1
            name = relative.with_name(f"{stem}_{number}.png")
        taken.add(name)
        names[file] = name
    return names


@contextlib.contextmanager
def feature_file(path: str) -> Iterator[Write]:
    """A .npz file: features, float32 [N, D], files [N], and labels [N], the names of the folders they are in.

    Features of many pictures do not fit into memory, so they go through a temporary file.
    """
    files, width = [], 0
    with output_file("--out", path) as partial, tempfile.TemporaryFile(dir=partial.parent) as rows:

        def write(prediction: Prediction) -> None:
            nonlocal width
            rows.write(np.ascontiguousarray(prediction.features, np.float32).data)
            width = len(prediction.features)
            files.append(prediction.file)

        yield write
        rows.flush()
        shape = len(files), width
        # An empty file cannot be mapped.
        features = np.memmap(rows, np.float32, "r", shape=shape) if files else np.zeros(shape, np.float32)
        labels = np.array(list(map(folder_name, files)), str)
        np.savez(partial, features=features, files=np.array(files, str), labels=labels)
