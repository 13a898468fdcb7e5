"""The data sets that convert knows. A source is one function: from the user's files to pictures with labels.

def name(source: Path | None, cache: Path) -> Source
"""

from collections.abc import Callable

from pipeline.convert.sources.arrays import cifar10, digits, fashion_mnist, mnist, signs
from pipeline.convert.sources.contract import SPLITS, Example, Source
from pipeline.convert.sources.folders import flowers, folder, imagenet
from pipeline.convert.sources.tables import csv

__all__ = ["SOURCES", "SPLITS", "Example", "Source"]

SOURCES: dict[str, Callable[..., Source]] = {
    f.__name__: f for f in (digits, mnist, fashion_mnist, cifar10, signs, flowers, folder, csv, imagenet)
}
