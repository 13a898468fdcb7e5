from typing import NamedTuple

import numpy as np
import pytest
from sklearn.metrics import log_loss, top_k_accuracy_score

from engine.metrics import evaluate, interval, per_example
from tfcompat import tf


class ArrayBatches(NamedTuple):
    examples: int
    iterator: object
    logits: tf.Tensor
    labels: tf.Tensor

    @classmethod
    def of(cls, logits, labels, batch_size, examples=None):
        iterator = tf.data.make_initializable_iterator(
            tf.data.Dataset.from_tensor_slices((logits, labels)).batch(batch_size)
        )
        return cls(examples or len(labels), iterator, *iterator.get_next())

    def start(self, session, step=0):
        session.run(self.iterator.initializer)


@pytest.fixture
def logits_and_labels():
    rng = np.random.default_rng(0)
    return rng.normal(size=(23, 7)).astype(np.float32), rng.integers(0, 7, 23)


@pytest.mark.parametrize("batch_size", [1, 7, 23, 100])
def test_evaluation_equals_scikit_learn_for_any_batch_size(logits_and_labels, batch_size):
    logits, labels = logits_and_labels
    with tf.Graph().as_default(), tf.Session() as session:
        batches = ArrayBatches.of(logits, labels, batch_size)
        metrics = per_example(batches.logits, batches.labels)
        first, second = (evaluate(session, batches, metrics) for _ in range(2))
    assert first == second
    assert first.examples == 23
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert first.loss == pytest.approx(log_loss(labels, probabilities, labels=range(7)), rel=1e-6)
    assert first.top1 == pytest.approx((logits.argmax(1) == labels).mean())
    assert first.top5 == pytest.approx(top_k_accuracy_score(labels, logits, k=5, labels=range(7)))


def test_an_example_that_went_missing_is_noticed(logits_and_labels):
    with tf.Graph().as_default(), tf.Session() as session:
        batches = ArrayBatches.of(*logits_and_labels, batch_size=5, examples=24)
        with pytest.raises(AssertionError, match="23 examples came, 24 are indexed"):
            evaluate(session, batches, per_example(batches.logits, batches.labels))


def test_equal_logits_earn_one_class():
    with tf.Graph().as_default(), tf.Session() as session:
        metrics = session.run(per_example(tf.zeros([10, 10]), tf.range(10, dtype=tf.int64)))
    assert metrics.top1.sum() == 1
    assert metrics.top5.sum() == 5


def test_top5_of_three_classes_is_top3():
    with tf.Graph().as_default(), tf.Session() as session:
        assert session.run(per_example(tf.zeros([2, 3]), tf.constant([0, 2], tf.int64))).top5.tolist() == [1, 1]


def test_interval_is_wilsons():
    # Wilson 1927 for 81 of 263 at z = 1.96: 0.255 to 0.366 (Newcombe 1998, table I)
    assert interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert interval(1.0, 359)[0] == pytest.approx(0.9894, abs=1e-4)
