"""Every registered net: shapes, exact parameter counts, names, and the same numbers as tf_slim's own nets."""

import functools
import json
import pathlib
from typing import NamedTuple

import numpy as np
import pytest
from tf_slim.nets import alexnet as slim_alexnet
from tf_slim.nets import vgg as slim_vgg

from nets import NETS
from nets.alexnet import local_response_norm
from nets.layers import dense_conv2d
from nets.preact_resnet import preact_resnet_arg_scope, preact_unit
from tfcompat import dropout, slim, tf

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
COUNTS = json.loads((GOLDEN / "parameter_counts.json").read_text())
# Tests elsewhere register nets of their own.
NAMES = [n for n, net in NETS.items() if getattr(net.function, "func", net.function).__module__.startswith("nets.")]
BATCH, CLASSES = 2, 1000


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as graph:
        tf.set_random_seed(0)
        yield graph


class Towers(NamedTuple):
    graph: tf.Graph
    logits: tf.Tensor
    validation_logits: tf.Tensor
    end_points: dict
    updates: list  # after the training tower
    validation_updates: list  # that the validation tower added


@functools.cache
def towers(name):
    """The net twice over the same variables, as train.py builds it: to train, then to validate. Not to be changed."""
    net = NETS[name]
    with tf.Graph().as_default() as graph, slim.arg_scope(net.arg_scope(net.weight_decay)):
        inputs = tf.placeholder(tf.float32, [BATCH, net.image_size, net.image_size, net.channels])
        with slim.arg_scope([dropout], seed=tf.constant([0, 0])):
            logits, end_points = net.function(inputs, CLASSES, is_training=True, scope=net.scope)
        updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        with tf.name_scope("validation"), tf.variable_scope(tf.get_variable_scope(), reuse=True):
            validation_logits, _ = net.function(inputs, CLASSES, is_training=False, scope=net.scope)
        added = tf.get_collection(tf.GraphKeys.UPDATE_OPS)[len(updates) :]
    return Towers(graph, logits, validation_logits, end_points, updates, added)


def shapes(graph):
    """Name to shape of all variables, in the order of their creation."""
    return {v.op.name: tuple(v.shape.as_list()) for v in graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES)}


def trained(graph):
    return graph.get_collection(tf.GraphKeys.TRAINABLE_VARIABLES)


def run(fetches):
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        return session.run(fetches)


def test_every_registered_net_has_a_golden_count_and_the_other_way_round():
    assert sorted(COUNTS) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_one_row_per_picture(name):
    built = towers(name)
    for logits in built.logits, built.validation_logits:
        assert logits.shape.as_list() == [BATCH, CLASSES]
        assert logits.dtype == tf.float32
    assert built.end_points, "no end points"
    assert all(key.startswith(f"{NETS[name].scope}/") for key in built.end_points)


@pytest.mark.parametrize("name", NAMES)
def test_trainable_parameters_with_1000_classes(name):
    assert sum(int(np.prod(v.shape.as_list())) for v in trained(towers(name).graph)) == COUNTS[name]


def test_the_published_count_of_vgg_16():
    assert COUNTS["vgg_16"] == 138_357_544  # arXiv:1409.1556, table 2, says 138 million


@pytest.mark.parametrize("name", NAMES)
def test_new_scopes_hold_exactly_what_depends_on_the_number_of_classes(name):
    in_new_scopes = {
        n for n in shapes(towers(name).graph) if n.startswith(tuple(f"{s}/" for s in NETS[name].new_scopes))
    }
    assert in_new_scopes == {n for n, shape in shapes(towers(name).graph).items() if shape[-1] == CLASSES} != set()


def variables_read(tensor):
    """Names of the variables that a tensor is computed from."""
    found, seen, pending = [], set(), [tensor.op]
    while pending:
        op = pending.pop()
        if op not in seen:
            seen.add(op)
            pending += [i.op for i in op.inputs]
            if op.type == "VarHandleOp":
                found.append(op.name)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_each_weight_is_regularized_once_however_many_towers_there_are(name):
    graph = towers(name).graph
    losses = graph.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
    regularized = sorted(n for loss in losses for n in variables_read(loss))
    assert regularized == sorted(n for n in shapes(graph) if n.endswith("/weights"))


@pytest.mark.parametrize("name", NAMES)
def test_only_the_training_tower_updates_moving_averages(name):
    built = towers(name)
    assert len(built.updates) == sum("/moving_" in n for n in shapes(built.graph))
    assert built.validation_updates == []


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_is_that_of_the_arg_scope(name):
    with slim.arg_scope(NETS[name].arg_scope(0.5)):
        slim.conv2d(tf.ones([1, 2, 2, 1]), 3, 1)
    value, loss = run([tf.trainable_variables()[0], tf.losses.get_regularization_loss()])
    np.testing.assert_allclose(loss, 0.5 * (value**2).sum() / 2, rtol=1e-5)  # slim.l2_regularizer halves


def test_preact_resnet_20_variable_names_are_frozen():
    with tf.Graph().as_default() as graph, slim.arg_scope(NETS["preact_resnet_20"].arg_scope()):
        NETS["preact_resnet_20"].function(tf.zeros([1, 32, 32, 3]), 10, is_training=False, scope="preact_resnet_20")
    golden = json.loads((GOLDEN / "preact_resnet_20_variables.json").read_text())
    assert {name: list(shape) for name, shape in shapes(graph).items()} == golden


PUBLISHED = {
    "alexnet_v2": (slim_alexnet.alexnet_v2, slim_alexnet.alexnet_v2_arg_scope),
    "vgg_11": (slim_vgg.vgg_a, slim_vgg.vgg_arg_scope),
    "vgg_16": (slim_vgg.vgg_16, slim_vgg.vgg_arg_scope),
    "vgg_19": (slim_vgg.vgg_19, slim_vgg.vgg_arg_scope),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_variables_are_tf_slims(name, graph):
    function, arg_scope = PUBLISHED[name]
    with slim.arg_scope(arg_scope()):
        function(tf.zeros([1, NETS[name].image_size, NETS[name].image_size, 3]), CLASSES, is_training=False)
    assert list(shapes(towers(name).graph).items()) == list(shapes(graph).items())


@pytest.mark.parametrize("name", ["alexnet_v2", "vgg_11"])
def test_initial_values_are_distributed_as_tf_slims(name, graph):
    function, arg_scope = PUBLISHED[name]
    with slim.arg_scope(arg_scope()):
        function(tf.zeros([1, 224, 224, 3]), CLASSES, is_training=False)
    values = []
    for built in towers(name).graph, graph:
        with tf.Session(graph=built) as session:  # fc6 and fc7 are as fc8, and large
            small = {v.op.name: v.initial_value for v in trained(built) if np.prod(v.shape.as_list()) < 5e6}
            values.append(session.run(small))
    for variable, expected in values[1].items():
        np.testing.assert_allclose(values[0][variable].std(), expected.std(), rtol=0.03, err_msg=variable)
        np.testing.assert_allclose(values[0][variable].mean(), expected.mean(), atol=0.01, err_msg=variable)


@pytest.mark.parametrize(("name", "size"), [("alexnet_v2", 224), ("alexnet_v2", 300), ("vgg_11", 224)])
def test_logits_equal_tf_slims_with_the_same_variables(name, size):
    function, arg_scope = PUBLISHED[name]
    inputs = tf.constant(np.random.default_rng(0).normal(0, 60, (1, size, size, 3)), tf.float32)
    with slim.arg_scope(NETS[name].arg_scope()):
        ours, _ = NETS[name].function(inputs, 5, is_training=False, scope=NETS[name].scope)
    with slim.arg_scope(arg_scope()), tf.variable_scope(tf.get_variable_scope(), reuse=True):
        theirs, _ = function(inputs, 5, is_training=False, spatial_squeeze=False)
    biases = [v for v in tf.global_variables() if v.op.name.endswith("biases")]
    randomized = [v.assign(tf.random.stateless_uniform(v.shape, [7, i], -1, 1)) for i, v in enumerate(biases)]
    assert theirs.shape.as_list()[1:3] == ([1, 1] if size == 224 else [4, 4])
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        session.run(randomized)
        ours, theirs = session.run([ours, tf.reduce_mean(theirs, [1, 2])])
    assert np.abs(theirs).min() > 0.01  # far from what the tolerance lets through
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


def test_alexnet_v2_takes_larger_pictures():
    net = NETS["alexnet_v2"]
    with slim.arg_scope(net.arg_scope()):
        logits, end_points = net.function(tf.zeros([3, 320, 256, 3]), 7, is_training=False, scope=net.scope)
    assert end_points["alexnet_v2/fc8"].shape.as_list() == [3, 4, 2, 7]
    assert logits.shape.as_list() == [3, 7]


@pytest.mark.parametrize("side", [3, 5])
def test_dense_conv2d_is_the_valid_convolution_of_its_variables(side, graph):
    inputs = tf.constant(np.random.default_rng(side).normal(size=(2, side, side, 4)), tf.float32)
    arguments = {"biases_initializer": tf.random_normal_initializer(), "scope": "fc", "outputs_collections": "outputs"}
    dense = dense_conv2d(inputs, 6, 3, **arguments)
    types = {op.type for op in graph.get_operations()}
    assert ("MatMul" in types, "Conv2D" in types) == (side == 3, side != 3)
    assert shapes(graph) == {"fc/weights": (3, 3, 4, 6), "fc/biases": (6,)}
    assert slim.utils.convert_collection_to_dict("outputs") == {"fc": dense}
    with tf.variable_scope(tf.get_variable_scope(), reuse=True):
        convolved = slim.conv2d(inputs, 6, 3, padding="VALID", **arguments)
    assert dense.shape.as_list() == convolved.shape.as_list() == [2, side - 2, side - 2, 6]
    got, expected = run([dense, convolved])
    assert 0 < (expected > 0).mean() < 1  # ReLU has cut something
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def convolution(inputs, weights, stride=1):
    """SAME, without biases, written out."""
    side = weights.shape[0]
    out = -(-inputs.shape[1] // stride)
    padding = max((out - 1) * stride + side - inputs.shape[1], 0)
    padded = np.pad(inputs, [(0, 0), *[(padding // 2, padding - padding // 2)] * 2, (0, 0)])
    rows = np.zeros((len(inputs), out, out, weights.shape[3]))
    for y in range(out):
        for x in range(out):
            patch = padded[:, y * stride : y * stride + side, x * stride : x * stride + side]
            rows[:, y, x] = np.tensordot(patch, weights, 3)
    return rows


@pytest.mark.parametrize(("stride", "bottleneck"), [(1, False), (2, False), (1, True), (2, True)])
def test_preact_unit_by_hand(stride, bottleneck):
    inputs = np.random.default_rng(0).normal(size=(1, 4, 4, 2))
    with slim.arg_scope(preact_resnet_arg_scope()), slim.arg_scope([slim.batch_norm], is_training=False):
        outputs = preact_unit(tf.constant(inputs, tf.float32), 2, stride, bottleneck, scope="unit")
    got, values = run([outputs, {v.op.name: v for v in tf.global_variables()}])
    weights = {name.split("/")[1]: value for name, value in values.items() if name.endswith("/weights")}
    projected = bottleneck or stride != 1
    assert set(weights) == {"conv1", "conv2"} | ({"conv3"} if bottleneck else set()) | (
        {"shortcut"} if projected else set()
    )

    def normalized_and_activated(net):
        return np.maximum(
            net / np.sqrt(1 + 1e-5), 0
        )  # moving mean 0 and variance 1, gamma 1 and beta 0, as initialised

    preact = normalized_and_activated(inputs)
    shortcut = convolution(preact, weights["shortcut"], stride) if projected else inputs
    residual = convolution(preact, weights["conv1"], 1 if bottleneck else stride)
    residual = convolution(normalized_and_activated(residual), weights["conv2"], stride if bottleneck else 1)
    if bottleneck:
        residual = convolution(normalized_and_activated(residual), weights["conv3"])
    np.testing.assert_allclose(got, shortcut + residual, rtol=1e-4, atol=1e-5)


def test_local_response_norm_has_the_constants_of_2012():
    inputs = np.random.default_rng(0).normal(0, 100, (2, 1, 1, 9))
    expected = np.empty_like(inputs)
    for i in range(9):  # §3.3: k = 2, n = 5, alpha = 1e-4, beta = 0.75
        energy = (inputs[..., max(0, i - 2) : i + 3] ** 2).sum(-1)
        expected[..., i] = inputs[..., i] / (2 + 1e-4 * energy) ** 0.75
    np.testing.assert_allclose(run(local_response_norm(tf.constant(inputs, tf.float32))), expected, rtol=1e-5)


def test_alexnet_mnist_normalizes_after_the_first_two_convolutions():
    types = [op.type for op in towers("alexnet_mnist").graph.get_operations() if not op.name.startswith("validation")]
    layers = [t for t in types if t in ("Conv2D", "LRN", "MaxPool")]
    assert layers == ["Conv2D", "LRN", "MaxPool"] * 2 + ["Conv2D"] * 3 + ["MaxPool"]
