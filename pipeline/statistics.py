"""Statistics of the training pictures: of each channel, and for small pictures of each pixel. Free of TensorFlow.

Sums are of integers and exact, so that they do not depend on who added what first. All are on the scale 0 to 255.
"""

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from errors import UserError
from files import check_unpacked, open_regular, os_errors_as_user_errors
from pipeline import strokes

PIXEL_STATS = "pixel_stats.npz"
SMALL = 128 * 128  # pixels; above, statistics of each pixel say little and weigh much
MOST_STATS = 2**21  # bytes of PIXEL_STATS of three channels or fewer: four arrays of float64, and their headers
_SAMPLES = 3 * 2**20  # taken to float64 at a time: 24 MB


class Statistics(NamedTuple):
    """Statistics of the training pictures that preprocessing may need."""

    mean: np.ndarray | None = None  # [C], as are the next two; None where there are no training pictures
    deviation: np.ndarray | None = None
    eigenvalues: np.ndarray | None = None  # of the channels' covariance: variances, the largest first
    components: np.ndarray | None = None  # [C, C]; row i is the unit vector of eigenvalue i
    pixels: dict[str, np.ndarray] | None = None  # mean, deviation, minimum, maximum: float64 [H, W, C]


class Moments:
    """Sums from which the statistics of pictures are computed."""

    def __init__(self, channels: int):
        self.count, self.sum = 0, np.zeros(channels, object)  # Python's integers do not overflow
        self.products = np.zeros((channels, channels), object)
        self.pictures = 0
        self.pixels: dict[str, np.ndarray] | None = None  # of each pixel; None where sizes differ or are large

    def add(self, picture: np.ndarray) -> None:
        """Adds a picture, uint8 [H, W, C]."""
        one, pixels = Moments(len(self.sum)), picture.reshape(-1, len(self.sum))
        one.count, one.pictures = len(pixels), 1
        rows_at_once = _SAMPLES // len(self.sum)
        for start in range(0, len(pixels), rows_at_once):
            rows = pixels[start : start + rows_at_once].astype(np.float64)  # products below 2**53 are exact
            one.sum += rows.sum(0).astype(np.int64).astype(object)
            one.products += (rows.T @ rows).astype(np.int64).astype(object)
        if len(pixels) <= SMALL:
            values = picture.astype(np.int64)
            one.pixels = {"sum": values, "squares": values**2, "minimum": picture, "maximum": picture}
            if len(self.sum) == 1:
                one.pixels["strokes"] = np.zeros(max(picture.shape) + 1, np.int64)  # pictures by their longer side
                one.pixels["strokes"][strokes.longer_side(picture[..., 0])] = 1
        self.merge(one)

    def merge(self, other: "Moments") -> None:
        """Adds the sums of another object."""
        if not self.pictures:
            self.pixels = other.pixels and {key: value.copy() for key, value in other.pixels.items()}
        elif self.pixels and other.pixels and self.pixels["sum"].shape == other.pixels["sum"].shape:
            for key, total in self.pixels.items():
                combine = {"minimum": np.minimum, "maximum": np.maximum}.get(key, np.add)
                combine(total, other.pixels[key], out=total)
        elif other.pictures:
            self.pixels = None
        self.count += other.count
        self.sum += other.sum
        self.products += other.products
        self.pictures += other.pictures

    def channel_statistics(self) -> dict:
        """The `statistics` of dataset.json."""
        mean = (self.sum / self.count).astype(np.float64)
        covariance = (self.products / self.count).astype(np.float64) - np.outer(mean, mean)
        eigenvalues, vectors = np.linalg.eigh(covariance)
        return {
            "units": "pixel values 0 to 255; eigenvalues are variances on that scale",
            "mean": mean.tolist(),
            "deviation": np.sqrt(np.diag(covariance)).tolist(),
            "eigenvalues": eigenvalues[::-1].tolist(),
            "components": vectors.T[::-1].tolist(),
        }

    def light_strokes(self) -> dict | None:
        """The `light_strokes` of dataset.json: None for pictures that are no strokes, large, or of different sizes."""
        return strokes.summary(self.pixels["strokes"]) if self.pixels and "strokes" in self.pixels else None

    def save_pixel_statistics(self, directory: Path) -> None:
        """Writes PIXEL_STATS where all pictures are of one small size."""
        if not self.pixels:
            return
        mean = self.pixels["sum"] / self.pictures
        variance = self.pixels["squares"] / self.pictures - mean**2
        # A pixel that never changes may come out at -1e-12 of variance; it has none.
        variance[self.pixels["minimum"] == self.pixels["maximum"]] = 0
        extremes = {key: self.pixels[key].astype(np.float64) for key in ("minimum", "maximum")}
        np.savez_compressed(directory / PIXEL_STATS, mean=mean, deviation=np.sqrt(np.maximum(variance, 0)), **extremes)


@os_errors_as_user_errors()
def load(
    directory: "str | Path",
    channels: int,
    stored: Mapping | None = None,
    open_file: Callable[..., BinaryIO] = open_regular,
) -> Statistics:
    """The statistics of the data set, or run, in a directory. Raises UserError where they are damaged.

    channels are those of its pictures, `stored` the `statistics` of its dataset.json. open_file(path)
    opens a file.
    """
    path = os.path.join(directory, PIXEL_STATS)
    pixels, arrays = None, {}
    with contextlib.suppress(FileNotFoundError), open_file(path) as file:
        try:
            with np.load(file) as archive:
                check_unpacked(archive.zip, MOST_STATS * max(3, channels) // 3)
                pixels = {key: archive[key].astype(np.float64) for key in ("mean", "deviation", "minimum", "maximum")}
        except Exception as error:  # NumPy raises what zipfile, zlib and its own parser do
            raise UserError(f"{path} cannot be read ({error}); convert the data again") from None
        if {array.shape for array in pixels.values()} != {(*pixels["mean"].shape[:2], channels)}:
            raise UserError(f"{path} is not of pictures with {channels} channels; convert the data again")
        if not all(_is_plausible(array, channels) for array in pixels.values()):
            raise UserError(f"{path} holds values that no picture has, such as NaN; convert the data again")
    if stored:
        shapes = dict.fromkeys(("mean", "deviation", "eigenvalues"), (channels,)) | {"components": (channels, channels)}
        try:
            arrays = {key: np.array(stored[key], np.float64) for key in shapes}
            sound = all(
                arrays[key].shape == shape and _is_plausible(arrays[key], channels) for key, shape in shapes.items()
            )
        except (KeyError, ValueError, TypeError, OverflowError):
            sound = False
        if not sound:
            raise UserError(f"{directory}/dataset.json has damaged statistics; convert the data again")
    return Statistics(**arrays, pixels=pixels)


def _is_plausible(array: np.ndarray, channels: int) -> bool:
    """Whether values are finite and in the range that the channels allow: the variance is the largest."""
    return bool(array.size) and bool(np.all(np.abs(array) <= max(3, channels) * 255**2))  # false for NaN
