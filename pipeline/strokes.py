"""Recognizes light strokes on black, such as MNIST's digits, in pictures of a data set. Free of TensorFlow.

A net that was trained on strokes can classify other drawings once they are redrawn like its training pictures
(prediction/drawings.py). Other grey pictures with black borders, such as X-rays, brain slices, galaxies, spectrograms
and clothes, must not be redrawn: size, place and grey values matter there. Their pixels differ from strokes in one of
three properties, all measured on the pixels that are not black:

  solid:  half of them have at least half of the strongest value. In strokes only the edges are grey; galaxies and
          spectrograms fade, and in X-rays and brain slices a few places outshine the rest.
  thin:   they are at most 0.4 of the longer side wide on average, and 0.45 at the widest place. In a strip of w pixels,
          the distance to black has the mean w / 4 + 1/2 and the maximum (w + 1) / 2.
  long:   the connected parts are three times as long as wide on average, unlike discs and stars.

Share of pictures that count as strokes: MNIST 98.8 %, at 14 pixels 91 %; scikit-learn's digits 88 %; letters, and thin
curves at random places, 97 % and more. Drawn clothes 33 to 55 %, of which trousers and flat shoes are alike to strokes;
none of the discs with texture, X-rays, galaxies, stars, cell nuclei and spectrograms that were made for this.
"""

import cv2
import numpy as np

DARK = 25  # grey levels, a tenth of white: up to this, a pixel counts as black
FAINT = 0.2  # of the strongest ink; weaker ink, such as grain of paper and JPEG artefacts, does not count for the box
SOLID, WIDTH, WIDEST, LENGTH = 0.5, 0.4, 0.45, 3
MOST = 0.7  # of the pictures that must be strokes


def border(picture: np.ndarray) -> np.ndarray:
    """The outermost pixels of [H, W]."""
    return np.concatenate([picture[0], picture[-1], picture[1:-1, 0], picture[1:-1, -1]])


def inked(ink: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the smallest part of [H, W] that holds all ink that is not faint."""
    strong = ink > FAINT * ink.max()
    rows, columns = (np.flatnonzero(strong.any(axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def longer_side(picture: np.ndarray) -> int:
    """The longer side in pixels of the strokes in uint8 [H, W]; 0 where it shows no light strokes on black."""
    strongest, mask = int(picture.max()), picture > DARK
    if strongest <= DARK or np.median(border(picture)) > DARK:
        return 0
    area, side = int(mask.sum()), max(picture[inked(picture)].shape)
    if (2 * picture.astype(int)[mask] > strongest).mean() < SOLID:
        return 0
    padded = np.pad(mask.astype(np.uint8), 1)  # outside the picture is black
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1][mask]
    width, widest = 4 * (distance.mean() - 0.5), 2 * distance.max() - 1
    parts = cv2.connectedComponents(padded, connectivity=8)[0] - 1
    return side if width <= WIDTH * side and widest <= WIDEST * side and area >= LENGTH * parts * width**2 else 0


def summary(counts: np.ndarray) -> dict | None:
    """The `light_strokes` of dataset.json from the number of pictures by `longer_side`; None for other pictures."""
    pictures, sides = counts.sum(), np.cumsum(counts[1:])
    if sides[-1] < MOST * pictures:
        return None
    median = 1 + int(np.searchsorted(sides, sides[-1] / 2))
    return {"share": round(float(sides[-1] / pictures), 4), "longer_side": median}
