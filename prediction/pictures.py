"""A user's picture files: their list, and reading them as inputs of a net."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from channels import visible
from errors import UserError
from files import all_files, expand, read_regular
from pipeline import images
from pipeline.dataset import Dataset
from pipeline.preprocess import Preprocessor
from prediction import drawings
from tfcompat import tf

THUMBNAIL = 160  # pixels of the longer side: more than a sheet shows


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction for a picture, or the reason why it cannot be read."""

    file: str
    error: str | None = None
    top: list[tuple[str, float]] = field(default_factory=list)  # class names and probabilities, the highest first
    thumbnail: np.ndarray | None = field(default=None, repr=False)  # uint8 [h, w, 1 or 3], 160 pixels at most
    redrawn: bool = False  # as light strokes on black
    features: np.ndarray | None = field(default=None, repr=False)  # float32 [D], of the layer that was asked for
    image: np.ndarray | None = field(default=None, repr=False)  # float32 [H, W, C], the net's input, beside `cam`
    cam: np.ndarray | None = field(default=None, repr=False)  # float32 [h, w], 0 to 1: the class activation map


class Features(NamedTuple):
    """The outputs of a layer for N pictures."""

    values: np.ndarray  # float32 [N, D], flattened
    files: list[str]
    labels: list[str]  # names of the folders that the files are in
    errors: dict[str, str]  # files that cannot be read, which are left out, to the reason

    @classmethod
    def of(cls, predictions: Iterable[Prediction]) -> "Features":
        """Collects the features of predictions."""
        rows, errors = [], {}
        for each in predictions:
            if each.error:
                errors[each.file] = each.error
            else:
                rows.append((each.features, each.file, folder_name(each.file)))
        vectors, files, labels = map(list, zip(*rows, strict=True)) if rows else ([], [], [])
        return cls(np.stack(vectors) if rows else np.zeros((0, 0), np.float32), files, labels, errors)


def folder_name(file: str) -> str:
    """The name of the folder that a file is in."""
    return Path(os.path.abspath(file)).parent.name


def list_pictures(files: "str | os.PathLike | Iterable[str | os.PathLike]") -> list[str]:
    """The given pictures and all pictures in the given folders, in order. Raises UserError as find_pictures."""
    return find_pictures(files)[0]


def find_pictures(files: "str | os.PathLike | Iterable[str | os.PathLike]") -> tuple[list[str], Counter]:
    """The given pictures and all pictures in the given folders, in order; and the other files' numbers by ending.

    In folders and their subfolders, pictures are found by their endings; hidden files are left out. Raises UserError
    for a path that does not exist and for a folder without pictures.
    """
    found, left_out = [], Counter()
    for path in [files] if isinstance(files, str | os.PathLike) else files:
        path = expand(path)
        if not os.path.exists(path):
            raise UserError(f"{path} does not exist")
        if not os.path.isdir(path):
            found.append(path)
            continue
        inside = all_files(Path(path))
        pictures = [str(file) for file in inside if file.suffix.lower() in images.EXTENSIONS]
        others = Counter(
            file.suffix.lower() or "without an ending"
            for file in inside
            if file.suffix.lower() not in images.EXTENSIONS
        )
        if not pictures:
            others = ", ".join(f"{number:,} {kind}" for kind, number in others.most_common())
            has = f"; it holds {others}" if others else ""
            raise UserError(f"{path} holds no pictures ({', '.join(sorted(images.EXTENSIONS))}){has}")
        found += pictures
        left_out += others
    return found, left_out


class PictureReader:
    """Reads picture files as conversion and evaluation do, so that predictions equal those of evaluation."""

    def __init__(self, preprocessor: Preprocessor, dataset: Dataset, session: tf.Session, invert: str, max_pixels: int):
        """Adds the preprocessing to the session's graph, which must be the default graph.

        dataset is that of the training. For a net trained on light strokes on black, invert 'auto' redraws pictures
        that do not look so, 'yes' all of them, as dark strokes, 'no' none. Raises UserError as drawings.box_of.
        """
        self.dataset = dataset
        self.format = dataset.picture_format._replace(channels=preprocessor.channels, max_pixels=max_pixels)
        self.box, self.dark = drawings.box_of(dataset, invert), invert == "yes" or None
        encoded = tf.placeholder(tf.string, [])
        self.preprocess = session.make_callable(preprocessor.evaluate(preprocessor.picture(encoded)), [encoded])

    def read(self, file: str) -> Prediction:
        """A prediction with the net's input for a picture file, without its result."""
        statistics = self.dataset.statistics
        try:
            stored = images.store(read_regular(file), self.format)
            shrink = min(1, THUMBNAIL / max(stored.height, stored.width))
            size = max(1, round(stored.width * shrink)), max(1, round(stored.height * shrink))
            thumbnail = np.atleast_3d(cv2.resize(visible(stored.pixels), size, interpolation=cv2.INTER_AREA))
            redraw = self.box is not None and (self.dark or not drawings.is_like(stored.pixels, statistics))
            if redraw:
                side = len(statistics.pixels["mean"])
                stored = images.encode_png(drawings.redrawn(stored.pixels, side, self.box, self.dark))
            return Prediction(file, thumbnail=thumbnail, redrawn=redraw, image=self.preprocess(stored.data))
        except (images.ImageError, OSError, tf.errors.OpError) as error:
            reason = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error) or repr(error)
            return Prediction(file, error=reason)
