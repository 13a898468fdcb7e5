"""The record of a picture: a tf.train.Example with TF-Slim's keys, parsed in Python and in the graph."""

from typing import NamedTuple

import cv2
import numpy as np
from google.protobuf.message import DecodeError

from pipeline.tfrecord import read_at
from tfcompat import tf


class InvalidExample(Exception):
    """A payload that is no labelled picture; the message says why. `label` is its label, where it has one."""

    def __init__(self, message: str, label: int | None = None):
        super().__init__(message)
        self.label = label


class StoredExample(NamedTuple):
    """A parsed record."""

    encoded: bytes  # JPEG or PNG
    label: int
    filename: str  # of the picture that it was made from; '' where the record has none
    size: tuple[int, int]  # height and width as the record states them, 0 where it does not

    def pixels(self, channels: int) -> np.ndarray:
        """Decodes the picture: uint8 [H, W, channels], RGB or grey."""
        flag = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
        data = np.frombuffer(self.encoded, np.uint8)
        return np.atleast_3d(cv2.imdecode(data, flag | cv2.IMREAD_IGNORE_ORIENTATION))


def parse(payload: bytes) -> StoredExample:
    """Parses the payload of a record. Raises InvalidExample where it is no labelled picture."""
    try:
        features = tf.train.Example.FromString(payload).features.feature
    except DecodeError:
        raise InvalidExample("it is no tf.train.Example") from None
    labels = features["image/class/label"].int64_list.value
    encoded = features["image/encoded"].bytes_list.value
    if len(labels) != 1:
        raise InvalidExample("it has no image/class/label")
    if len(encoded) != 1:
        raise InvalidExample("it has no image/encoded", labels[0])
    names = features["image/filename"].bytes_list.value or [b""]
    size = tuple((features[f"image/{side}"].int64_list.value or [0])[0] for side in ("height", "width"))
    return StoredExample(encoded[0], labels[0], names[0].decode(errors="backslashreplace"), size)


def read_example(path: str, offset: int) -> StoredExample:
    """Reads the record at a byte offset of a shard. Raises InvalidExample, or OSError where that fails."""
    found = read_at(path, offset)
    if found.payload is None:
        raise InvalidExample(found.fault)
    return parse(found.payload)


def parse_tensor(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Parses a serialized example, a scalar string: the encoded picture, a scalar string, and its label, int64."""
    types = {"image/encoded": tf.string, "image/class/label": tf.int64}
    features = {key: tf.io.FixedLenFeature([], dtype) for key, dtype in types.items()}
    parsed = tf.io.parse_single_example(serialized, features)
    return tuple(parsed[key] for key in types)
