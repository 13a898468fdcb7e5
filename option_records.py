"""How options are declared, read and checked: a frozen dataclass for each topic, whose field docstrings are the help of
tyro's command line, and whose annotations have the ranges."""

import dataclasses
import functools
import operator
import shutil
import textwrap
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_type_hints

import docstring_parser  # a dependency of tyro
import tyro
from annotated_types import Ge, Gt, Interval, Le, Lt
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from errors import UserError
from files import expand, expand_data
from sizes import as_size


def optional(metavar: str) -> object:
    """The tyro setting of an option whose help says what its default, None, means; a preset's value is added."""

    def hint(value: str) -> str:
        return "" if value in ("None", "") else f"({value})"

    return tyro.conf.arg(metavar=metavar, help_behavior_hint=hint)


def _size_in_words(size: object) -> list[str]:
    return ["None" if size is None else str(size).replace("×", "x")]


# The tyro setting of a picture size, which is one word: 224, or 224x320.
SIZE = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="N|HxW",
    instance_from_str=lambda words: None if words[0] == "None" else as_size(words[0]),
    is_instance=lambda value: value is None or isinstance(value, int | tuple),
    str_from_instance=_size_in_words,
)


def help_page(text: str) -> str:
    """The text of a help page, wrapped to the terminal, for tyro. Paragraphs with indented lines are kept.

    tyro joins lines, but for those that begin with a space, and doubles an empty line before them: a zero-width space
    makes one that it keeps.
    """
    width = min(100, shutil.get_terminal_size().columns - 2)
    parts = [part if "\n  " in f"\n{part}" else textwrap.fill(part, width) for part in text.strip().split("\n\n")]
    return "\n\u200b\n".join(textwrap.indent(part, " ") for part in parts)


PLACE = "path of a file or directory"  # marks an option in which a leading ~ is replaced by the home directory
DATA_PLACE = "the same, or a remote place such as gs://bucket/shards"


def options(cls: type) -> type:
    """Makes a class a frozen dataclass whose field docstrings are the help of its options; expands those that are a
    PLACE or DATA_PLACE."""

    def expand_places(record: object) -> None:
        for key, expanded in _places(type(record)).items():
            value = getattr(record, key)
            if isinstance(value, str):
                object.__setattr__(record, key, expanded(value))

    cls.__post_init__ = expand_places
    cls = dataclasses.dataclass(frozen=True)(cls)
    for field in docstring_parser.parse_from_object(cls).params:  # tyro would keep the line breaks of this file
        if field.arg_name in cls.__annotations__:
            help_ = tyro.conf.arg(help=" ".join(field.description.split()))
            cls.__annotations__[field.arg_name] = Annotated[cls.__annotations__[field.arg_name], help_]
    return cls


@functools.cache
def _places(record: type) -> dict[str, Callable[[str], str]]:
    """The options that are places, and what expands each."""
    hints, kinds = get_type_hints(record, include_extras=True), {PLACE: expand, DATA_PLACE: expand_data}
    marks = {key: getattr(hint, "__metadata__", ()) for key, hint in hints.items()}
    return {key: kinds[mark] for key, found in marks.items() for mark in kinds if mark in found}


# How annotated_types' limits are compared, and their words.
LIMITS = {Ge: (operator.ge, "at least"), Gt: (operator.gt, "above")}
LIMITS |= {Le: (operator.le, "at most"), Lt: (operator.lt, "below")}


def flag(key: str) -> str:
    """An option's name on the command line."""
    return "--" + key.replace("_", "-")


def checked_size(value: Any) -> Any:
    """A size of pictures as sizes.as_size has it. Raises UserError for text that is none."""
    try:
        return as_size(value)
    except ValueError as error:
        raise UserError(f"--image-size is {str(value)[:80]!r}; {error}") from None


def check_values(values: Mapping[str, object], hints: Mapping[str, Any], name: Callable[[str], str] = flag) -> None:
    """Raises UserError for a value that has another type than its option's annotation, or is out of its range.

    The range of a tuple is that of its elements. `name` makes the name in the message from a key.
    """
    for key, value in values.items():
        try:
            check_type(value, hints[key], collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
        except TypeCheckError as error:
            reason = str(error).splitlines()[0][:120]
            raise UserError(f"{name(key)} is {str(value)[:80]!r}, which it cannot be: {reason}") from None
        ranges = [part for part in getattr(hints[key], "__metadata__", ()) if isinstance(part, Interval)]
        limits = [(*LIMITS[type(limit)], *dataclasses.astuple(limit)) for part in ranges for limit in part]
        numbers = value if isinstance(value, tuple) else () if isinstance(value, str | None) else (value,)
        if limits and any(isinstance(number, bool) for number in numbers):  # which is an int to Python
            raise UserError(f"{name(key)} is {value}, which it cannot be: it must be a number")
        if not all(fits(number, bound) for number in numbers for fits, _, bound in limits):
            words = " and ".join(f"{word} {bound:,.12g}" for _, word, bound in limits)
            raise UserError(f"{name(key)} is {value}; it must be {words}")
