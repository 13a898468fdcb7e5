"""Compares an export, in the runtimes that load it, with the evaluation of its checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from errors import UserError
from exporting import runtimes
from tfcompat import tf

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
    shape: list[int]  # height, width and channels of its images
    files: list[bytes]  # JPEG and PNG files to compare on
    images: np.ndarray  # float32 [N, H, W, C], their pixels as evaluation cuts them
    logits: np.ndarray  # float32 [N, classes], as evaluation computes them
    probabilities: np.ndarray

    @property
    def probability_tolerance(self) -> float:
        """A difference d of logits changes a probability by d / 2 at most."""
        return TOLERANCE * max(1.0, float(np.abs(self.logits).max()))


def compare(format: str, exported: Exported, directory: Path) -> None:
    """Prints the differences of each runtime from the checkpoint. Raises ExportError where they are too large."""
    for name, load, is_needed in RUNTIMES[format]:
        try:
            _compare_runtime(name, load(directory), exported)
        except RuntimeError as error:  # the runtime lacks an operation
            if is_needed:
                raise ExportError(f"{name} cannot run the net ({error})") from None
            print(f"{name} cannot run this net: {error}")
        except ExportError as error:
            if is_needed:
                raise
            print(error)


def _compare_runtime(name: str, run: runtimes.Run, exported: Exported) -> None:
    images = exported.images
    parts = [run(images[:1]), *([run(images[1:])] if len(images) > 1 else [])]  # batches of one and of several
    outputs = {key: np.concatenate([part[key] for part in parts]) for key in runtimes.OUTPUTS}
    logits = float(np.abs(outputs["logits"] - exported.logits).max()) / max(float(np.abs(exported.logits).max()), 1e-30)
    probabilities = float(np.abs(outputs["probabilities"] - exported.probabilities).max())
    print(f"{name}: probabilities differ by up to {probabilities:.1e}, logits by {logits:.1e} of the largest")
    if not (logits <= TOLERANCE and probabilities <= exported.probability_tolerance):  # NaN is too far, too
        raise ExportError(f"{name} gives other numbers than the checkpoint; at most {TOLERANCE:.0e} are allowed")


def compare_files(class_names: Sequence[str], exported: Exported, directory: Path) -> None:
    """As `compare`, for a SavedModel of picture files."""
    outputs = runtimes.tensorflow_2(directory, "files")(np.array(exported.files, object))
    names = [name.encode() for name in class_names]
    by_label = [
        [dict(zip(classes, probabilities, strict=True))[name] for name in names]
        for classes, probabilities in zip(outputs["classes"], outputs["probabilities"], strict=True)
    ]
    difference = float(np.abs(np.array(by_label) - exported.probabilities).max())
    print(f"TensorFlow 2, from files: probabilities differ by up to {difference:.1e}")
    if not difference <= exported.probability_tolerance:
        raise ExportError("the SavedModel gives other numbers than the checkpoint")
