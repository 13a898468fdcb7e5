"""A user's own source: FILE.py:NAME, a function like those of this package."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

import own_code
from channels import MOST
from errors import UserError
from pipeline.convert.sources import Example, Source
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
        return data

    return read


def _check(name: str, data: Source) -> None:
    """Raises UserError where a user's source breaks a rule that the others keep."""
    names = data.class_names
    if len(names) < 2 or len(set(names)) < len(names) or not all(isinstance(each, str) for each in names):
        raise UserError(f"{name} has the class names {str(names)[:200]}; they must be two or more, each once")
    if data.channels not in range(1, MOST + 1):
        raise UserError(f"{name} has {data.channels} channels; it must be 1 to {MOST}")
    splits = set(data.splits)
    if not splits <= set(SPLITS) or not ("train" in splits or splits == {"test"}):
        needed = "train, with or without validation and test, or test alone"
        raise UserError(f"{name} has the splits {', '.join(splits) or 'none'}; it must have {needed}")
    for split, examples in data.splits.items():
        for example in examples:
            if not isinstance(example, Example) or example.label not in range(len(names)) or not _is_image(example):
                needed = f"each must be a sources.Example with a label from 0 to {len(names) - 1}, and a Path or pixels"
                raise UserError(f"{name}: the {split} split has {str(example)[:200]}; {needed}, uint8 [H, W, C]")


def _is_image(example: Example) -> bool:
    image = example.image
    if isinstance(image, Path):
        return True
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        return False
    return image.ndim == 2 or (image.ndim == 3 and image.shape[2] in range(1, MOST + 1))
