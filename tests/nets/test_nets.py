"""Every registered net: shapes, exact parameter counts, names, and small results computed by hand."""

import functools
import json
import pathlib
from typing import NamedTuple

import numpy as np
import pytest

import errors
from nets import NETS, find
from nets.alexnet import grouped_conv2d
from nets.layers import dense_conv2d, local_response_norm
from nets.preact_elu import preact_elu_arg_scope, preact_elu_block
from nets.preact_resnet import preact_resnet_arg_scope, preact_unit
from nets.resnet import conv2d_same
from nets.resnet_keras import convolutional_block, resnet_keras_arg_scope
from nets.resnet_keras import identity_block as keras_identity_block
from nets.teaching import identity_block, pooled_block, teaching_arg_scope
from tfcompat import batch_norm, dropout, slim, tf

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
COUNTS = json.loads((GOLDEN / "parameter_counts.json").read_text())


def module(net):
    return getattr(net.function, "func", net.function).__module__


NAMES = [name for name, net in NETS.items() if module(net).startswith("nets.")]  # other tests register their own nets
# A deeper net differs from a shallower one of its family only by a number in a table, and is slow to build.
DEEP = {name for name in NAMES if name.endswith(("_101", "_152", "_200", "_34", "_169", "_201", "_56", "_110", "_164"))}
DEEP |= {"inception_v4", "inception_resnet_v2", "nasnet_mobile", "nasnet_large", "pnasnet_large"}
DEEP |= {f"mobilenet_v2_{width}" for width in ("140", "130", "075", "050")}
DEEP |= {"mobilenet_v3_small", "mobilenet_v3_large_minimalistic", "mobilenet_v3_small_minimalistic"}
SHALLOW_AND_DEEP = [pytest.param(name, marks=pytest.mark.slow) if name in DEEP else name for name in NAMES]
# Slow tests use one depth of each family.
ONE_OF_EACH = [
    *("alexnet_2012", "alexnet_half", "alexnet_mnist", "alexnet_v2", "vgg_11", "vgg_16_transfer"),
    *("inception_v1", "googlenet_2014", "resnet_v1_50", "resnet_v2_50", "resnet50_signs"),
    *("preact_resnet_20", "plain_20", "preact_elu", "mobilenet_v1_025", "lenet", "inception_strided", "residual_cnn"),
    *("inception_v2", "inception_v3", "mobilenet_v2_035", "mobilenet_v3_large", "pnasnet_mobile", "densenet_121"),
    *("resnet_v1_18", "resnet_v2_18", "overfeat", "cifarnet"),
]
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
    validation_updates: list  # added by the validation tower


@functools.cache
def towers(name):
    """The net, built twice on the same variables as in train.py: for training and validation. Do not change it."""
    net = NETS[name]
    with tf.Graph().as_default() as graph, slim.arg_scope(net.arg_scope(net.weight_decay or 1e-4)):
        inputs = tf.placeholder(tf.float32, [BATCH, net.image_size, net.image_size, net.channels])
        with slim.arg_scope([dropout], seed=tf.constant([0, 0])):
            logits, end_points = net.function(inputs, CLASSES, is_training=True, scope=net.scope)
        updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        with tf.name_scope("validation"), tf.variable_scope(tf.get_variable_scope(), reuse=True):
            validation_logits, _ = net.function(inputs, CLASSES, is_training=False, scope=net.scope)
        added = tf.get_collection(tf.GraphKeys.UPDATE_OPS)[len(updates) :]
    return Towers(graph, logits, validation_logits, end_points, updates, added)


@functools.cache
def all_shapes(name):
    if name in ONE_OF_EACH:  # built in any case
        return {n: list(shape) for n, shape in shapes(towers(name).graph).items()}
    return NETS[name].variable_shapes(CLASSES)


def shapes(graph):
    """Names and shapes of all variables, in the order of creation."""
    return {v.op.name: tuple(v.shape.as_list()) for v in graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES)}


def run(fetches):
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        return session.run(fetches)


def test_the_golden_counts_are_those_of_the_registered_nets():
    assert sorted(COUNTS) == sorted(NAMES)


def test_there_is_one_of_each_family():
    assert {module(NETS[name]) for name in ONE_OF_EACH} == {module(NETS[name]) for name in NAMES}


@pytest.mark.parametrize("name", SHALLOW_AND_DEEP)
def test_trainable_parameters_with_1000_classes(name):
    trained = {n: shape for n, shape in all_shapes(name).items() if "/moving_" not in n}
    assert sum(int(np.prod(shape)) for shape in trained.values()) == COUNTS[name]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("alexnet_2012", 60_965_224),  # Caffe's bvlc_alexnet; the paper says 60 million
        ("vgg_16", 138_357_544),  # arXiv:1409.1556, table 2, says 138 million
        ("vgg_19", 143_667_240),
        ("googlenet_2014", 13_378_280),  # Caffe's bvlc_googlenet, auxiliary heads included
        ("resnet_v1_50", 25_557_032),  # torchvision's resnet50, resnet101 and resnet152
        ("resnet_v1_101", 44_549_160),
        ("resnet_v1_152", 60_192_808),
        ("resnet50_keras", 25_583_592),  # keras.applications, trainable parameters; also below
        ("mobilenet_v1", 4_231_976),
        ("mobilenet_v1_075", 2_585_560),
        ("mobilenet_v1_050", 1_331_592),
        ("mobilenet_v1_025", 470_072),
        ("mobilenet_v2", 3_504_872),  # keras.applications and torchvision
        ("mobilenet_v3_large", 5_483_032),  # torchvision
        ("mobilenet_v3_small", 2_542_856),
        ("resnet_v1_18", 11_689_512),  # torchvision's resnet18 and resnet34
        ("resnet_v1_34", 21_797_672),
        ("densenet_121", 7_978_856),  # torchvision's
        ("densenet_169", 14_149_480),
        ("densenet_201", 20_013_928),
    ],
)
def test_published_counts(name, count):
    assert COUNTS[name] == count


def test_preact_elu_on_ten_classes():
    shapes = NETS["preact_elu"].variable_shapes(10)
    assert sum(int(np.prod(shape)) for name, shape in shapes.items() if "/moving_" not in name) == 377_482


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_logits_are_one_row_per_picture(name):
    built = towers(name)
    for logits in built.logits, built.validation_logits:
        assert logits.shape.as_list() == [BATCH, CLASSES]
        assert logits.dtype == tf.float32
    assert built.end_points, "no end points"
    assert all(key.startswith(NETS[name].prefix) for key in built.end_points)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_smallest_size_is_the_smallest(name):
    net = NETS[name]

    def build(size):
        with tf.Graph().as_default(), slim.arg_scope(net.arg_scope(0.0)):
            inputs = tf.placeholder(tf.float32, [1, size, size, net.channels])
            return net.function(inputs, 5, is_training=False, scope=net.scope)[0].shape.as_list()

    assert build(net.smallest_size) == [1, 5]
    if net.smallest_size > 1:
        with pytest.raises(ValueError, match="Negative dimension"):
            build(net.smallest_size - 1)
        inputs = tf.zeros([1, net.image_size, net.smallest_size - 1, net.channels])
        with pytest.raises(errors.UserError, match=f"at least {net.smallest_size}"):
            net.build(inputs, 5, False, 0.0)


@pytest.mark.parametrize("name", SHALLOW_AND_DEEP)
def test_any_size_is_true_if_the_shapes_do_not_depend_on_the_picture_size(name):
    net = NETS[name]
    assert (net.variable_shapes(CLASSES, 2 * net.image_size) == all_shapes(name)) == net.any_size


def test_find():
    assert find("vgg_16") is NETS["vgg_16"]
    with pytest.raises(errors.UserError, match="unknown net 'vgg16': did you mean vgg_16"):
        find("vgg16")


@pytest.mark.parametrize("name", SHALLOW_AND_DEEP)
def test_new_scopes_hold_exactly_what_depends_on_the_number_of_classes(name):
    in_new_scopes = {n for n in all_shapes(name) if n.startswith(NETS[name].new_scopes)}
    wanted = {n for n, shape in all_shapes(name).items() if shape[-1] == CLASSES}
    if name == "vgg_16_transfer":  # its hidden dense layers are new too
        wanted |= {f"vgg_16/fc{i}/{kind}" for i in (6, 7) for kind in ("weights", "biases")}
    assert in_new_scopes == wanted != set()


@pytest.mark.parametrize("name", SHALLOW_AND_DEEP)
def test_the_logits_come_from_the_first_of_the_new_scopes(name):
    heads = [n for n in all_shapes(name) if n.startswith(NETS[name].new_scopes[0]) and n.endswith("/weights")]
    assert len(heads) == 1


def variables_read(tensor):
    """Names of the variables that a tensor depends on."""
    found, seen, pending = [], set(), [tensor.op]
    while pending:
        op = pending.pop()
        if op not in seen:
            seen.add(op)
            pending += [i.op for i in op.inputs]
            if op.type == "VarHandleOp":
                found.append(op.name)
    return found


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_each_weight_is_regularized_once_however_many_towers_there_are(name):
    graph = towers(name).graph
    losses = graph.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
    regularized = sorted(n for loss in losses for n in variables_read(loss))
    kinds = ("/weights",)
    if "nasnet" in name:  # as in TF-Slim, which regularizes both parts of a separable convolution
        kinds = ("/weights", "/depthwise_weights", "/pointwise_weights")
    expected = {n for n in shapes(graph) if n.endswith(kinds)}
    if name == "cifarnet":
        expected = {"CifarNet/fc3/weights", "CifarNet/fc4/weights"}
    assert regularized == sorted(expected)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_only_the_training_tower_updates_moving_averages(name):
    built = towers(name)
    assert len(built.updates) == sum("/moving_" in n for n in shapes(built.graph))
    assert built.validation_updates == []


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_weight_decay_is_that_of_the_arg_scope(name):
    with slim.arg_scope(NETS[name].arg_scope(0.5)):
        if name == "cifarnet":  # as in TF-Slim, only dense layers
            slim.fully_connected(tf.ones([1, 2]), 3)
        else:
            slim.conv2d(tf.ones([1, 2, 2, 1]), 3, 1)
    value, loss = run([tf.trainable_variables()[0], tf.losses.get_regularization_loss()])
    np.testing.assert_allclose(loss, 0.5 * (value**2).sum() / 2, rtol=1e-5)  # slim.l2_regularizer divides by 2


def test_preact_resnet_20_variable_names_are_frozen():
    golden = json.loads((GOLDEN / "preact_resnet_20_variables.json").read_text())
    assert NETS["preact_resnet_20"].variable_shapes(10) == golden


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
    assert 0 < (expected > 0).mean() < 1  # some values are zero after ReLU
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def convolution(inputs, weights, stride=1, biases=0.0):
    """A SAME convolution in NumPy."""
    side = weights.shape[0]
    out = -(-inputs.shape[1] // stride)
    padding = max((out - 1) * stride + side - inputs.shape[1], 0)
    padded = np.pad(inputs, [(0, 0), *[(padding // 2, padding - padding // 2)] * 2, (0, 0)])
    rows = np.zeros((len(inputs), out, out, weights.shape[3]))
    for y in range(out):
        for x in range(out):
            patch = padded[:, y * stride : y * stride + side, x * stride : x * stride + side]
            rows[:, y, x] = np.tensordot(patch, weights, 3)
    return rows + biases


def max_pool(inputs):
    """A 2×2 max pool with stride 2, for even sizes."""
    n, height, width, channels = inputs.shape
    return inputs.reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))


def built(arg_scope, block):
    """A block's output for a 4×4×2 picture, and its random variables, by names without the scope."""
    inputs = np.random.default_rng(0).normal(size=(1, 4, 4, 2))
    with slim.arg_scope(arg_scope), slim.arg_scope([batch_norm], is_training=False):
        outputs = block(tf.constant(inputs, tf.float32))
    random = [
        v.assign(tf.random.stateless_uniform(v.shape, [1, i], 0.5, 1.5) * (1.0 if "moving_var" in v.op.name else 0.7))
        for i, v in enumerate(tf.global_variables())
    ]
    signs = [v.assign_sub(tf.ones(v.shape) * 0.6) for v in tf.global_variables() if "moving_var" not in v.op.name]
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        session.run(random)
        session.run(signs)
        got, values = session.run([outputs, {v.op.name.split("/", 1)[1]: v for v in tf.global_variables()}])
    return inputs, got, values


def named(block, *args):
    """Calls the block with these arguments in a variable scope."""

    def call(inputs):
        with tf.variable_scope("block"):
            return block(inputs, *args)

    return call


def elu(net):
    return np.where(net > 0, net, np.expm1(net))


def normalized(net, values, name, epsilon):
    scale = values.get(f"{name}/gamma", 1.0) / np.sqrt(values[f"{name}/moving_variance"] + epsilon)
    return (net - values[f"{name}/moving_mean"]) * scale + values[f"{name}/beta"]


def test_preact_elu_block_by_hand():
    inputs, got, values = built(preact_elu_arg_scope(), lambda x: preact_elu_block(x, 3, scope="block"))
    net = inputs
    for i in "12":
        net = elu(normalized(net, values, f"norm{i}", 1e-5))
        net = convolution(net, values[f"conv{i}/weights"], 1, values[f"conv{i}/biases"])
    assert not any("gamma" in name for name in values)
    np.testing.assert_allclose(got, net + inputs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [0, 1, 2])
def test_keras_blocks_by_hand(stride):
    if stride:
        block = named(convolutional_block, 3, stride, "2a")
    else:  # the output must be as wide as the input: 4 · ½ = 2
        block = named(lambda x: keras_identity_block(tf.concat([x, -x], 3), 1, "2a"))
    inputs, got, values = built(resnet_keras_arg_scope(), block)
    net = inputs = inputs if stride else np.concatenate([inputs, -inputs], 3)
    for branch in ("2a", "2b", "2c"):
        layer_stride = max(stride, 1) if branch == "2a" else 1  # this layout has the stride in the first 1×1
        weights, biases = (values[f"res2a_branch{branch}/{kind}"] for kind in ("weights", "biases"))
        net = normalized(convolution(net, weights, layer_stride, biases), values, f"bn2a_branch{branch}", 1e-3)
        net = net if branch == "2c" else np.maximum(net, 0)
    shortcut = inputs
    if stride:
        shortcut = convolution(inputs, values["res2a_branch1/weights"], stride, values["res2a_branch1/biases"])
        shortcut = normalized(shortcut, values, "bn2a_branch1", 1e-3)
    np.testing.assert_allclose(got, np.maximum(net + shortcut, 0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("residual", [True, False])
def test_pooled_block_by_hand(residual):
    inputs, got, values = built(teaching_arg_scope(), lambda x: pooled_block(x, 3, residual, scope="block"))
    net = inputs
    for i in "12":
        weights, biases = (values[f"conv/conv_{i}/{kind}"] for kind in ("weights", "biases"))
        net = np.maximum(convolution(net, weights, 1, biases), 0)
    net = max_pool(net)
    assert ("shortcut/weights" in values) == residual
    if residual:  # linear: negative values are kept
        net = net + convolution(inputs, values["shortcut/weights"], 2, values["shortcut/biases"])
        assert net.min() < 0
    np.testing.assert_allclose(got, net, rtol=1e-4, atol=1e-4)


def test_identity_block_by_hand():
    inputs, got, values = built(teaching_arg_scope(), lambda x: identity_block(x, scope="block"))
    net = inputs
    for name in ("conv/conv_1", "conv/conv_2", "conv3"):
        net = convolution(net, values[f"{name}/weights"], 1, values[f"{name}/biases"])
        net = net if name == "conv3" else np.maximum(net, 0)
    np.testing.assert_allclose(got, np.maximum(net + inputs, 0), rtol=1e-4, atol=1e-4)


def test_groups_see_their_own_channels():
    with slim.arg_scope([grouped_conv2d], weights_initializer=tf.random_normal_initializer()):
        inputs = tf.constant(np.random.default_rng(0).normal(size=(1, 4, 4, 6)), tf.float32)
        biases = tf.random_normal_initializer()
        net = grouped_conv2d(inputs, 4, 3, 2, biases_initializer=biases, scope="conv2")
    assert shapes(tf.get_default_graph()) == {"conv2/weights": (3, 3, 3, 4), "conv2/biases": (4,)}
    got, inputs, weights, biases = run([net, inputs, *tf.global_variables()])
    halves = [convolution(inputs[..., h * 3 : h * 3 + 3], weights[..., h * 2 : h * 2 + 2]) for h in (0, 1)]
    np.testing.assert_allclose(got, np.maximum(np.concatenate(halves, 3) + biases, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [4, 5])
def test_conv2d_same_is_the_unstrided_output_subsampled(size):
    inputs = tf.constant(np.random.default_rng(0).normal(size=(1, size, size, 2)), tf.float32)
    with slim.arg_scope([slim.conv2d], activation_fn=None):
        strided = conv2d_same(inputs, 3, 3, 2, scope="conv")
        with tf.variable_scope(tf.get_variable_scope(), reuse=True):
            unstrided = slim.conv2d(inputs, 3, 3, scope="conv")
    got, expected = run([strided, unstrided[:, ::2, ::2]])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def operations(name, *types):
    """The types of the training tower's operations that are among `types`, in the order of creation."""
    ops = [op.type for op in towers(name).graph.get_operations() if not op.name.startswith("validation")]
    return [t for t in ops if t in types]


def test_googlenet_2014_is_as_in_the_paper():
    net, end_points = NETS["googlenet_2014"], towers("googlenet_2014").end_points
    assert operations("googlenet_2014", "LRN", "Conv2D", "MaxPool")[:7] == [
        *("Conv2D", "MaxPool", "LRN", "Conv2D", "Conv2D", "LRN", "MaxPool")
    ]
    for head in net.auxiliary:
        assert end_points[f"{net.scope}/{head}"].shape.as_list() == [BATCH, CLASSES]
    assert end_points["googlenet_2014/aux_4a/pool"].shape.as_list() == [BATCH, 4, 4, 512]
    assert end_points["googlenet_2014/aux_4d/pool"].shape.as_list() == [BATCH, 4, 4, 528]
    assert end_points["googlenet_2014/Mixed_5c"].shape.as_list() == [BATCH, 7, 7, 1024]
    shapes = all_shapes("googlenet_2014")
    assert shapes["googlenet_2014/Mixed_3b/Branch_2/Conv2d_0b_5x5/weights"] == [5, 5, 16, 32]
    assert shapes["googlenet_2014/aux_4a/fc/weights"] == [4, 4, 128, 1024]


def test_the_plain_nets_lack_nothing_but_shortcuts():
    plain, residual = (
        {n.split("/", 1)[1]: shape for n, shape in all_shapes(f"{kind}_56").items()}
        for kind in ("plain", "preact_resnet")
    )
    assert {n: s for n, s in residual.items() if "/shortcut/" not in n} == plain

    def additions(name):
        ops = towers(name).graph.get_operations()
        return sum(op.type == "AddV2" and "Initializer" not in op.name for op in ops)

    assert additions("preact_resnet_20") - additions("plain_20") == 2 * 9  # one per unit, in both towers


@pytest.mark.parametrize(("stride", "bottleneck"), [(1, False), (2, False), (1, True), (2, True)])
def test_preact_unit_by_hand(stride, bottleneck):
    inputs = np.random.default_rng(0).normal(size=(1, 4, 4, 2))
    with slim.arg_scope(preact_resnet_arg_scope()), slim.arg_scope([batch_norm], is_training=False):
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


@pytest.mark.parametrize("name", ["alexnet_2012", "alexnet_mnist"])
def test_alexnet_normalizes_after_the_first_two_convolutions(name):
    layers = operations(name, "Conv2D", "LRN", "MaxPool")
    assert layers == ["Conv2D", "LRN", "MaxPool"] * 2 + ["Conv2D"] * 3 + ["MaxPool"]


def test_dropout_stands_before_the_dense_layers_of_alexnet_half():
    order = [name.split("/")[1] for name in towers("alexnet_half").end_points]
    assert order[-5:] == ["dropout6", "fc6", "dropout7", "fc7", "fc8"]
    order = [name.split("/")[1] for name in towers("alexnet_2012").end_points]
    assert order[-5:] == ["fc6", "dropout6", "fc7", "dropout7", "fc8"]
