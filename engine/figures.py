"""Figures: the confusion matrix, the selection of mistakes, and the curves of a training."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from sklearn.metrics import confusion_matrix

from engine.journal import TRAIN, VALIDATION, Journal
from engine.metrics import PerExample
from files import atomic_write

NAMED = 30  # up to so many classes, a confusion matrix has room for their names and for numbers
NAMED_ON_CARD = 10  # the same on a card of TensorBoard, 340 pixels wide
PAIRS = 25  # mistakes that are listed where there are more classes
FONT_SIZE = 10  # points


def confusion(table: PerExample, class_names: Sequence[str], card: bool = False) -> Figure:
    """The confusion matrix: examples by true class (row) and predicted class (column), coloured by their share of the
    row; 0 is blank. Of more than NAMED classes those are shown that are confused most, with a last column for all other
    predictions, beside a list of the most frequent mistakes. A card is smaller, and without the list."""
    most, length = (NAMED_ON_CARD, 12) if card else (NAMED, 18)
    matrix = confusion_matrix(table.label, table.prediction, labels=range(len(class_names)))
    pairs, title = confused_pairs(matrix), f"{np.trace(matrix):,} of {matrix.sum():,} right"
    names, shown, listed = [name[:length] for name in class_names], matrix, []
    columns = names
    if len(names) > most:
        classes = most_confused(pairs, len(names), most)
        rows, names = matrix[classes], [names[i] for i in classes]
        rest = rows.sum(1) - rows[:, classes].sum(1)
        shown, columns = np.column_stack([rows[:, classes], rest]), [*names, "other"]
        title += f"; {most} most confused of {len(class_names):,} classes"
        listed = [] if card else pairs[:PAIRS]
    lines = [f"{matrix[i, j]} of {matrix[i].sum()}  {class_names[i][:30]} → {class_names[j][:30]}" for i, j in listed]
    # In inches. Measured here, since matplotlib's own layout draws the figure twice, at every validation.
    cell = max(0.36, 0.1 + _width(f"{matrix.max()}"))
    margin = 0.75 + max(map(_width, columns))
    across, down = (max(1.6, cell * count) for count in (len(columns), len(names)))
    width, height = margin + across + (0.5 + max(map(_width, lines)) if lines else 0.2), margin + down + 0.4
    figure = Figure((width, height))
    axes = figure.add_axes((margin / width, margin / height, across / width, down / height))
    shares = shown / np.maximum(shown.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.argwhere(shown):
        colour = "white" if shares[row, column] > 0.5 else "black"
        style = {"ha": "center", "va": "center", "fontsize": FONT_SIZE, "color": colour}
        axes.text(column, row, str(shown[row, column]), **style)
    axes.set(xlabel="Predicted label", ylabel="True label")
    axes.set_xticks(range(len(columns)), columns, rotation="vertical", parse_math=False)  # a class name may hold $
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_title(title, fontsize=FONT_SIZE)
    if lines:
        text = "\n".join(["most frequent mistakes", "", *lines])
        style = {"va": "top", "fontsize": FONT_SIZE, "linespacing": 1.5, "parse_math": False}
        axes.text(1 + 0.3 / across, 1, text, transform=axes.transAxes, **style)
    return figure


def confused_pairs(matrix: np.ndarray) -> list[tuple[int, int]]:
    """The mistakes, (true class, predicted class), of a confusion matrix, int64 [classes, classes]; the most frequent
    first, of equal ones that of the larger share of its class."""
    wrong = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    places = np.argwhere(wrong)
    counts = wrong[tuple(places.T)]
    order = np.lexsort((-counts / matrix.sum(1)[places[:, 0]], -counts))
    return [tuple(pair) for pair in places[order].tolist()]


def most_confused(pairs: Sequence[tuple[int, int]], classes: int, most: int) -> list[int]:
    """The classes of the first pairs, in label order, filled up with the first others to `most`."""
    found = dict.fromkeys([label for pair in pairs for label in pair])
    return sorted([*found, *(label for label in range(classes) if label not in found)][:most])


def _width(text: str) -> float:
    return text_to_path.get_text_width_height_descent(text, FontProperties(size=FONT_SIZE), False)[0] / 72


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


def curves(journal: Journal, title: str) -> Figure:
    """Loss and accuracy of training, validation and EMA validation over the steps."""
    figure = Figure(figsize=(11, 4))
    axes = figure.subplots(1, 2)
    # Room for ticks such as 1.2e−05; matplotlib's own layout takes as long as drawing.
    figure.subplots_adjust(0.085, 0.12, 0.985, 0.9, wspace=0.2)
    train, validation = journal.of(TRAIN), journal.of(VALIDATION)
    lines = [("train", train, "", {"color": "C0", "alpha": 0.7})]
    lines += [("validation", validation, "", {"color": "C1", "marker": "o", "ms": 4})]
    averaged = [row for row in validation if "ema_top1" in row]
    if averaged:
        lines += [("validation, EMA weights", averaged, "ema_", {"color": "C2", "marker": "s", "ms": 3})]
    best, labels = journal.best(), {"loss": "loss (cross-entropy, nats)", "top1": "accuracy (top-1)"}
    for axis, (key, label) in zip(axes, labels.items(), strict=True):
        for name, rows, prefix, style in lines:
            axis.plot([row["step"] for row in rows], [row[prefix + key] for row in rows], label=name, **style)
        if best:
            axis.axvline(best["step"], color="0.4", ls=":", lw=1.5, label="best validation", zorder=1)
        axis.set(xlabel="step", ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    if any(row["loss"] > 0 for row in journal.rows):
        axes[0].set_yscale("log")
        low, high = axes[0].get_ylim()
        if high < 20 * low:  # less than two powers of ten, which alone would have numbers
            axes[0].yaxis.set_major_formatter("{x:g}")  # else 4 × 10⁰
            axes[0].yaxis.set_minor_formatter("{x:g}")
    if best:
        top1 = best[journal.metric.replace("loss", "top1")]
        title += f": best validation {top1:.2%} at step {best['step']:,}"
    figure.suptitle(title, parse_math=False)  # a run's name may hold $
    return figure


def draw_curves(journal: Journal, path: str, title: str) -> None:
    """Draws the curves as PNG."""
    with atomic_write(path) as partial:
        curves(journal, title).savefig(partial, dpi=100)
