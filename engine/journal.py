"""metrics.jsonl: a line for each log and each validation."""

import json
import math
from pathlib import Path

from files import atomic_write, fsync

TRAIN, VALIDATION = "train", "validation"
METRICS = ("top1", "loss", "ema_top1", "ema_loss")  # that can select the best checkpoint


class Journal:
    """The rows of metrics.jsonl: {"step", "split", …}."""

    def __init__(self, path: str, step: int, metric: str = "top1"):
        """Reads the rows up to `step`, where the run continues; later steps are trained again. The metric, one of
        METRICS, selects the best validation."""
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
