"""The size of a net's pictures: one number for a square, or height and width, such as 224 and 224x320."""

import argparse
import re
from numbers import Integral
from typing import Any, NamedTuple


class Size(NamedTuple):
    """Height and width of a picture that is not square, in pixels."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}×{self.width}"


PictureSize = int | Size  # an int is height and width of a square


def as_size(value: Any) -> Any:
    """A PictureSize of a number, a pair (height, width), or text such as 224x320; a pair of equal sides as one number.

    NumPy's integers become Python's. Raises ValueError for other text and other types; None is returned as it is.
    """
    if value is None:
        return None
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]{1,9})(?:[x×X]([0-9]{1,9}))?", value.strip())
        if match is None:
            raise ValueError("it must be a number of pixels, such as 224, or HEIGHTxWIDTH, such as 224x320")
        value = tuple(map(int, match.groups(default=match[1])))
    pair = value if isinstance(value, list | tuple) and len(value) == 2 else (value, value)
    if not all(isinstance(side, Integral) and not isinstance(side, bool) for side in pair):
        raise ValueError("it must be a number of pixels, or height and width, such as 224 or 224x320")
    height, width = map(int, pair)
    return height if height == width else Size(height, width)


def size_argument(text: str) -> PictureSize:
    """as_size for argparse, whose error then says what a size is."""
    try:
        return as_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def sides(size: PictureSize) -> Size:
    """Height and width, also of a square."""
    return Size(size, size) if isinstance(size, int) else Size(*size)
