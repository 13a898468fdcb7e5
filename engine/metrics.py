"""Loss and accuracy, by example in the graph and exactly over a split."""

from typing import NamedTuple, Protocol

import numpy as np
from scipy.stats import binomtest

from tfcompat import tf


class PerExample(NamedTuple):
    """What one batch says of each of its N examples."""

    loss: tf.Tensor  # float32 [N], cross-entropy in nats
    top1: tf.Tensor  # float32 [N], 1 where the most probable class is the label
    top5: tf.Tensor  # float32 [N], 1 where the label is among the k most probable


class Evaluation(NamedTuple):
    """An exact pass over a split: means over its examples."""

    examples: int
    loss: float
    top1: float
    top5: float

    def __str__(self) -> str:
        low, high = interval(self.top1, self.examples)
        return (
            f"top-1 {self.top1:.2%} ({round(self.top1 * self.examples):,} of {self.examples:,}, "
            f"95 % interval {low:.2%} to {high:.2%}), top-5 {self.top5:.2%}, loss {self.loss:.4f}"
        )


class Batches(Protocol):
    """What an evaluation needs of the pipeline."""

    examples: int

    def start(self, session: tf.Session, step: int = 0) -> None: ...  # noqa: D102


def per_example(logits: tf.Tensor, labels: tf.Tensor) -> PerExample:
    """Softmax cross-entropy and hits of logits [N, classes] for labels [N]; k is 5, or all classes where fewer."""
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    # argmax and top_k break ties by index, so equal logits earn one class, not all (tf.nn.in_top_k would grant all).
    top1 = tf.equal(tf.argmax(logits, 1), labels)
    _, best = tf.nn.top_k(logits, min(5, logits.shape[1]))
    top5 = tf.reduce_any(tf.equal(tf.cast(best, labels.dtype), labels[:, tf.newaxis]), 1)
    return PerExample(loss, tf.cast(top1, tf.float32), tf.cast(top5, tf.float32))


def evaluate(session: tf.Session, batches: Batches, metrics: PerExample) -> Evaluation:
    """One pass over the batches, every example exactly once.

    Raises AssertionError where the pipeline gave another number of examples than its index holds.
    """
    batches.start(session)
    columns = []
    while True:
        try:
            columns.append(np.stack(session.run(metrics)))
        except tf.errors.OutOfRangeError:
            break
    values = np.concatenate(columns, axis=1, dtype=np.float64)  # [3, examples]
    assert values.shape[1] == batches.examples, f"{values.shape[1]} examples came, {batches.examples} are indexed"
    return Evaluation(batches.examples, *(float(mean) for mean in values.mean(1)))


def interval(share: float, examples: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an accuracy measured on so many examples."""
    bounds = binomtest(round(share * examples), examples).proportion_ci(method="wilson")
    return bounds.low, bounds.high
