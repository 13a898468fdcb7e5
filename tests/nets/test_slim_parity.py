"""Our nets and tf_slim's: equal variables, equal numbers, and checkpoints that work in both directions."""

import functools

import numpy as np
import pytest
from tf_slim.nets import alexnet, inception_v1, inception_v2, inception_v3, overfeat, resnet_v1, resnet_v2, vgg
from without_dropout import built

from nets import NETS
from tfcompat import slim, tf

THEIRS = {  # function, arg scope, arguments that turn dropout off
    "alexnet_v2": (alexnet.alexnet_v2, alexnet.alexnet_v2_arg_scope, {"dropout_keep_prob": 1.0}),
    "vgg_11": (vgg.vgg_a, vgg.vgg_arg_scope, {"dropout_keep_prob": 1.0}),
    "vgg_16": (vgg.vgg_16, vgg.vgg_arg_scope, {"dropout_keep_prob": 1.0}),
    "vgg_19": (vgg.vgg_19, vgg.vgg_arg_scope, {"dropout_keep_prob": 1.0}),
    "inception_v1": (inception_v1.inception_v1, inception_v1.inception_v1_arg_scope, {"dropout_keep_prob": 1.0}),
    "inception_v2": (inception_v2.inception_v2, inception_v2.inception_v2_arg_scope, {"dropout_keep_prob": 1.0}),
    "inception_v3": (inception_v3.inception_v3, inception_v3.inception_v3_arg_scope, {"dropout_keep_prob": 1.0}),
    "overfeat": (overfeat.overfeat, overfeat.overfeat_arg_scope, {"dropout_keep_prob": 1.0}),
    **{
        f"resnet_v1_{n}": (getattr(resnet_v1, f"resnet_v1_{n}"), resnet_v1.resnet_arg_scope, {}) for n in (50, 101, 152)
    },
    **{
        f"resnet_v2_{n}": (getattr(resnet_v2, f"resnet_v2_{n}"), resnet_v2.resnet_arg_scope, {}) for n in (50, 101, 152)
    },
}
# Size and number of the pictures: batch norm in training needs more than one value per channel.
VALUES = {
    "alexnet_v2": (224, 2),
    "vgg_11": (224, 1),
    "inception_v1": (224, 2),
    "resnet_v1_50": (97, 2),
    "resnet_v2_50": (97, 2),
    "inception_v2": (224, 2),
    "inception_v3": (299, 2),
    "overfeat": (231, 1),
}
CLASSES = 11


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as graph:
        tf.set_random_seed(0)
        yield graph


def their_logits(name, inputs, is_training, num_classes=CLASSES):
    function, arg_scope, no_dropout = THEIRS[name]
    with slim.arg_scope(arg_scope()):
        logits, _ = function(inputs, num_classes, is_training=is_training, **no_dropout)
    return tf.squeeze(logits, [1, 2]) if logits.shape.rank == 4 else logits


def our_logits(name, inputs, is_training):
    return built(name, inputs, CLASSES, is_training)[0]


@functools.cache
def their_graph(name):
    """tf_slim's net in evaluation mode. Do not change the result."""
    with tf.Graph().as_default() as graph:
        tf.set_random_seed(0)
        size = NETS[name].image_size
        their_logits(name, tf.placeholder(tf.float32, [1, size, size, 3]), is_training=False)
    return graph


DEEP = {
    "vgg_19",
    "inception_v2",
    "inception_v3",
    "overfeat",
    "resnet_v1_101",
    "resnet_v1_152",
    "resnet_v2_101",
    "resnet_v2_152",
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in DEEP else n for n in THEIRS])
def test_variables_are_tf_slims(name):
    variables = their_graph(name).get_collection(tf.GraphKeys.GLOBAL_VARIABLES)
    assert NETS[name].variable_shapes(CLASSES) == {v.op.name: v.shape.as_list() for v in variables}


@pytest.mark.parametrize("name", ["alexnet_v2", "vgg_11", "inception_v1", "resnet_v1_50", "resnet_v2_50"])
def test_initial_values_are_distributed_as_tf_slims(name):
    with tf.Graph().as_default() as ours:
        tf.set_random_seed(1)
        our_logits(name, tf.placeholder(tf.float32, [1, 224, 224, 3]), is_training=False)
    values = []
    for graph in ours, their_graph(name):
        variables = graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES)
        with tf.Session(graph=graph) as session:  # fc6 and fc7 are like fc8, but large
            small = {v.op.name: v.initial_value for v in variables if np.prod(v.shape.as_list()) < 5e6}
            values.append(session.run(small))
    for variable, expected in values[1].items():
        tolerance = 0.03 + 3 / np.sqrt(expected.size)
        np.testing.assert_allclose(values[0][variable].std(), expected.std(), rtol=tolerance, err_msg=variable)
        np.testing.assert_allclose(
            values[0][variable].mean(),
            expected.mean(),
            atol=expected.std() * 8 / np.sqrt(expected.size),
            err_msg=variable,
        )


class Session:
    """A net in its own graph, in evaluation mode, and in training mode with one update of batch norm."""

    def __init__(self, build, pictures):
        self.graph = tf.Graph()
        with self.graph.as_default():
            inputs = tf.constant(pictures)
            self.evaluated = build(inputs, is_training=False)
            with tf.variable_scope(tf.get_variable_scope(), reuse=True):
                self.trained = build(inputs, is_training=True)
            self.updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
            self.variables = {v.op.name: v for v in tf.global_variables()}
            self.savers = {
                form: tf.train.Saver(write_version=form) for form in (tf.train.SaverDef.V1, tf.train.SaverDef.V2)
            }
            self.session = tf.Session()

    def randomize(self):
        rng, fed = np.random.default_rng(0), {}
        for name, variable in self.variables.items():
            shape, kind = variable.shape.as_list(), name.rsplit("/", 1)[1]
            if kind == "weights":
                value = rng.standard_normal(shape, np.float32) * np.sqrt(2 / np.prod(shape[:-1]))
            elif kind in ("gamma", "moving_variance"):
                value = rng.uniform(0.5, 1.5, shape)
            else:
                value = rng.normal(0, 0.3, shape)
            fed[variable.initializer.inputs[1]] = value.astype(np.float32)
        self.session.run([variable.initializer for variable in self.variables.values()], fed)

    def save(self, path, form):
        return self.savers[form].save(self.session, str(path), write_meta_graph=False, write_state=False)

    def restore(self, path):
        self.savers[tf.train.SaverDef.V2].restore(self.session, path)  # reads both formats

    def numbers(self):
        """Logits in evaluation, logits in training, and the moving averages after the training step."""
        evaluated = self.session.run(self.evaluated)
        trained, _ = self.session.run([self.trained, self.updates])
        return evaluated, trained, self.session.run({n: v for n, v in self.variables.items() if "/moving_" in n})


def assert_equal(got, expected):
    """Within 1e-4 of the largest number."""
    assert np.std(expected) > 0.01 * np.abs(expected).max(), "the reference is constant"
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in DEEP else n for n in VALUES])
def test_checkpoints_and_numbers_both_ways(name, tmp_path):
    size, batch = VALUES[name]
    pictures = np.random.default_rng(1).normal(0, 1, (batch, size, size, 3)).astype(np.float32)
    theirs = Session(functools.partial(their_logits, name), pictures)
    ours = Session(functools.partial(our_logits, name), pictures)
    theirs.randomize()
    paths = {form: theirs.save(tmp_path / f"v{form}", form) for form in theirs.savers}
    assert (tmp_path / f"v{tf.train.SaverDef.V1}").is_file()  # the published format: one file
    expected = theirs.numbers()
    for path in paths.values():
        assert set(tf.train.NewCheckpointReader(path).get_variable_to_shape_map()) == set(ours.variables)
        ours.restore(path)
        evaluated, trained, averages = ours.numbers()
        assert_equal(evaluated, expected[0])
        assert_equal(trained, expected[1])
        assert set(averages) == set(expected[2])
        for variable, value in expected[2].items():
            np.testing.assert_allclose(averages[variable], value, rtol=1e-4, atol=1e-4, err_msg=variable)
    # And back: theirs restores our variables after the step.
    back = ours.save(tmp_path / "ours", tf.train.SaverDef.V2)
    theirs.restore(back)
    assert_equal(theirs.numbers()[0], ours.numbers()[0])


@pytest.mark.parametrize("size", [224, 300])
def test_alexnet_v2_equals_theirs_on_larger_pictures_too(size):
    pictures = np.random.default_rng(0).normal(0, 60, (1, size, size, 3)).astype(np.float32)
    ours = our_logits("alexnet_v2", pictures, is_training=False)
    function, arg_scope, _ = THEIRS["alexnet_v2"]
    with slim.arg_scope(arg_scope()), tf.variable_scope(tf.get_variable_scope(), reuse=True):
        theirs, _ = function(tf.constant(pictures), CLASSES, is_training=False, spatial_squeeze=False)
    biases = [v for v in tf.global_variables() if v.op.name.endswith("biases")]
    randomized = [v.assign(tf.random.stateless_uniform(v.shape, [7, i], -1, 1)) for i, v in enumerate(biases)]
    assert theirs.shape.as_list()[1:3] == ([1, 1] if size == 224 else [4, 4])
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        session.run(randomized)
        assert_equal(*session.run([ours, tf.reduce_mean(theirs, [1, 2])]))
