"""Figures: the confusion matrix, the selection of mistakes, and the curves of a training."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

from engine.journal import TRAIN, VALIDATION, Journal
from engine.metrics import PerExample
from files import atomic_write

NAMED = 30  # up to so many classes there is room for their names and for numbers


def confusion(table: PerExample, class_names: Sequence[str]) -> Figure:
    """The confusion matrix: examples by true class (row) and predicted class (column); 0 is blank."""
    matrix = confusion_matrix(table.label, table.prediction, labels=range(len(class_names)))
    names = [name[:18] for name in class_names] if len(class_names) <= NAMED else []
    # In inches, with room for the widest letters: matplotlib's own layout draws the figure twice, at every validation.
    side, margin = 1.5 + 0.45 * len(names) if names else 10.0, 0.8 + 0.14 * max(map(len, names), default=0)
    width, height = margin + side + (0.2 if names else 1.5), margin + side + 0.4
    figure = Figure((width, height))
    axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
    if names:
        display = ConfusionMatrixDisplay(matrix, display_labels=names)
        display.plot(ax=axes, cmap="Blues", colorbar=False, xticks_rotation="vertical")
        for place in np.argwhere(matrix == 0):
            display.text_[tuple(place)].set_text("")
        for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            text.set_parse_math(False)  # a class name may hold $
    else:
        axes.set(xticks=[], yticks=[], xlabel="Predicted label", ylabel="True label")
        figure.colorbar(axes.imshow(matrix, cmap="Blues"), cax=axes.inset_axes((1.02, 0, 0.04, 1)))
    axes.set_title(f"{np.trace(matrix):,} of {matrix.sum():,} right")
    return figure


def worst_mistakes(table: PerExample, count: int, class_names: Sequence[str]) -> tuple[list[int], list[str]]:
    """Rows of the split with the most confident mistakes, the most confident first; and for each a title: the predicted
    class with its probability, and the true class."""
    wrong = np.flatnonzero(table.top1 == 0)
    rows = wrong[np.argsort(-table.confidence[wrong], kind="stable")][:count].tolist()
    return rows, [
        f"predicted {class_names[table.prediction[row]]} {table.confidence[row]:.0%}\n"
        f"labelled {class_names[table.label[row]]}"
        for row in rows
    ]


def draw_curves(journal: Journal, path: str, title: str) -> None:
    """Draws loss and accuracy of training, validation and EMA validation over the steps, as PNG."""
    figure = Figure(figsize=(11, 4))
    axes = figure.subplots(1, 2)
    figure.subplots_adjust(0.07, 0.12, 0.99, 0.9, wspace=0.17)  # matplotlib's own layout takes as long as drawing
    train, validation = journal.of(TRAIN), journal.of(VALIDATION)
    lines = [("train", train, "", {"color": "C0", "alpha": 0.7})]
    lines += [("validation", validation, "", {"color": "C1", "marker": "o", "ms": 4})]
    averaged = [row for row in validation if "ema_top1" in row]
    if averaged:
        lines += [("validation, EMA weights", averaged, "ema_", {"color": "C2", "marker": "s", "ms": 3})]
    labels = {"loss": "loss (cross-entropy, nats)", "top1": "accuracy (top-1)"}
    for axis, (key, label) in zip(axes, labels.items(), strict=True):
        for name, rows, prefix, style in lines:
            axis.plot([row["step"] for row in rows], [row[prefix + key] for row in rows], label=name, **style)
        axis.set(xlabel="step", ylabel=label)
        axis.grid(alpha=0.3)
        axis.legend()
    axes[0].set_yscale("log")
    low, high = axes[0].get_ylim()
    if high < 20 * low:  # less than two powers of ten, which alone would have numbers
        axes[0].yaxis.set_minor_formatter("{x:g}")
    best = journal.best()
    if best:
        axes[1].axvline(best["step"], color="C1", ls=":", lw=1)
        top1 = best[journal.metric.replace("loss", "top1")]
        title += f": best validation {top1:.2%} at step {best['step']:,}"
    figure.suptitle(title, parse_math=False)  # a run's name may hold $
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=100)
