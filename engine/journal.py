"""metrics.jsonl, one line for every log and every evaluation, and the curves drawn from it."""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from files import whole_file

TRAIN, VALIDATION = "train", "validation"


class Journal:
    """The rows of metrics.jsonl: {"step", "split", …}."""

    def __init__(self, path: str, step: int):
        """Reads the file and cuts it at `step`, where the run continues: what came after will come again."""
        self.path = Path(path)
        lines = self.path.read_text(errors="replace").splitlines() if self.path.exists() else []
        self.rows = [row for row in map(_parse, lines) if row and row["step"] <= step]
        with whole_file(self.path) as partial:
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

    def best(self) -> dict | None:
        """The validation row of the highest top-1, the lowest loss among equals; None before the first."""
        return max(self.of(VALIDATION), key=lambda row: (row["top1"], -row["loss"]), default=None)


def _parse(line: str) -> dict | None:
    try:
        row = json.loads(line)
    except ValueError:  # the last line of a killed run may be half a line; its step comes again
        return None
    if not isinstance(row, dict) or row.get("split") not in (TRAIN, VALIDATION):
        return None
    return row if all(isinstance(row.get(key), int | float) for key in ("step", "loss", "top1")) else None


def draw_curves(journal: Journal, path: str, title: str) -> None:
    """Loss and accuracy over steps, train and validation, as a PNG."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    styles = {TRAIN: {"color": "C0", "alpha": 0.7}, VALIDATION: {"color": "C1", "marker": "o", "ms": 4}}
    labels = {"loss": "loss (cross-entropy, nats)", "top1": "accuracy (top-1)"}
    for axis, (key, label) in zip(axes, labels.items(), strict=True):
        for split, style in styles.items():
            rows = journal.of(split)
            axis.plot([row["step"] for row in rows], [row[key] for row in rows], label=split, **style)
        axis.set(xlabel="step", ylabel=label)
        axis.grid(alpha=0.3)
        axis.legend()
    axes[0].set_yscale("log")
    best = journal.best()
    if best:
        axes[1].axvline(best["step"], color="C1", ls=":", lw=1)
        title += f": best validation {best['top1']:.2%} at step {best['step']:,}"
    figure.suptitle(title, parse_math=False)  # a run may be called cost $
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=100)
    plt.close(figure)
