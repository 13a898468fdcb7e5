"""The parts of TF-Slim that users rely on, on today's TensorFlow."""

import ast
import contextlib
import importlib
import pathlib
import types

import numpy as np
import pytest

import tfcompat
from tfcompat import dropout, slim, tf


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as graph:
        yield graph


@contextlib.contextmanager
def initialized_session():
    with tf.Session() as session:
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        yield session


def evaluate(fetches):
    with initialized_session() as session:
        return session.run(fetches)


def variable_names():
    return [v.op.name for v in tf.global_variables()]


def test_v2_behaviour_is_off():
    assert not tf.executing_eagerly()
    assert not tf.control_flow_v2_enabled()
    assert isinstance(tf.TensorShape([3])[0], tf.Dimension)
    assert (tf.constant(1) == tf.constant(1)) is False  # v1 compares identity; v2 would build an op


def test_resource_variables_are_on():
    assert tf.resource_variables_enabled()
    slim.conv2d(tf.zeros([1, 4, 4, 3]), 8, [3, 3])
    assert [v.op.type for v in tf.global_variables()] == ["VarHandleOp"] * 2


def names_asked_of_tensorflow():
    """Yields (TensorFlow module, attribute, place) for all names in tf_slim's files, including its tests."""
    root = pathlib.Path(slim.__file__).parent
    for path in sorted(root.rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        bound = {}
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tensorflow":
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    with contextlib.suppress(ImportError):  # from a module, not a package
                        bound[alias.asname or alias.name] = importlib.import_module(name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == "tensorflow" and alias.asname:
                        bound[alias.asname] = importlib.import_module(alias.name)
        for node in nodes:
            attributes, value = [], node
            while isinstance(value, ast.Attribute):
                attributes.insert(0, value.attr)
                value = value.value
            owner = bound.get(value.id) if isinstance(value, ast.Name) else None
            for attribute in attributes:
                if not isinstance(owner, types.ModuleType):
                    break
                yield owner, attribute, f"{path.relative_to(root)}:{node.lineno}"
                owner = getattr(owner, attribute, None)


def test_every_tensorflow_name_in_tf_slim_exists_and_no_other_is_set_again():
    asked = list(names_asked_of_tensorflow())
    missing = {f"{owner.__name__}.{name}": where for owner, name, where in asked if not hasattr(owner, name)}
    assert missing == {}
    put_back = {(f"tensorflow.python.{place}", name) for place, name, _ in tfcompat.MOVED_NAMES}
    assert put_back <= {(owner.__name__, name) for owner, name, _ in asked}


DECAY, EPSILON = 0.9, 1e-3
BETA, GAMMA = np.float32([0.5, -1.0]), np.float32([2.0, 0.25])
IMAGES = np.random.RandomState(0).normal(3.0, 2.0, (4, 3, 3, 2)).astype(np.float32)
COUNT = IMAGES[..., 0].size


def batch_norm(inputs, is_training, fused, **kwargs):
    initial = {"beta": BETA, "gamma": GAMMA, "moving_mean": [1.0, 2.0], "moving_variance": [4.0, 0.5]}
    initializers = {name: tf.constant_initializer(value) for name, value in initial.items()}
    return slim.batch_norm(
        inputs, DECAY, scale=True, epsilon=EPSILON, fused=fused, is_training=is_training,
        param_initializers=initializers, scope="bn", reuse=tf.AUTO_REUSE, **kwargs,
    )  # fmt: skip


def normalized(mean, variance):
    return (IMAGES - mean) / np.sqrt(variance + EPSILON) * GAMMA + BETA


def moved(mean, variance, fused):
    """The moving averages after one update. Fused batch norm applies Bessel's correction to the batch's variance."""
    batch_variance = IMAGES.var((0, 1, 2)) * (COUNT / (COUNT - 1) if fused else 1)
    return (
        DECAY * mean + (1 - DECAY) * IMAGES.mean((0, 1, 2)),
        DECAY * variance + (1 - DECAY) * batch_variance,
    )


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", ["bool", "tensor", "variable"])
def test_batch_norm(kind, fused):
    if kind == "bool":
        phases = {}
        for training in True, False:
            outputs = batch_norm(IMAGES, training, fused)
            updates = tf.get_collection_ref(tf.GraphKeys.UPDATE_OPS)
            phases[training] = outputs, list(updates)
            updates.clear()
        assert [len(updates) for _, updates in phases.values()] == [2, 0]
    else:
        is_training = tf.placeholder(tf.bool, []) if kind == "tensor" else tf.Variable(False, trainable=False)
        outputs = batch_norm(IMAGES, is_training, fused)
        phases = dict.fromkeys([True, False], (outputs, tf.get_collection(tf.GraphKeys.UPDATE_OPS)))
    moving_averages = slim.get_variables("bn/moving_mean") + slim.get_variables("bn/moving_variance")

    with initialized_session() as session:

        def step(training):
            if kind == "variable":
                session.run(is_training.assign(training))
            outputs, updates = phases[training]
            got, _ = session.run([outputs, updates], {is_training: training} if kind == "tensor" else None)
            return got, session.run(moving_averages)

        mean, variance = moved(np.float32([1, 2]), np.float32([4, 0.5]), fused)
        batch_statistics = normalized(IMAGES.mean((0, 1, 2)), IMAGES.var((0, 1, 2)))
        for _ in range(2):
            outputs, averages = step(training=True)
            np.testing.assert_allclose(outputs, batch_statistics, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(averages, [mean, variance], rtol=1e-5)
            # The second step starts from the averages of the first; evaluation comes after an update.
            last, (mean, variance) = (mean, variance), moved(mean, variance, fused)
        outputs, averages = step(training=False)
        np.testing.assert_allclose(outputs, normalized(*last), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(averages, last, rtol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_batch_norm_without_an_updates_collection_updates_in_place(fused):
    outputs = batch_norm(IMAGES, True, fused, updates_collections=None)
    with initialized_session() as session:
        session.run(outputs)
        averages = session.run(slim.get_variables("bn/moving_mean") + slim.get_variables("bn/moving_variance"))
    np.testing.assert_allclose(averages, moved(np.float32([1, 2]), np.float32([4, 0.5]), fused), rtol=1e-5)


def test_batch_norm_is_fused_by_default(graph):
    slim.batch_norm(IMAGES)
    assert any(op.type.startswith("FusedBatchNorm") for op in graph.get_operations())


def bn_names(scope):
    return [f"{scope}/BatchNorm/{name}" for name in ("beta", "moving_mean", "moving_variance")]


def test_conv2d_names():
    net = slim.conv2d(tf.zeros([1, 8, 8, 3]), 4, [3, 3])
    net = slim.conv2d(net, 4, [3, 3])
    net = slim.conv2d(net, 4, [3, 3], normalizer_fn=slim.batch_norm, scope="conv1")
    slim.conv2d(net, 4, [3, 3], normalizer_fn=slim.batch_norm, normalizer_params={"scale": True}, scope="conv2")
    assert variable_names() == [
        "Conv/weights", "Conv/biases", "Conv_1/weights", "Conv_1/biases", "conv1/weights", *bn_names("conv1"),
        "conv2/weights", "conv2/BatchNorm/gamma", *bn_names("conv2"),
    ]  # fmt: skip


def test_separable_conv2d_names():
    net = slim.separable_conv2d(tf.zeros([1, 8, 8, 3]), 4, [3, 3], 1)
    slim.separable_conv2d(net, None, [3, 3], 1, normalizer_fn=slim.batch_norm, scope="Conv2d_1_depthwise")
    assert variable_names() == [
        "SeparableConv2d/depthwise_weights", "SeparableConv2d/pointwise_weights", "SeparableConv2d/biases",
        "Conv2d_1_depthwise/depthwise_weights", *bn_names("Conv2d_1_depthwise"),
    ]  # fmt: skip


def test_fully_connected_names():
    net = slim.fully_connected(tf.zeros([1, 5]), 4)
    slim.fully_connected(net, 3, normalizer_fn=slim.batch_norm, scope="fc1")
    assert variable_names() == [
        "fully_connected/weights", "fully_connected/biases", "fc1/weights", *bn_names("fc1"),
    ]  # fmt: skip


def test_repeat_and_stack_names():
    net = slim.repeat(tf.zeros([1, 8, 8, 3]), 2, slim.conv2d, 4, [3, 3], scope="conv1")
    slim.stack(slim.flatten(net), slim.fully_connected, [6, 5], scope="fc")
    assert variable_names() == [
        "conv1/conv1_1/weights", "conv1/conv1_1/biases", "conv1/conv1_2/weights", "conv1/conv1_2/biases",
        "fc/fc_1/weights", "fc/fc_1/biases", "fc/fc_2/weights", "fc/fc_2/biases",
    ]  # fmt: skip


def test_arg_scope_sets_defaults_of_the_call():
    with (
        slim.arg_scope([slim.conv2d, slim.fully_connected], weights_regularizer=slim.l2_regularizer(0.1)),
        slim.arg_scope([slim.conv2d], normalizer_fn=slim.batch_norm, padding="VALID"),
        slim.arg_scope([slim.batch_norm], is_training=False, scale=True),
        tf.variable_scope("net"),
    ):
        net = slim.conv2d(tf.zeros([1, 8, 8, 3]), 4, [3, 3], scope="conv1")
        same = slim.conv2d(net, 4, [3, 3], padding="SAME", normalizer_fn=None, scope="conv2")
        slim.fully_connected(slim.flatten(same), 2, scope="fc")
    assert net.shape.as_list() == same.shape.as_list() == [1, 6, 6, 4]
    assert variable_names() == [
        "net/conv1/weights", "net/conv1/BatchNorm/gamma", *bn_names("net/conv1"),
        "net/conv2/weights", "net/conv2/biases", "net/fc/weights", "net/fc/biases",
    ]  # fmt: skip
    assert len(tf.losses.get_regularization_losses()) == 3
    assert tf.get_collection(tf.GraphKeys.UPDATE_OPS) == []


@pytest.mark.parametrize("losses", [slim.losses, tf.losses])
def test_softmax_cross_entropy(losses):
    logits = np.float32([[2, 0, 1], [0, 0, 0], [5, 1, 1]])
    labels, weights = np.eye(3, dtype=np.float32), np.float32([1, 2, 0])
    # By name, because the two have another order of arguments.
    named = {"onehot_labels": tf.constant(labels), "logits": tf.constant(logits), "weights": tf.constant(weights)}
    loss = losses.softmax_cross_entropy(**named)
    per_example = np.log(np.exp(logits).sum(1)) - (logits * labels).sum(1)
    np.testing.assert_allclose(evaluate(loss), (per_example * weights).sum() / 2, rtol=1e-6)  # 2 weights are not zero
    assert losses.get_losses() == [loss]


def test_total_loss_is_losses_plus_regularization():
    prediction = slim.fully_connected(
        tf.ones([2, 3]), 1, activation_fn=None, weights_initializer=tf.constant_initializer([1.0, -2.0, 3.0]),
        weights_regularizer=slim.l2_regularizer(0.1),
    )  # fmt: skip
    tf.losses.mean_squared_error(tf.zeros([2, 1]), prediction)
    # (1 - 2 + 3)² of the loss; scale · Σw² / 2 of the regularizer
    np.testing.assert_allclose(evaluate(tf.losses.get_total_loss()), 4 + 0.1 * (1 + 4 + 9) / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("regularizer", "expected"),
    [
        (slim.l2_regularizer(0.1), 0.1 * 14 / 2),
        (slim.l1_regularizer(0.1), 0.1 * 6),
        (slim.l1_l2_regularizer(0.1, 0.2), 0.1 * 6 + 0.2 * 14 / 2),
    ],
)
def test_regularizers(regularizer, expected):
    np.testing.assert_allclose(evaluate(regularizer(tf.constant([1.0, -2.0, 3.0]))), expected, rtol=1e-6)


def test_model_analyzer(graph, capsys):
    inputs = tf.zeros([1, 8, 8, 3])
    slim.conv2d(inputs, 8, [3, 3], scope="conv1")
    count = 3 * 3 * 3 * 8 + 8
    assert slim.model_analyzer.analyze_vars(slim.get_model_variables(), print_info=True) == (count, 4 * count)
    assert "conv1/weights:0 (float32 3x3x3x8) [216, bytes: 864]" in capsys.readouterr().out
    assert slim.model_analyzer.tensor_description(inputs) == "(float32 1x8x8x3)"
    slim.model_analyzer.analyze_ops(graph, print_info=True)
    assert "conv1/Relu" in capsys.readouterr().out


def test_create_train_op():
    learning_rate, max_norm = 2.0, 0.25
    images = tf.constant(IMAGES)
    net = slim.batch_norm(images, DECAY, scope="bn", is_training=True)
    logits = slim.fully_connected(slim.flatten(net), 1, activation_fn=None, biases_initializer=None, scope="fc")
    loss = tf.losses.mean_squared_error(1e3 * tf.ones([4, 1]), logits)
    global_step = tf.train.get_or_create_global_step()
    optimizer = tf.train.GradientDescentOptimizer(learning_rate)
    train_op = slim.learning.create_train_op(loss, optimizer, clip_gradient_norm=max_norm)
    weights, beta, moving_mean = (slim.get_variables(name)[0] for name in ("fc/weights", "bn/beta", "bn/moving_mean"))

    with initialized_session() as session:
        before, expected_loss = session.run([[weights, beta], loss])
        np.testing.assert_allclose(session.run(train_op), expected_loss, rtol=1e-6)
        after, mean, step = session.run([[weights, beta], moving_mean, global_step])
    for old, new in zip(before, after, strict=True):  # each gradient is clipped separately; all are far longer
        np.testing.assert_allclose(np.linalg.norm(new - old), learning_rate * max_norm, rtol=1e-5)
    np.testing.assert_allclose(mean, (1 - DECAY) * IMAGES.mean((0, 1, 2)), rtol=1e-5)
    assert step == 1


def kept(outputs):
    return outputs != 0


def dropout_of_ones(seed, scope):
    return dropout(tf.ones([1000]), seed=tf.constant(seed), scope=scope)


def test_dropout_is_a_function_of_seed_step_and_layer():
    tf.set_random_seed(1)
    mask = kept(evaluate(dropout_of_ones([7, 3], scope="dropout6")))
    with tf.Graph().as_default():  # another graph seed, and other random ops come first
        tf.set_random_seed(2)
        noise, other_layer = tf.random_uniform([3]), dropout_of_ones([7, 3], scope="dropout5")
        seed = tf.placeholder(tf.int64, [2])
        outputs = dropout(tf.ones([1000]), seed=seed, scope="dropout6")
        with initialized_session() as session:

            def run(step):
                return kept(session.run([noise, outputs], {seed: [7, step]})[1])

            np.testing.assert_array_equal(run(3), mask)
            next_step, again = run(4), run(3)
            other_mask = kept(session.run(other_layer))
            other_seed = kept(session.run(outputs, {seed: [8, 3]}))
    np.testing.assert_array_equal(again, mask)
    for other in next_step, other_mask, other_seed:
        # Independent masks of 1,000 units at keep_prob .5 agree on 500 ± 16.
        assert 420 < (other == mask).sum() < 580


@pytest.mark.parametrize("keep_prob", [0.2, 0.5, 0.9])
def test_dropout_keeps_its_share_and_scales_the_kept_units(keep_prob):
    size = 100_000
    inputs = np.random.RandomState(0).uniform(1, 2, size).astype(np.float32)
    outputs = evaluate(dropout(tf.constant(inputs), keep_prob, seed=tf.constant([1, 2])))
    np.testing.assert_allclose(outputs[kept(outputs)], inputs[kept(outputs)] / keep_prob, rtol=1e-6)
    deviation = np.sqrt(keep_prob * (1 - keep_prob) / size)
    assert abs(kept(outputs).mean() - keep_prob) < 4 * deviation


def test_dropout_with_keep_prob_1_is_identity():
    np.testing.assert_array_equal(evaluate(dropout(tf.constant(IMAGES), 1.0, seed=tf.constant([1, 2]))), IMAGES)


def test_dropout_drops_the_same_units_of_the_gradient():
    inputs = tf.ones([1000])
    outputs = dropout(inputs, 0.5, seed=tf.constant([1, 2]))
    values, gradient = evaluate([outputs, tf.gradients(outputs, inputs)[0]])
    np.testing.assert_array_equal(gradient, 2.0 * kept(values))


def test_dropout_in_evaluation_is_identity():
    np.testing.assert_array_equal(evaluate(dropout(tf.constant(IMAGES), is_training=False)), IMAGES)


@pytest.mark.parametrize("kind", ["tensor", "variable"])
def test_dropout_follows_is_training(kind):
    is_training = tf.placeholder(tf.bool, []) if kind == "tensor" else tf.Variable(False, trainable=False)
    outputs = dropout(tf.constant(IMAGES), 0.5, is_training, seed=tf.constant([1, 2]))
    with initialized_session() as session:

        def run(training):
            if kind == "variable":
                session.run(is_training.assign(training))
            return session.run(outputs, {is_training: training} if kind == "tensor" else None)

        np.testing.assert_array_equal(run(False), IMAGES)
        assert 0 < kept(run(True)).sum() < IMAGES.size


@pytest.mark.parametrize("is_training", ["bool", "tensor"])
def test_dropout_in_training_needs_a_seed(is_training):
    is_training = True if is_training == "bool" else tf.placeholder(tf.bool, [])
    with tf.variable_scope("vgg_16"), pytest.raises(ValueError, match=r"vgg_16/dropout6.*needs a seed.*arg_scope"):
        dropout(tf.ones([4]), is_training=is_training, scope="dropout6")


def test_dropout_takes_its_seed_from_the_arg_scope():
    step = tf.train.get_or_create_global_step()
    with slim.arg_scope([dropout], seed=tf.stack([7, step]), outputs_collections="end_points"):
        with tf.variable_scope("net"):
            first, second = dropout(tf.ones([1000])), dropout(tf.ones([1000]))
        with tf.variable_scope("other"):  # the layer's own name is that of the first
            third = dropout(tf.ones([1000]))
    expected = dropout_of_ones([7, 0], scope="net/Dropout")
    first_mask, *other_masks, expected_mask = map(kept, evaluate([first, second, third, expected]))
    np.testing.assert_array_equal(first_mask, expected_mask)
    for other in other_masks:
        assert 420 < (first_mask == other).sum() < 580
    end_points = slim.utils.convert_collection_to_dict("end_points")
    assert list(end_points) == ["net/Dropout", "net/Dropout_1", "other/Dropout"]
    assert end_points["net/Dropout"] is first


@pytest.mark.parametrize("is_training", [True, False])
def test_our_batch_norm_equals_slims_if_nothing_is_frozen(is_training):
    settings = {"is_training": is_training, "decay": 0.9, "scale": True, "activation_fn": tf.nn.relu}
    with slim.arg_scope([tfcompat.batch_norm], frozen=lambda name: False):
        ours = slim.conv2d(IMAGES, 3, 3, normalizer_fn=tfcompat.batch_norm, normalizer_params=settings, scope="ours")
    theirs = slim.conv2d(IMAGES, 3, 3, normalizer_fn=slim.batch_norm, normalizer_params=settings, scope="theirs")
    names = [[n.split("/", 1)[1] for n in variable_names() if n.startswith(scope)] for scope in ("ours", "theirs")]
    assert names[0] == names[1]
    weights = [v for v in tf.global_variables() if v.op.name.endswith("/weights")]
    assert len(tf.get_collection(tf.GraphKeys.UPDATE_OPS)) == (4 if is_training else 0)
    with initialized_session() as session:
        session.run(weights[0].assign(weights[1]))
        np.testing.assert_allclose(*session.run((ours, theirs)), rtol=1e-6)


def test_frozen_batch_norm_uses_its_averages_in_training():
    asked = []

    def frozen(name):
        asked.append(name)
        return name.startswith("net/conv1")

    with slim.arg_scope([tfcompat.batch_norm], frozen=frozen), tf.variable_scope("net"):
        first = slim.conv2d(IMAGES, 3, 1, normalizer_fn=tfcompat.batch_norm, scope="conv1", activation_fn=None)
        second = tfcompat.batch_norm(first, scope="postnorm")
    assert asked == ["net/conv1/BatchNorm", "net/postnorm"]
    updates = [op.name for op in tf.get_collection(tf.GraphKeys.UPDATE_OPS)]
    assert len(updates) == 2
    assert all(name.startswith("net/postnorm") for name in updates)
    plain = tf.nn.conv2d(IMAGES, slim.get_variables("net/conv1/weights")[0], 1, "SAME")
    values = evaluate((first, plain, second))
    np.testing.assert_allclose(values[0], values[1] / np.sqrt(1.001), rtol=1e-4, atol=1e-6)  # averages 0 and 1
    np.testing.assert_allclose(values[2].mean((0, 1, 2)), 0, atol=1e-5)  # of the batch


def test_upstream_is_all_that_the_operations_are_computed_from(graph):
    a, b, c = (tf.placeholder(tf.float32, name=name) for name in "abc")
    with tf.control_dependencies([tf.add(a, 1.0, name="control")]):
        product = tf.multiply(a, b, name="product")
    tf.add(product, c, name="later")
    both = tfcompat.upstream([product.op, c.op])
    assert {op.name for op in both} == {"a", "b", "product", "c"}
    assert tfcompat.upstream([]) == set()


def test_tf_layers_and_rnn_cells_are_there():
    images = tf.constant(IMAGES)
    tf.layers.batch_normalization(tf.layers.conv2d(images, 4, 3, use_bias=False, name="conv"), training=True, name="bn")
    names = ["conv/kernel", "bn/gamma", "bn/beta", "bn/moving_mean", "bn/moving_variance"]
    assert variable_names() == names
    assert len(tf.get_collection(tf.GraphKeys.UPDATE_OPS)) == 2
    outputs, _ = tf.nn.dynamic_rnn(tf.nn.rnn_cell.GRUCell(5), images[..., 0], dtype=tf.float32)
    assert outputs.shape.as_list() == [4, 3, 5]
