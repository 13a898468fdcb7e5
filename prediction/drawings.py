"""Redraws pictures for a net that was trained on light strokes on black, such as MNIST.

MNIST's digits are scaled, with their aspect and antialiased, to fit a box of 20×20 pixels, which is placed in 28×28
pixels so that the centre of mass is in the middle (LeCun, Cortes and Burges, yann.lecun.org/exdb/mnist). `redrawn` does
the same to a drawing of any size and any two colours. Strokes that would become thinner than any of MNIST's are
thickened first. Measured on 500 test digits that were enlarged to 560 pixels, thinned to a line and drawn with a pen of
5 pixels: a net with 98.95 % on the first 2,000 original digits reaches 90.0 % without this and 97.6 % with it. Free of
TensorFlow.
"""

import cv2
import numpy as np

from errors import UserError
from pipeline.dataset import Dataset
from pipeline.images import ImageError
from pipeline.statistics import Statistics
from pipeline.strokes import DARK, border, inked

THINNEST = 0.1  # of the box: 2 of 20 pixels; 95 % of MNIST's digits have strokes of 2.8 or more
LARGEST = 1000  # pixels of the longer side; thickening takes time with its fourth power, a minute at 5,000


def box_side(statistics: Statistics) -> int | None:
    """The side of the box that strokes fill in training pictures that are light strokes on black; else None.

    Training pictures count as such if they are square, have one channel, and their mean is black along most of the
    border. If it is black along all of it, they have margins as MNIST has; else the box is the whole picture, as in
    scikit-learn's digits.
    """
    if statistics.pixels is None:
        return None
    mean = statistics.pixels["mean"]
    height, width, channels = mean.shape
    if channels != 1 or height != width or height < 3:
        return None
    edge = border(mean[..., 0])
    if np.median(edge) > DARK or mean.mean() <= np.median(edge):
        return None
    return round(height * 20 / 28) if edge.max() <= DARK else height


def box_of(dataset: Dataset, invert: str) -> int | None:
    """The side of the box that drawings are scaled to; None where pictures are not redrawn.

    Training pictures must be light on black; with invert 'auto', the converter must have found that they are strokes.
    Raises UserError where invert is no known value, or is 'yes' with other training pictures.
    """
    if invert not in ("auto", "yes", "no"):
        raise UserError(f"--invert is {invert}; it must be auto, yes or no")
    side = box_side(dataset.statistics)
    if invert == "yes" and side is None:
        raise UserError("--invert yes: the net was not trained on light strokes on black; leave it out")
    if invert == "no" or side is None or (invert == "auto" and not dataset.stroke_length):
        return None
    return min(dataset.stroke_length or side, len(dataset.statistics.pixels["mean"]))


def describe(dataset: Dataset, invert: str) -> str | None:
    """Says whether pictures are redrawn; None where the training pictures are not light on black.

    Raises UserError as box_of.
    """
    if box_of(dataset, invert) is None:
        if box_side(dataset.statistics) is None or invert == "no":
            return None
        reason = "the training pictures are light on black, but no strokes"
        if "light_strokes" not in dataset.description:
            reason = "the data are of an earlier version, which did not measure whether they are strokes"
        return f"pictures stay as they are: {reason}; --invert yes redraws dark strokes as light ones on black"
    which = "all pictures are" if invert == "yes" else "pictures that look different are"
    return f"the training pictures are light strokes on black; {which} redrawn like them, unless --invert no is given"


def is_like(picture: np.ndarray, statistics: Statistics) -> bool:
    """Whether uint8 [H, W, 1] already has the size and the black border of the training pictures of box_side."""
    return picture.shape == statistics.pixels["mean"].shape and bool(np.median(border(picture[..., 0])) <= DARK)


def redrawn(picture: np.ndarray, side: int, box: int, dark_strokes: bool | None = None) -> np.ndarray:
    """Redraws strokes on an even ground, uint8 [H, W, 1], as light strokes on black, uint8 [side, side, 1].

    They are cut out and centred, and their longer side is scaled to `box`. dark_strokes says whether they are darker
    than the ground; None guesses. Raises ImageError where there are no strokes.
    """
    ink = picture[..., 0].astype(np.float32)
    ink -= np.median(border(ink))
    # Strokes cover less than the ground does, so the mean is between the ground and the strokes.
    if dark_strokes or (dark_strokes is None and ink.mean() < 0):
        ink = -ink
    strongest = float(ink.max())
    if strongest <= DARK:
        raise ImageError("it has no strokes that differ from its ground; transparent parts count as white")
    ink = _cut(np.clip(ink / strongest, 0, 1))
    if max(ink.shape) > LARGEST:
        height, width = (max(1, round(length * LARGEST / max(ink.shape))) for length in ink.shape)
        ink = cv2.resize(ink, (width, height), interpolation=cv2.INTER_AREA)
        ink = _cut(ink / ink.max())
    # Twice the radius of the largest circle within the strokes.
    stroke = 2 * cv2.distanceTransform(np.pad((ink > 0.5).astype(np.uint8), 1), cv2.DIST_L2, 5).max()
    missing = round(THINNEST * max(ink.shape) - stroke)
    if missing > 0:
        pen = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (missing + 1, missing + 1))
        ink = _cut(cv2.dilate(np.pad(ink, missing), pen))
    scale = box / max(ink.shape)
    height, width = (max(1, round(length * scale)) for length in ink.shape)
    ink = cv2.resize(ink, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    ink *= 255 / ink.max()  # thin strokes of a large drawing become faint
    result = np.zeros((side, side, 1), np.uint8)
    if box == side:  # no margins: the centre of mass cannot be moved
        top, left = ((side - length) // 2 for length in ink.shape)
    else:
        top, left = (
            round(side / 2 - np.average(np.arange(n), weights=ink.sum(1 - i))) for i, n in enumerate(ink.shape)
        )
        top, left = np.clip((top, left), 0, (side - height, side - width))
    result[top : top + height, left : left + width, 0] = np.rint(ink)
    return result


def _cut(ink: np.ndarray) -> np.ndarray:
    """The smallest part of [H, W] that holds all ink that is not faint."""
    return ink[inked(ink)]
