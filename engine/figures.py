"""Figures of an evaluation: the confusion matrix, and the selection of mistakes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from engine.metrics import PerExample

NAMED = 30  # up to so many classes there is room for their names and for numbers


def confusion(table: PerExample, class_names: Sequence[str]) -> Figure:
    """The confusion matrix: examples by true class (row) and predicted class (column); 0 is blank."""
    matrix = confusion_matrix(table.label, table.prediction, labels=range(len(class_names)))
    few = len(class_names) <= NAMED
    figure = Figure()
    # Laid out by hand, the names as texts: matplotlib's own layout and its ticks take three times as long, at every
    # validation.
    axes = figure.add_axes((0, 0, 1, 1), xticks=[], yticks=[], xlabel="Predicted label", ylabel="True label")
    axes.set_title(f"{np.trace(matrix):,} of {matrix.sum():,} right")
    image = axes.imshow(matrix, cmap="Blues")
    side, right, name_side = (1.5 + 0.45 * len(class_names), 0.3, 0.0) if few else (10.0, 1.3, 0.0)  # in inches
    if few:
        light, dark = image.cmap([0.0, 1.0])
        for row, column in np.argwhere(matrix):
            color = light if matrix[row, column] > matrix.max() / 2 else dark
            axes.text(column, row, matrix[row, column], ha="center", va="center", color=color)
        for i, name in enumerate(class_names):
            below = axes.text(i, len(class_names) - 0.4, name[:18], ha="center", va="top", rotation="vertical")
            left = axes.text(-0.6, i, name[:18], ha="right", va="center")
            for text in below, left:
                text.set_parse_math(False)  # a class name may hold $
            name_side = max(name_side, below.get_window_extent().height / figure.dpi)
    margin = name_side + 0.6
    width, height = margin + side + right, margin + side + 0.4
    figure.set_size_inches(width, height)
    axes.set_position((margin / width, margin / height, side / width, side / height))
    axes.xaxis.labelpad = axes.yaxis.labelpad = 72 * name_side + 12
    if not few:
        place = (margin + side + 0.2) / width, margin / height, 0.4 / width, side / height
        figure.colorbar(image, cax=figure.add_axes(place))
    return figure


def worst_mistakes(table: PerExample, count: int) -> list[int]:
    """Rows of the split with the most confident mistakes, the most confident first."""
    wrong = np.flatnonzero(table.top1 == 0)
    return wrong[np.argsort(-table.confidence[wrong], kind="stable")][:count].tolist()


def mistake_titles(table: PerExample, places: Sequence[int], class_names: Sequence[str]) -> list[str]:
    """For each row the predicted class with its probability, and the true class."""
    return [
        f"{class_names[table.prediction[place]][:18]} {table.confidence[place]:.0%}\n"
        f"is {class_names[table.label[place]][:18]}"
        for place in places
    ]
