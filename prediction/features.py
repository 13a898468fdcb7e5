"""Feature vectors of pictures: as arrays, or in a .npz file that is written without holding them in memory. Free of
TensorFlow."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from prediction.pictures import Prediction


class Features(NamedTuple):
    """The outputs of a layer for N pictures."""

    values: np.ndarray  # float32 [N, D], flattened
    files: list[str]
    labels: list[str]  # names of the folders that the files are in
    errors: dict[str, str]  # files that cannot be read, which are left out, to the reason

    @classmethod
    def of(cls, predictions: Iterable["Prediction"]) -> "Features":
        """Collects the features of predictions."""
        vectors, files, errors = [], [], {}
        for prediction in predictions:
            if prediction.error:
                errors[prediction.file] = prediction.error
            else:
                vectors.append(prediction.features)
                files.append(prediction.file)
        values = np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)
        return cls(values, files, list(map(folder_name, files)), errors)


def folder_name(file: str) -> str:
    """The name of the folder that a file is in."""
    return Path(os.path.abspath(file)).parent.name


class FeatureFile:
    """Collects features [N, D], files [N] and labels [N]; the file is written when the block ends without an error.

    with FeatureFile(path) as file:
        file.add(vector, "roses/1.jpg", "roses")
    """

    def __init__(self, path: Path):
        self.path, self.files, self.labels, self.width = path, [], [], 0
        # Features are long: those of many pictures do not fit into memory.
        self.rows = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115

    def __enter__(self) -> "FeatureFile":
        return self

    def add(self, vector: np.ndarray, file: str, label: str) -> None:
        """Adds the features of a file, float32 [D]."""
        self.rows.write(np.ascontiguousarray(vector, np.float32).data)
        self.width = len(vector)
        self.files.append(file)
        self.labels.append(label)

    def __exit__(self, kind: object, *_: object) -> None:
        with self.rows:
            if kind is not None:
                return
            self.rows.flush()
            shape = len(self.files), self.width
            empty = not self.files  # which cannot be mapped
            rows = np.zeros(shape, np.float32) if empty else np.memmap(self.rows, np.float32, "r", shape=shape)
            np.savez(self.path, features=rows, files=np.array(self.files, str), labels=np.array(self.labels, str))
