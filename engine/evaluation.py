"""The result of an evaluation: figures of a split, of each class and of each picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

from engine.metrics import PerExample, Summary, interval, summarize
from sizes import PictureSize
from tfcompat import tf


def with_mirror_images(images: tf.Tensor) -> tf.Tensor:
    """Each picture of [N, H, W, C], then its mirror image: [2 * N, H, W, C]."""
    return tf.reshape(tf.stack([images, tf.reverse(images, [2])], 1), [-1, *images.shape[1:]])


def averaged(logits: tf.Tensor, views: int) -> tf.Tensor:
    """Logits [N, classes] whose softmax is the mean over the views of those of [N * views, classes]."""
    if views == 1:
        return logits
    return tf.log(tf.reduce_mean(tf.reshape(tf.nn.softmax(logits), [-1, views, logits.shape[1]]), 1) + 1e-30)


COLUMNS = ("precision", "recall", "f1-score", "support")


@dataclass(frozen=True)
class Evaluation:
    """The result of Classifier.evaluate."""

    checkpoint: str
    step: int | None
    data: str  # directory of the shards
    split: str
    class_names: tuple[str, ...]  # in label order
    image_size: PictureSize
    trained_image_size: PictureSize | None  # None where it is unknown
    index: Any = field(repr=False)  # the pipeline's Index of the records, in the order of the tables
    channels: int
    tables: Mapping[str, PerExample] = field(repr=False)  # of the main head, "", and of auxiliary heads by name

    @property
    def table(self) -> PerExample:
        """The figures of each picture, by the main head."""
        return self.tables[""]

    @cached_property
    def summary(self) -> Summary:
        """Loss and accuracy of the main head."""
        return summarize(self.table)

    @cached_property
    def roc_auc(self) -> float | None:
        """Area under the ROC curve of two classes, the second as the positive one; None where it is not defined."""
        if len(self.class_names) != 2 or len(set(self.table.label.tolist())) != 2:
            return None
        return float(roc_auc_score(self.table.label, self.table.log_odds))

    def per_class(self) -> dict[str, dict[str, float]]:
        """Class name to precision, recall, f1-score and support, its number of examples."""
        labels, table = range(len(self.class_names)), self.table
        columns = precision_recall_fscore_support(table.label, table.prediction, labels=labels, zero_division=0.0)
        rows = zip(*(column.astype(float).tolist() for column in columns), strict=True)
        return {name: dict(zip(COLUMNS, row, strict=True)) for name, row in zip(self.class_names, rows, strict=True)}

    def macro_average(self) -> dict[str, float]:
        """The columns of per_class averaged over `classes`, the number of classes that occur in the split. The support
        is their sum."""
        rows = [row for row in self.per_class().values() if row["support"]]
        means = {key: float(np.mean([row[key] for row in rows])) for key in COLUMNS[:3]}
        return {**means, "support": sum(row["support"] for row in rows), "classes": len(rows)}

    def top_k(self, k: int) -> float:
        """The share of pictures whose label is among the k most probable classes."""
        return float(np.mean(self.table.rank < k))

    def file(self, row: int) -> str:
        """The image/filename of a picture, or the place of its record."""
        path, offset = self.index.place(row)
        return self.index.example(row).filename or f"{path}@{offset}"

    def pictures(self, rows: Sequence[int]) -> list[np.ndarray]:
        """Some pictures as they are stored, uint8 [H, W, C]."""
        return self.index.pictures(rows, self.channels)

    def as_dict(self, top_k: int = 5) -> dict:
        """All figures except those of single pictures, for JSON."""
        summary, others = self.summary, {name: summarize(table) for name, table in self.tables.items() if name}
        keys = ("checkpoint", "step", "image_size", "trained_image_size", "data", "split")
        values = {key: getattr(self, key) for key in keys}
        values |= {"examples": summary.examples, "loss": summary.loss, "top1": summary.top1}
        values["top1_interval"] = interval(summary.top1, summary.examples)
        if top_k > 1:  # None where it is always 1
            values[f"top{top_k}"] = self.top_k(top_k) if top_k < len(self.class_names) else None
        if self.roc_auc is not None:
            values["roc_auc"] = self.roc_auc
        values["classes"] = [{"name": name, **row} for name, row in self.per_class().items()]
        values["macro_average"] = self.macro_average()
        values["heads"] = {name: {"loss": found.loss, "top1": found.top1} for name, found in others.items()}
        return values
