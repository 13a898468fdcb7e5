"""The data sets that the converter can read. A source is one function from the user's files to labelled pictures:

def name(source: Path | None, cache: Path) -> Source

The first line of its docstring is its line in the converter's --help.
"""

from collections.abc import Callable

from pipeline.convert.sources.arrays import cifar10, digits, fashion_mnist, mnist, signs
from pipeline.convert.sources.contract import Example, Source
from pipeline.convert.sources.folders import flowers, folder, imagenet
from pipeline.convert.sources.tables import csv

__all__ = ["SOURCES", "Example", "Source"]

SOURCES: dict[str, Callable[..., Source]] = {
    f.__name__: f for f in (digits, mnist, fashion_mnist, cifar10, signs, flowers, folder, csv, imagenet)
}
