import numpy as np
import pytest

from config import NetworkOptions, ScheduleOptions, UpdateOptions
from engine.optimizer import (
    DecoupledDecay,
    decayed_variables,
    frozen_scopes,
    learning_rate,
    minimize,
    trained_variables,
    update_rule,
)
from errors import UserError
from tfcompat import tf


def rates(steps, **settings):
    with tf.Graph().as_default(), tf.Session() as session:
        step = tf.placeholder(tf.int64, [])
        rate = learning_rate(step, ScheduleOptions(learning_rate=0.1, **settings))
        return [float(session.run(rate, {step: s})) for s in steps]


@pytest.mark.parametrize(
    ("settings", "steps", "expected"),
    [
        ({"schedule": "constant"}, [0, 99], [0.1, 0.1]),
        ({"schedule": "cosine"}, [0, 25, 50, 100], [0.1, 0.1 * 0.5 * (1 + np.cos(np.pi / 4)), 0.05, 0.0]),
        ({"schedule": "cosine", "end_learning_rate": 0.01}, [0, 50, 100], [0.1, 0.055, 0.01]),
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
        ({"schedule": "polynomial"}, [0, 25, 100], [0.1, 0.075, 0.0]),
        (
            {"schedule": "polynomial", "polynomial_power": 2.0, "end_learning_rate": 0.02, "warmup_steps": 20},
            [0, 19, 20, 60, 100],
            [0.005, 0.1, 0.1, 0.02 + 0.08 * 0.25, 0.02],
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
        step = update_rule(UpdateOptions(optimizer=name, **settings), tf.constant(0.1)).apply_gradients(
            [(gradient, variable)]
        )
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
    np.testing.assert_allclose(
        updates("adam", [3.0, 1.0], adam_beta2=0.99, optimizer_epsilon=1e-12), [0.9, second], rtol=1e-5
    )


def test_rmsprop_divides_by_the_running_mean_square():
    # TensorFlow starts the mean square at 1: s = 0.9 + 0.1 · 4; x ← x - 0.1 · 2 / √s
    expected = 1 - 0.1 * 2 / np.sqrt(1.3)
    np.testing.assert_allclose(updates("rmsprop", [2.0], momentum=0.0, optimizer_epsilon=0.0), [expected], rtol=1e-6)


def test_sgd_and_nesterov():
    np.testing.assert_allclose(updates("sgd", [1.0, 2.0]), [0.9, 0.7], rtol=1e-6)
    # v ← 0.5 v + g; x ← x - 0.1 (g + 0.5 v)
    expected = [1 - 0.1 * 1.5, 0.85 - 0.1 * (2 + 0.5 * 2.5)]
    np.testing.assert_allclose(updates("momentum", [1.0, 2.0], momentum=0.5, nesterov=True), expected, rtol=1e-6)


def minimized(steps, clip_norm=None, decay=None, name="adamw"):
    """Variables a and b under the loss 3 a + 4 b, and a third that it does not depend on. Returns the norms of the last
    gradients, and the variables."""
    with tf.Graph().as_default(), tf.Session() as session:
        global_step = tf.train.get_or_create_global_step()
        a, b, c = (tf.get_variable(n, initializer=v) for n, v in (("a/weights", 1.0), ("b", 2.0), ("c", 3.0)))
        rate = tf.constant(0.1)
        decay = None if decay is None else DecoupledDecay(rate * decay, [a])
        rule = update_rule(UpdateOptions(optimizer=name), rate)
        update = minimize(rule, 3 * a + 4 * b, [a, b, c], global_step, clip_norm=clip_norm, decay=decay)
        session.run(tf.global_variables_initializer())
        for _ in range(steps):
            norms, _ = session.run((update.gradient_norms, update.op))
        assert [v.op.name for v in update.variables] == ["a/weights", "b"]
        assert session.run(global_step) == steps
        return norms.tolist(), session.run([a, b, c])


def test_adamw_shrinks_the_weights_themselves():
    # Each step of Adam under a constant gradient is the rate; the decay comes before it, from the weight as it was.
    norms, (a, b, c) = minimized(2, decay=0.5)
    first = 1.0 * (1 - 0.1 * 0.5) - 0.1
    assert norms == [3, 4]
    assert (a, b, c) == pytest.approx((first * 0.95 - 0.1, 1.8, 3.0), rel=1e-5)


def test_gradients_are_clipped_together_and_their_norms_are_of_before():
    norms, (a, b, _) = minimized(1, clip_norm=1.0, name="sgd")
    assert norms == [3, 4]
    assert (a, b) == pytest.approx((1 - 0.1 * 0.6, 2 - 0.1 * 0.8), rel=1e-6)
    assert minimized(1, clip_norm=50.0, name="sgd")[1] == pytest.approx((0.7, 1.6, 3.0), rel=1e-6)


def named(*names):
    return [tf.get_variable(name, [1]) for name in names]


NAMES = ("net/conv1/weights", "net/conv1/biases", "net/conv10/weights", "net/fc8/weights", "net/fc8/BatchNorm/gamma")


@pytest.mark.parametrize(
    ("train_only", "freeze", "expected"),
    [
        ((), (), NAMES),
        (("fc8",), (), NAMES[3:]),
        (("net/fc8/", "conv1"), (), (*NAMES[:2], *NAMES[3:])),
        ((), ("conv1",), NAMES[2:]),
        ((), ("net/fc8/BatchNorm", "conv10/weights"), (*NAMES[:2], NAMES[3])),
    ],
)
def test_scopes_are_whole_parts_of_names(train_only, freeze, expected):
    with tf.Graph().as_default():
        options = NetworkOptions(train_only=train_only, freeze=freeze)
        trained = trained_variables(named(*NAMES), options, "net")
    assert tuple(v.op.name for v in trained) == expected
    frozen = frozen_scopes(options, "net")
    if frozen:
        assert tuple(name for name in NAMES if not frozen(name)) == expected
        assert frozen("net/conv1/BatchNorm") == ("net/conv1/weights" not in expected)


def test_a_scope_that_matches_nothing_is_named():
    with tf.Graph().as_default():
        variables = named(*NAMES)
        with pytest.raises(UserError, match=r"--train-only 'fc' matches no variable.*conv1, conv10, fc8"):
            trained_variables(variables, NetworkOptions(train_only=("fc8", "fc")), "net")
        with pytest.raises(UserError, match="--freeze 'conv2' matches"):
            trained_variables(variables, NetworkOptions(freeze=("conv2",)), "net")
        with pytest.raises(UserError, match="leaves nothing to train"):
            trained_variables(variables, NetworkOptions(freeze=("net",)), "net")
        assert [v.op.name for v in decayed_variables(variables, False)] == [NAMES[0], NAMES[2], NAMES[3]]
        assert decayed_variables(variables, True) == variables


@pytest.mark.parametrize(
    "loss", [lambda weights: tf.reduce_sum(tf.stop_gradient(weights)), lambda weights: tf.constant(1.0)]
)
def test_a_loss_that_no_variable_changes_is_a_mistake_of_the_net(loss):
    with tf.Graph().as_default():
        weights, step = tf.get_variable("net/weights", initializer=[1.0]), tf.train.create_global_step()
        with pytest.raises(UserError, match=r"the loss depends on none of the 1 trained variables \(net/weights"):
            minimize(tf.train.GradientDescentOptimizer(0.1), loss(weights), [weights], step)


def test_a_net_without_variables_cannot_be_trained():
    with pytest.raises(UserError, match="the net has no variables to train"):
        trained_variables([], NetworkOptions(), "net")
