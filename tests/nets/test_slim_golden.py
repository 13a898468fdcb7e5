"""Ours have the variables and outputs of TF-Slim's own nets, which golden/slim_reference.py lists from its source."""

import functools
import gzip
import importlib.util
import json
import pathlib

import numpy as np
import pytest
from without_dropout import built

from nets import NETS
from tfcompat import tf

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
SHAPES = json.loads(gzip.decompress((GOLDEN / "slim_variables.json.gz").read_bytes()))
OUTPUTS = json.loads((GOLDEN / "slim_outputs.json").read_text())
DEEP = {"inception_v4", "inception_resnet_v2", "resnet_v1_200", "resnet_v2_200", "nasnet_large", "pnasnet_large"}
DEEP |= {"overfeat", "nasnet_mobile", "pnasnet_mobile", "mobilenet_v2_035", "mobilenet_v3_large_minimalistic"}
DEEP |= {"mobilenet_v3_large_075", "mobilenet_v3_small_075"}
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in DEEP else name for name in SHAPES]


@functools.cache
def reference():
    """The script's functions, without running it."""
    spec = importlib.util.spec_from_file_location("slim_reference", GOLDEN / "slim_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_variables_are_tf_slims(name):
    assert NETS[name].variable_shapes(1001) == SHAPES[name]


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_tf_slims(name):
    """Within 1e-4 of the largest, in evaluation and in training, of all heads."""
    net, drawn = NETS[name], reference()
    inputs = drawn.pictures(drawn.SIZES[name])
    for mode in ("evaluation", "training"):
        with tf.Graph().as_default(), tf.Session() as session:
            logits, end_points = built(name, tf.constant(inputs), drawn.CLASSES, mode == "training")
            variables = tf.global_variables()
            values = {v.initializer.inputs[1]: drawn.value(v.op.name, v.shape.as_list()) for v in variables}
            session.run([v.initializer for v in variables], values)
            heads = {
                "logits": logits,
                **({"auxiliary": end_points[net.prefix + net.auxiliary[0]]} if net.auxiliary else {}),
            }
            got = session.run(heads)
        expected = {key.split(",")[0]: value for key, value in OUTPUTS[name].items() if key.endswith(mode)}
        assert expected  # TF-Slim's NASNet has its auxiliary head in training only
        for head, value in expected.items():
            np.testing.assert_allclose(
                got[head], value, atol=1e-4 * np.abs(value).max(), rtol=0, err_msg=f"{mode} {head}"
            )


def test_every_listed_net_is_compared():
    assert set(OUTPUTS) == set(SHAPES) == set(reference().SIZES)
