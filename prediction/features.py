"""Feature vectors of pictures in a .npz file, written without holding them in memory. Free of TensorFlow."""

import tempfile
from pathlib import Path

import numpy as np


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
        """Takes in float32 [D] of a file."""
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
