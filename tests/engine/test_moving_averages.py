"""Trainings that batch norm would spoil without an error are refused or reported."""

import re

import pytest

from engine import moving_averages
from errors import UserError
from tfcompat import batch_norm, slim, tf


def graph(shape, decay=0.9, is_training=True):
    with tf.Graph().as_default() as built:
        net = slim.conv2d(tf.placeholder(tf.float32, [*shape, 3]), 4, 3)
        slim.batch_norm(net, decay=0.5, is_training=is_training, scope="fast")
        batch_norm(net, decay=decay, is_training=is_training)
    return built


@pytest.mark.parametrize("shape", [(2, 1, 1), (1, 2, 1), (1, 1, 2)])
def test_several_values_can_be_normalized(shape):
    moving_averages.check_values(graph(shape))


def test_a_single_value_cannot_be_normalized():
    with pytest.raises(UserError, match=r"^fast.* normalizes a single value.*--batch-size 2"):
        moving_averages.check_values(graph((1, 1, 1)))
    moving_averages.check_values(graph((1, 1, 1), is_training=False))


@pytest.mark.parametrize(
    ("decay", "steps", "said"),
    [
        (0.9997, 2310, "will hold 50% .* for 7,675 steps or more"),
        (0.9997, 7675, None),
        (0.9, 10, "35%"),
        (0.9, 22, None),
    ],
)
def test_averages_that_lag_are_reported(decay, steps, said):
    note = moving_averages.lag(graph((2, 4, 4), decay), steps)
    assert note is None if said is None else re.search(said, note)


def test_without_batch_norm_there_is_nothing_to_report():
    assert moving_averages.lag(tf.Graph(), 1) is None
    assert moving_averages.lag(graph((2, 4, 4), is_training=False), 1) is None
