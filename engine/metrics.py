"""Loss and accuracy, by example in the graph and exactly over a split."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binomtest
from tqdm import tqdm

from tfcompat import tf


class PerExample(NamedTuple):
    """Metrics of each of N examples: tensors for a batch, NumPy arrays for a whole split."""

    loss: tf.Tensor  # float32 [N], cross-entropy in nats
    top1: tf.Tensor  # float32 [N], 1 where the most probable class is the label
    top5: tf.Tensor  # float32 [N], 1 where the label is among the 5 most probable
    label: tf.Tensor  # int64 [N]
    prediction: tf.Tensor  # int64 [N], the most probable class
    confidence: tf.Tensor  # float32 [N], its probability
    rank: tf.Tensor  # int32 [N], how many classes are more probable than the label
    log_odds: tf.Tensor  # float32 [N], logit of class 1 minus that of class 0, which ranks the examples of two classes


class Summary(NamedTuple):
    """Means over the examples of a split."""

    examples: int
    loss: float
    top1: float
    top5: float

    def row(self, classes: int) -> dict[str, float | None]:
        """The values by name; top5 is None for up to five classes, of which it is always 1."""
        return {**self._asdict(), "top5": self.top5 if classes > 5 else None}

    def describe(self, classes: int) -> str:
        """One line; top-5 only where there are more than five classes."""
        low, high = interval(self.top1, self.examples)
        top5 = f", top-5 {self.top5:.2%}" if classes > 5 else ""
        return (
            f"top-1 {self.top1:.2%} ({round(self.top1 * self.examples):,} of {self.examples:,}, "
            f"95 % interval {low:.2%} to {high:.2%}){top5}, loss {self.loss:.4f}"
        )


def class_logits(outputs: tf.Tensor) -> tf.Tensor:
    """Logits [N, classes] of a net's outputs. A single output [N, 1] is the sigmoid unit of two classes: its softmax
    beside a zero is its sigmoid, so that loss, accuracy and probabilities are the same for both kinds of head."""
    if outputs.shape[1] != 1:
        return outputs
    return tf.pad(outputs, [[0, 0], [1, 0]])


def training_loss(logits: tf.Tensor, labels: tf.Tensor, label_smoothing: float = 0.0) -> tf.Tensor:
    """Mean cross-entropy in nats, a float32 scalar, of logits [N, classes] for labels [N].

    With smoothing s the label's probability is 1 - s + s / classes, that of any other class s / classes
    (arXiv:1512.00567, §7).
    """
    if not label_smoothing:
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
    classes = logits.shape.as_list()[1]
    targets = tf.one_hot(labels, classes) * (1.0 - label_smoothing) + label_smoothing / classes
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits_v2(labels=targets, logits=logits))


def per_example(logits: tf.Tensor, labels: tf.Tensor) -> PerExample:
    """Softmax cross-entropy and hits of logits [N, classes] for labels [N]."""
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    own = tf.gather(logits, labels, axis=1, batch_dims=1)[:, tf.newaxis]
    # Ties are broken by index, as in argmax, so that of equal logits one class is first (tf.nn.in_top_k would count
    # all); NaN is ahead of everything.
    before = tf.range(logits.shape[1], dtype=labels.dtype)[tf.newaxis] < labels[:, tf.newaxis]
    # Not by ~, which the graph optimizer turns into >, which is never true for NaN.
    ahead = tf.where(logits <= own, tf.equal(logits, own) & before, tf.ones_like(logits, tf.bool))
    rank = tf.reduce_sum(tf.cast(ahead, tf.int32), 1)
    return PerExample(
        loss,
        tf.cast(rank < 1, tf.float32),
        tf.cast(rank < 5, tf.float32),
        labels,
        tf.argmax(logits, 1),
        tf.reduce_max(tf.nn.softmax(logits), 1),
        rank,
        logits[:, 1] - logits[:, 0],
    )


def evaluate(
    session: tf.Session,
    batches: Any,
    nets: Mapping[str, PerExample],
    stopped: Callable[[], object] = lambda: False,
    progress: bool = False,
) -> dict[str, PerExample] | None:
    """One pass over the pipeline's Batches, every example exactly once.

    nets holds the metrics of a batch, for each of several nets on the same batches. `stopped` is called before each
    batch; the pass ends early where it returns true. With progress, a terminal shows a progress bar.

    Returns for each of the nets its metrics over the whole split, NumPy arrays in the order of the split; None where
    the pass ended early. Raises AssertionError where the pipeline gave another number of examples than its index holds.
    """
    batches.start(session)
    parts = []
    with tqdm(total=batches.examples, unit="picture", disable=None if progress else True, leave=False) as bar:
        while not stopped():
            try:
                parts.append(session.run(dict(nets)))
            except tf.errors.OutOfRangeError:
                break
            bar.update(len(next(iter(parts[-1].values())).label))
        else:
            return None
    whole = {name: PerExample(*map(np.concatenate, zip(*(part[name] for part in parts), strict=True))) for name in nets}
    for table in whole.values():
        count = len(table.label)
        assert count == batches.examples, f"{count} examples were read, {batches.examples} are indexed"
    return whole


def summarize(table: PerExample) -> Summary:
    """The means over a split."""
    means = (float(values.mean(dtype=np.float64)) for values in (table.loss, table.top1, table.top5))
    return Summary(len(table.label), *means)


def interval(share: float, examples: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an accuracy measured on so many examples."""
    bounds = binomtest(round(share * examples), examples).proportion_ci(method="wilson")
    return bounds.low, bounds.high
