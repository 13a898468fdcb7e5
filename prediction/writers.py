"""Writers of predictions. Each is a context manager that yields a function which takes one Prediction after another."""

import contextlib
import csv
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from files import atomic_directory, output_file
from pipeline import images, montage
from prediction.heatmaps import overlay
from prediction.pictures import Prediction, folder_name

Write = Callable[[Prediction], None]


@contextlib.contextmanager
def table(files: Sequence[str], class_names: Sequence[str]) -> Iterator[Write]:
    """On standard output, a line for each class."""
    file_width, name_width = (min(60, max(map(len, texts))) for texts in (files, class_names))

    def write(prediction: Prediction) -> None:
        lines = [f"{name:<{name_width}}  {probability:>7.2%}" for name, probability in prediction.top]
        tqdm.write("\n".join(f"{'' if i else prediction.file:<{file_width}}  {line}" for i, line in enumerate(lines)))

    yield write


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
def sheets(path: str) -> Iterator[Write]:
    """Sheets of the pictures, each under its class, the probability and the file's name."""
    with montage.sheets("--sheet", path) as draw:

        def write(prediction: Prediction) -> None:
            (label, probability), *_ = prediction.top
            name = os.fsencode(os.path.basename(prediction.file)).decode(errors="backslashreplace")
            draw(prediction.thumbnail, f"{label[:15]} {probability:.0%}\n{name[-20:]}")

        yield write


@contextlib.contextmanager
def overlays(path: str) -> Iterator[Write]:
    """A directory with the class activation map of each picture as PNG, numbered since names may repeat."""
    with atomic_directory(path) as directory:
        number = 0

        def write(prediction: Prediction) -> None:
            nonlocal number
            number += 1
            name = f"{number:05d}_{Path(prediction.file).stem[:50]}.png"
            (directory / name).write_bytes(images.encode_png(overlay(prediction.image, prediction.cam)).data)

        yield write


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
