"""metrics.jsonl, a line for each log and each validation, and the curves drawn from it."""

import json
import math
from pathlib import Path

from matplotlib.figure import Figure

from files import atomic_write, fsync

TRAIN, VALIDATION = "train", "validation"
METRICS = ("top1", "loss", "ema_top1", "ema_loss")  # that can select the best checkpoint


class Journal:
    """The rows of metrics.jsonl: {"step", "split", …}."""

    def __init__(self, path: str, step: int, metric: str = "top1"):
        """Reads the rows up to `step`, where the run continues; later steps are trained again.

        metric is the one of METRICS that selects the best validation.
        """
        self.path, self.metric = Path(path), metric
        lines = self.path.read_text(errors="replace").splitlines() if self.path.exists() else []
        self.rows = [row for row in map(_parse, lines) if row and row["step"] <= step]

    def cut(self) -> None:
        """Removes the later rows from the file."""
        with atomic_write(self.path) as partial:
            partial.write_text("".join(json.dumps(row) + "\n" for row in self.rows))

    def add(self, step: int, split: str, **values: float) -> None:
        """Appends a row."""
        row = {"step": step, "split": split, **values}
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def of(self, split: str) -> list[dict]:
        """The rows of a split."""
        return [row for row in self.rows if row["split"] == split]

    def sync(self) -> None:
        """Waits until all rows have reached the disk."""
        fsync(self.path)

    def best(self) -> dict | None:
        """The validation row with the highest accuracy or the lowest loss, by the metric; ties go to the better one by
        the other of the two, then to the first. None before the first validation."""
        prefix = self.metric.removesuffix("top1").removesuffix("loss")

        def worth(row: dict) -> tuple[float, float]:
            both = row[f"{prefix}top1"], -row[f"{prefix}loss"]
            return both[::-1] if self.metric.endswith("loss") else both

        return max((row for row in self.of(VALIDATION) if self.metric in row), key=worth, default=None)

    def should_stop(self, patience: int | None) -> bool:
        """Whether at least `patience` validations came after the best one; never for None."""
        best = None if patience is None else self.best()
        if best is None:
            return False
        return sum(row["step"] > best["step"] for row in self.of(VALIDATION)) >= patience

    def has_validation(self, step: int) -> bool:
        """Whether there is a validation row for a step."""
        return any(row["step"] == step for row in self.of(VALIDATION))


def _parse(line: str) -> dict | None:
    try:
        row = json.loads(line)
        if row["split"] not in (TRAIN, VALIDATION):
            return None
        averaged = METRICS[2:] if row.keys() & set(METRICS[2:]) else ()
        return row if all(math.isfinite(row[key]) for key in ("step", *METRICS[:2], *averaged)) else None
    # The last line of a killed run may be incomplete, and its step is trained again; the rest is no row.
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
        return None


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
