"""Arrays of files from elsewhere: do they fit into the memory, which values may they have; names in errors."""

from collections.abc import Iterable

import numpy as np

from errors import UserError
from files import MOST_BYTES


def check_size(size: int, what: str) -> None:
    """Raises ValueError for arrays, `what`, that would fill the memory: a small file can unpack to any size."""
    if size > MOST_BYTES:
        raise ValueError(f"its {what} take {size / 2**30:,.1f} GiB; at most {MOST_BYTES >> 30} GiB are read")


def as_float32(array: np.ndarray, place: str, variable: str) -> np.ndarray:
    """An array as float32, for a variable of a net. Raises UserError, which names its place, for values that no
    training has made: no floats, not finite, negative variances."""
    with np.errstate(over="ignore"):  # infinite after that
        values = np.asarray(array, np.float32)
    wrong = None
    if array.dtype.kind != "f":
        wrong = f"is {array.dtype}, not a float"
    elif not np.isfinite(values).all():
        wrong = "holds numbers that are not finite"
    elif variable.endswith("/moving_variance") and (values < 0).any():
        wrong = "holds negative variances"
    if wrong:
        raise UserError(f"{place} {wrong}, for {variable}")
    return values


def some(names: Iterable[str], most: int) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
