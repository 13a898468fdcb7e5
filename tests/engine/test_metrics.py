from typing import NamedTuple

import numpy as np
import pytest
from sklearn.metrics import log_loss, top_k_accuracy_score

from engine.metrics import class_logits, evaluate, interval, per_example, summarize, training_loss
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
        metrics = {
            "": per_example(batches.logits, batches.labels),
            "negated": per_example(-batches.logits, batches.labels),
        }
        tables, again = (evaluate(session, batches, metrics) for _ in range(2))
    first = summarize(tables[""])
    assert first == summarize(again[""])
    assert tables[""].label.tolist() == labels.tolist()
    assert tables[""].prediction.tolist() == logits.argmax(1).tolist()
    assert tables["negated"].prediction.tolist() == logits.argmin(1).tolist()
    assert first.examples == 23
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(tables[""].confidence, probabilities.max(1), rtol=1e-5)
    assert first.loss == pytest.approx(log_loss(labels, probabilities, labels=range(7)), rel=1e-6)
    assert first.top1 == pytest.approx((logits.argmax(1) == labels).mean())
    assert first.top5 == pytest.approx(top_k_accuracy_score(labels, logits, k=5, labels=range(7)))


def test_an_example_that_went_missing_is_noticed(logits_and_labels):
    with tf.Graph().as_default(), tf.Session() as session:
        batches = ArrayBatches.of(*logits_and_labels, batch_size=5, examples=24)
        with pytest.raises(AssertionError, match="23 examples were read, 24 are indexed"):
            evaluate(session, batches, {"": per_example(batches.logits, batches.labels)})


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


def test_a_pass_can_be_given_up(logits_and_labels):
    asked = []
    with tf.Graph().as_default(), tf.Session() as session:
        batches = ArrayBatches.of(*logits_and_labels, batch_size=5)
        metrics = {"": per_example(batches.logits, batches.labels)}
        assert evaluate(session, batches, metrics, lambda: asked.append(0) or len(asked) > 2) is None
        assert len(asked) == 3
        assert len(evaluate(session, batches, metrics)[""].label) == 23  # and made anew


def test_a_sigmoid_unit_is_a_softmax_of_two():
    outputs = np.array([[-2.0], [0.0], [1.5], [90.0]], np.float32)
    labels = np.array([0, 1, 0, 1])
    with tf.Graph().as_default(), tf.Session() as session:
        logits = class_logits(tf.constant(outputs))
        table, smooth = session.run(
            (per_example(logits, tf.constant(labels)), training_loss(logits, tf.constant(labels), 0.2))
        )
        targets = tf.constant(labels[:, None] * 0.8 + 0.1, tf.float32)
        expected = session.run(
            (
                tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.cast(labels[:, None], tf.float32), logits=outputs),
                tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=outputs)),
            )
        )
    np.testing.assert_allclose(table.loss, expected[0][:, 0], rtol=1e-6, atol=1e-7)
    assert table.prediction.tolist() == [0, 0, 1, 1]
    assert smooth == pytest.approx(expected[1], rel=1e-6)
    assert class_logits(tf.zeros([4, 2])).shape.as_list() == [4, 2]


def test_label_smoothing_by_hand():
    logits = np.array([[2.0, 0.0, -1.0]], np.float32)
    log_p = logits - np.log(np.exp(logits).sum())
    with tf.Graph().as_default(), tf.Session() as session:
        plain, smooth = session.run([training_loss(tf.constant(logits), tf.constant([0]), s) for s in (0.0, 0.3)])
    assert plain == pytest.approx(-log_p[0, 0], rel=1e-6)
    assert smooth == pytest.approx(-(0.8 * log_p[0, 0] + 0.1 * log_p[0, 1] + 0.1 * log_p[0, 2]), rel=1e-6)


def test_what_is_not_a_number_is_never_right():
    with tf.Graph().as_default(), tf.Session() as session:
        logits, labels = tf.placeholder(tf.float32, [None, 3]), tf.placeholder(tf.int64, [None])
        bad = [[np.nan] * 3, [np.nan, 1.0, 2.0], [1.0, np.nan, 0.0]]
        found = session.run(per_example(logits, labels), {logits: bad, labels: [0, 2, 0]})
    np.testing.assert_array_equal(found.top1, 0)
