"""A user's own source: FILE.py:NAME, a function like those of this package."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

import own_code
from channels import MOST
from errors import UserError
from pipeline.convert.sources import Example, HeldOut, Source
from pipeline.tfrecord import SPLITS


def own_source(name: str) -> Callable[..., Source]:
    """The function of an absolute name that own_code has allowed, with its result checked.

    Raises UserError where the file fails or has no such function, as does the function that is returned.
    """
    function, file = own_code.load(name, "source"), own_code.split(name)[0]
    if not callable(function):
        raise UserError(f"{name} is a {type(function).__name__}; it must be a function (source, cache) -> Source")

    def read(source: Path | None, cache: Path) -> Source:
        try:
            data = function(source, cache)
        except own_code.FAILURES as error:
            raise own_code.mistake(file, error) from error
        if not isinstance(data, Source):
            kind = type(data).__name__
            raise UserError(f"{name} returned a {kind}; it must return a pipeline.convert.sources.Source")
        _check(name, data)
        return data._replace(channels=int(data.channels))  # NumPy's integers are not JSON

    return read


def _check(name: str, data: Source) -> None:
    """Raises UserError where a user's source breaks a rule that the others keep."""
    names = data.class_names
    if not isinstance(names, list | tuple) or not all(isinstance(each, str) for each in names):
        raise UserError(f"{name} has the class names {str(names)[:200]}; they must be a list of str")
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(f"{name} has the class names {str(names)[:200]}; they must be two or more, each once")
    if not _is_index(data.channels) or not 1 <= data.channels <= MOST:
        raise UserError(f"{name} has {data.channels!r} channels; it must be 1 to {MOST}")
    if not isinstance(data.held_out, HeldOut):
        raise UserError(f"{name} has held_out {data.held_out!r}; it must be a sources.HeldOut, or left out")
    if not isinstance(data.splits, dict) or not all(isinstance(part, list | tuple) for part in data.splits.values()):
        raise UserError(f"{name} has splits that are no lists; they must be a dict such as {{'train': [...]}}")
    splits = set(data.splits)
    if not splits <= set(SPLITS) or not ("train" in splits or splits == {"test"}):
        needed = "train, with or without validation and test, or test alone"
        raise UserError(f"{name} has the splits {', '.join(map(str, splits)) or 'none'}; it must have {needed}")
    seen: dict[str, str] = {}  # the split of each file name
    for split, examples in data.splits.items():
        for example in examples:
            if not isinstance(example, Example) or not _is_label(example.label, len(names)) or not _is_image(example):
                needed = f"each must be a sources.Example with an int as its label from 0 to {len(names) - 1}"
                given = f"{name}: the {split} split has {str(example)[:200]}"
                raise UserError(f"{given}; {needed}, and a Path or pixels, uint8 [H, W, C], not empty")
            if not isinstance(example.filename, str):
                raise UserError(f"{name}: the {split} split has the file name {example.filename!r}; it must be a str")
            if example.filename in seen:
                places = " and ".join(dict.fromkeys((seen[example.filename], split)))
                advice = "make each unique, such as by the path below source: str(file.relative_to(source))"
                raise UserError(
                    f"{name}: two examples have the file name {example.filename!r} (in {places}), which must tell "
                    f"pictures apart; {advice}"
                )
            seen[example.filename] = split


def _is_index(value: object) -> bool:
    """Whether a value is a whole number, also of NumPy; not True, which is 1 to Python, and not 1.0."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_label(value: object, classes: int) -> bool:
    return _is_index(value) and 0 <= value < classes


def _is_image(example: Example) -> bool:
    image = example.image
    if isinstance(image, Path):
        return True
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or not image.size:
        return False
    return image.ndim == 2 or (image.ndim == 3 and image.shape[2] in range(1, MOST + 1))
