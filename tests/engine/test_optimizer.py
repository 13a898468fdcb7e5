import numpy as np
import pytest

from engine.optimizer import learning_rate, optimizer
from tfcompat import tf


def rates(steps, **settings):
    with tf.Graph().as_default(), tf.Session() as session:
        step = tf.placeholder(tf.int64, [])
        rate = learning_rate(step, 0.1, **settings)
        return [float(session.run(rate, {step: s})) for s in steps]


@pytest.mark.parametrize(
    ("settings", "steps", "expected"),
    [
        ({"schedule": "constant"}, [0, 99], [0.1, 0.1]),
        ({"schedule": "cosine"}, [0, 25, 50, 100], [0.1, 0.1 * 0.5 * (1 + np.cos(np.pi / 4)), 0.05, 0.0]),
        ({"schedule": "cosine", "end": 0.01}, [0, 50, 100], [0.1, 0.055, 0.01]),
        ({"schedule": "step", "decay_at_steps": (30, 60)}, [0, 29, 30, 59, 60, 99], [0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3]),
        (
            {"schedule": "step", "decay_at_steps": (30,), "decay_rate": 0.5, "warmup_steps": 10},
            [0, 4, 9, 10, 30],
            [0.01, 0.05, 0.1, 0.1, 0.05],
        ),
        ({"schedule": "exponential", "decay_steps": 10}, [0, 5, 10, 20], [0.1, 0.1 * 0.1**0.5, 0.01, 1e-3]),
        (
            {"schedule": "exponential", "decay_steps": 10, "warmup_steps": 4},
            [0, 3, 4, 14],
            [0.025, 0.1, 0.1, 0.01],
        ),
        ({"schedule": "cosine", "warmup_steps": 20}, [0, 19, 20, 60, 100], [0.005, 0.1, 0.1, 0.05, 0.0]),
    ],
)
def test_learning_rate(settings, steps, expected):
    np.testing.assert_allclose(rates(steps, total_steps=100, **settings), expected, rtol=1e-5, atol=1e-8)


def updates(name, gradients, **settings):
    """The values of a variable that starts at 1 under a sequence of gradients and rate 0.1."""
    with tf.Graph().as_default(), tf.Session() as session:
        gradient = tf.placeholder(tf.float32, [])
        variable = tf.get_variable("v", initializer=1.0)
        step = optimizer(name, tf.constant(0.1), **settings).apply_gradients([(gradient, variable)])
        session.run(tf.global_variables_initializer())
        values = []
        for value in gradients:
            session.run(step, {gradient: value})
            values.append(session.run(variable))
    return values


def test_momentum_accumulates_gradients():
    # v ← 0.5 v + g; x ← x - 0.1 v
    np.testing.assert_allclose(updates("momentum", [1.0, 2.0], momentum=0.5), [0.9, 0.65], rtol=1e-6)


def test_adam_corrects_its_bias():
    # The first step is the rate times the gradient's sign, whatever its size; the second by hand.
    m, v = 0.9 * 0.1 * 3 + 0.1 * 1, 0.99 * 0.01 * 9 + 0.01 * 1
    second = 0.9 - 0.1 * (m / (1 - 0.9**2)) / np.sqrt(v / (1 - 0.99**2))
    np.testing.assert_allclose(updates("adam", [3.0, 1.0], adam_beta2=0.99, epsilon=1e-12), [0.9, second], rtol=1e-5)


def test_rmsprop_divides_by_the_running_mean_square():
    # TensorFlow starts the mean square at 1: s = 0.9 + 0.1 · 4; x ← x - 0.1 · 2 / √s
    expected = 1 - 0.1 * 2 / np.sqrt(1.3)
    np.testing.assert_allclose(updates("rmsprop", [2.0], momentum=0.0, epsilon=0.0), [expected], rtol=1e-6)
