"""Compares an export, in the runtimes that load it, with the evaluation of its checkpoint, on pictures."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from channels import USUAL
from errors import UserError
from exporting import runtimes
from pipeline.dataset import Dataset, has_dataset
from pipeline.images import encode_jpeg, encode_png
from sizes import PictureSize, sides
from tfcompat import tf

PICTURES = 8
TOLERANCE = 1e-4  # of logits, relative to the largest; runtimes that sum in another order differ by about 1e-6
RUNTIMES = {  # format: (name, function that loads it, whether the export fails with it)
    "saved_model": [("TensorFlow 2", runtimes.tensorflow_2, True)],
    "frozen": [("a session", runtimes.session, True), ("OpenCV's dnn", runtimes.opencv, False)],
    "tflite": [("LiteRT", runtimes.litert, True)],
    "onnx": [("ONNX Runtime", runtimes.onnx_runtime, True)],
}


class ExportError(UserError):
    """The export differs from the checkpoint, or cannot be run."""

    exit_code = 1


class Exported(NamedTuple):
    """The graph to write, and the outputs that it must give."""

    graph: tf.GraphDef
    origin: str  # of the files
    files: list[bytes]  # JPEG and PNG files to compare on
    images: np.ndarray  # float32 [N, H, W, C], their pixels as evaluation cuts them
    logits: np.ndarray  # float32 [N, classes], as evaluation computes them
    probabilities: np.ndarray

    def check(self, name: str, probabilities: np.ndarray, logits: np.ndarray | None = None) -> str:
        """The differences of a runtime's outputs, in a line. Raises ExportError where they are too large.

        A difference d of logits changes a probability by d / 2 at most.
        """
        largest = float(np.abs(self.logits).max())
        difference = float(np.abs(probabilities - self.probabilities).max())
        line = f"{name}: probabilities differ by up to {difference:.1e}"
        is_near = difference <= TOLERANCE * max(1, largest)
        if logits is not None:
            share = float(np.abs(logits - self.logits).max()) / max(largest, 1e-30)
            line, is_near = f"{line}, logits by {share:.1e} of the largest", is_near and share <= TOLERANCE
        if not is_near:  # NaN is too far, too
            raise ExportError(f"{line}: {name} gives other numbers than the checkpoint; {TOLERANCE:.0e} is allowed")
        return line


def compare(format: str, exported: Exported, directory: Path) -> list[str]:
    """The differences of each runtime from the checkpoint, a line each. Raises ExportError where they are too large."""
    lines, images = [], exported.images
    for name, load, is_needed in RUNTIMES[format]:
        try:
            run = load(directory)
            parts = [run(images[:1]), *([run(images[1:])] if len(images) > 1 else [])]  # batches of one and of several
            outputs = {key: np.concatenate([part[key] for part in parts]) for key in runtimes.OUTPUTS}
            lines.append(exported.check(name, **outputs))
        except (RuntimeError, ExportError) as error:  # RuntimeError: the runtime lacks an operation
            line = str(error) if isinstance(error, ExportError) else f"{name} cannot run this net: {error}"
            if is_needed:
                raise ExportError(line) from None
            lines.append(line)
    return lines


def compare_files(class_names: Sequence[str], exported: Exported, directory: Path) -> list[str]:
    """As `compare`, for a SavedModel of picture files."""
    outputs = runtimes.tensorflow_2(directory, "files")(np.array(exported.files, object))
    by_name = [
        dict(zip(classes, probabilities, strict=True))
        for classes, probabilities in zip(outputs["classes"], outputs["probabilities"], strict=True)
    ]
    by_label = np.array([[found[name.encode()] for name in class_names] for found in by_name])
    return [exported.check("TensorFlow 2, from files", by_label)]


def sample_pictures(data: str | None, size: PictureSize, channels: int) -> tuple[list[bytes], str]:
    """JPEG and PNG files, and a description of their origin: a directory of shards, or noise where it is missing."""
    there = False
    with contextlib.suppress(UserError):  # a remote place that cannot be reached now
        there = bool(data) and has_dataset(data)
    if there:
        dataset = Dataset.load(data)
        split = next(name for name in ("test", "validation", "train") if dataset.size(name))
        index = dataset.index(split, "skip").intact()
        count = len(index.offsets)
        rows = np.linspace(0, count - 1, min(PICTURES, count), dtype=int)
        return [index.example(row).encoded for row in rows], f"pictures of {data}, {split}"
    return noise(size, channels), "pictures of noise, since the run's data are not here"


def noise(size: PictureSize, channels: int) -> list[bytes]:
    """JPEG and PNG files of random waves whose amplitude falls with their frequency, as in photographs; PNGs alone,
    as records have them, where the pictures are neither grey nor RGB."""
    random, files = np.random.default_rng(0), []
    height, width = sides(size)
    height, width = height + height // 4, width + width // 2
    for number in range(PICTURES):
        waves = [
            cv2.resize(
                random.normal(0, 1 / side, (side, side, max(3, channels))),
                (width, height),
                interpolation=cv2.INTER_CUBIC,
            )
            for side in (2, 4, 8, 16, 32, 64)
        ]
        pixels = np.clip(128 + 100 * sum(waves), 0, 255).astype(np.uint8)[..., :channels]
        encode = encode_jpeg if number % 2 and channels in USUAL else encode_png
        files.append(encode(np.ascontiguousarray(pixels)).data)
    return files
