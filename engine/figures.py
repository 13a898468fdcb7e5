"""Pictures of how a net answers a split."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

from engine.metrics import PerExample

NAMED = 30  # classes that still have room for their names, and for numbers


def confusion(table: PerExample, class_names: Sequence[str]) -> Figure:
    """The confusion matrix: how many examples of each class, a row, were taken for each class, a column."""
    matrix = confusion_matrix(table.label, table.prediction, labels=range(len(class_names)))
    few = len(class_names) <= NAMED
    side = 4 + 0.4 * len(class_names) if few else 12
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.add_subplot()
    names = [name[:18] for name in class_names] if few else None
    display = ConfusionMatrixDisplay(matrix, display_labels=names)
    display.plot(ax=axes, include_values=few, cmap="Blues", colorbar=not few, xticks_rotation="vertical")
    if not few:
        axes.set(xticks=[], yticks=[])
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_parse_math(False)  # a class may be called $
    axes.set_title(f"{np.trace(matrix):,} of {matrix.sum():,} right")
    return figure


def worst_mistakes(table: PerExample, count: int) -> list[int]:
    """Places in the split of the mistakes that the net was surest of, the surest first."""
    wrong = np.flatnonzero(table.top1 == 0)
    return wrong[np.argsort(-table.confidence[wrong], kind="stable")][:count].tolist()


def mistake_titles(table: PerExample, places: Sequence[int], class_names: Sequence[str]) -> list[str]:
    """For each place what the net took it for and how sure it was, and what it is."""
    return [
        f"{class_names[table.prediction[place]][:18]} {table.confidence[place]:.0%}\n"
        f"is {class_names[table.label[place]][:18]}"
        for place in places
    ]
