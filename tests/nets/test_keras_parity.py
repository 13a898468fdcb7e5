"""Ours compute what keras.applications computes with the same weights, in evaluation and in training, and go back."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from without_dropout import built

from nets import mobilenet
from nets.weights import export_keras, import_keras
from nets.weights.keras_files import read_weights
from nets.weights.keras_models import MODELS
from tfcompat import tf

CLASSES, BATCH = 7, 4
# Net to side of the picture, of the nets that no other test compares with Keras. Small sides: Keras's NASNet is built
# for one size, whose auxiliary head ours has.
SIDES = {
    "mobilenet_v2_035": 97,
    "mobilenet_v2_140": 64,
    "mobilenet_v3_small": 96,
    "mobilenet_v3_large": 96,
    "mobilenet_v3_small_075": 96,
    "mobilenet_v3_large_075": 64,
    "mobilenet_v3_small_minimalistic": 96,
    "mobilenet_v3_large_minimalistic": 65,
    "densenet_121": 64,
    "densenet_169": 64,
    "densenet_201": 64,
    "resnet_v2_50": 64,
    "resnet_v2_101": 64,
    "resnet_v2_152": 64,
    "inception_v3": 299,
    "inception_resnet_v2": 299,
    "nasnet_mobile": 224,
}
# In its own process: tfcompat switches off the TensorFlow behaviour that Keras needs. Where Keras pads
# otherwise than TF-Slim, it also computes with TF-Slim's padding: this must be all that differs.
KERAS = """
import json, sys, zlib
import numpy as np
import keras

def values_of(variable, layer):
    part, shape = variable.name, variable.shape
    rng = np.random.default_rng(zlib.crc32(f"{layer}/{part}".encode()))
    if part in ("gamma", "moving_variance"):
        return rng.uniform(0.7, 1.3, shape)
    # Where most of a map is positive, rounding grows less in training mode: else by a fifth each batch norm. Gates
    # would multiply such maps until their sums cancel.
    if part == "beta" and not application.startswith("MobileNetV3"):
        return rng.normal(1, 0.3, shape)
    if not part.endswith("kernel"):
        return rng.normal(0, 0.1, shape)
    depthwise = part == "depthwise_kernel" or "depthwise" in layer
    return rng.normal(0, np.sqrt(2 / np.prod(shape[:2] if depthwise else shape[:-1])), shape)

def as_in_slim(layer):
    if layer.name == "pool1_pad" or layer.name.startswith("reduction_pad_1"):
        return keras.layers.Activation("linear", name=layer.name)
    if layer.name.startswith(("pool1_pool", "reduction_left2", "reduction_right5")):
        return keras.layers.MaxPooling2D(3, 2, padding="same", name=layer.name)
    if layer.name.startswith("reduction_left3"):
        return keras.layers.AveragePooling2D(3, 2, padding="same", name=layer.name)
    return type(layer).from_config(layer.get_config())

name, application, side, classes, options, pads_otherwise = json.loads(sys.argv[1])
if application.startswith("MobileNetV3"):
    options |= {"dropout_rate": 0.0, "include_preprocessing": False}
model = getattr(keras.applications, application)(
    weights=None, input_shape=(side, side, 3), classes=classes, classifier_activation=None, **options)
for layer in model.layers:
    layer.set_weights([values_of(variable, layer.name) for variable in layer.weights])
model.save_weights(f"{name}.weights.h5")
picture = np.load("pictures.npy")
outputs = {"theirs": model(picture, training=False)}
if pads_otherwise:
    weights = model.get_weights()
    model = keras.models.clone_model(model, clone_function=as_in_slim)
    model.set_weights(weights)
outputs |= {"evaluation": model(picture, training=False), "training": model(picture, training=True)}
np.savez("logits.npz", **outputs)
"""


def logits_of(name, prefix, pictures):
    """Our logits with an imported checkpoint, in evaluation and in training."""
    outputs = {}
    for mode in ("evaluation", "training"):
        with tf.Graph().as_default(), tf.Session() as session:
            logits, _ = built(name, tf.constant(pictures), CLASSES, mode == "training")
            held = {variable for variable, _ in tf.train.list_variables(prefix)}
            variables = tf.global_variables()
            absent = [v for v in variables if v.op.name not in held]
            assert all("aux" in v.op.name.lower() for v in absent)
            session.run(tf.variables_initializer(absent))
            tf.train.Saver([v for v in variables if v.op.name in held]).restore(session, prefix)
            outputs[mode] = session.run(logits)
    return outputs


@pytest.mark.slow
@pytest.mark.parametrize("name", SIDES)
def test_logits_are_keras_s(tmp_path, monkeypatch, name):
    """Within 1e-4 of the largest. Where Keras computes otherwise, its own logits differ, and the import says so."""
    side, model = SIDES[name], MODELS[name]
    pictures = np.random.default_rng(1).normal(0, 1, (BATCH, side, side, 3)).astype(np.float32)
    np.save(tmp_path / "pictures.npy", pictures)
    request = [name, model.application, side, CLASSES, dict(model.options), name.startswith(("resnet", "nasnet"))]
    command = [sys.executable, "-c", KERAS, json.dumps(request)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    file = tmp_path / f"{name}.weights.h5"
    assert import_keras(file, name, tmp_path / "imported") == {}
    prefix = str(tmp_path / "imported/model.ckpt-0")
    as_published, theirs = logits_of(name, prefix, pictures)["evaluation"], np.load(tmp_path / "logits.npz")
    monkeypatch.setattr(mobilenet, "GATE_SLOPE", 1 / 6)
    ours = logits_of(name, prefix, pictures)
    for mode, got in ours.items():
        expected = theirs[mode]
        assert expected.std() > 0.01 * np.abs(expected).max()
        largest = np.abs(expected).max()
        print(name, mode, f"{np.abs(got - expected).max() / largest:.1e} of the largest")
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * largest, err_msg=mode)
    apart = np.abs(as_published - theirs["theirs"]).max() / np.abs(theirs["theirs"]).max()
    print(name, f"Keras's own evaluation: {apart:.1e}")
    assert (apart > 1e-4) == bool(model.differs)
    call = export_keras(prefix, name, str(tmp_path / "again.weights.h5"))
    assert call.startswith(f"keras.applications.{model.application}(weights=None, ")
    came, went = read_weights(file), read_weights(tmp_path / "again.weights.h5")
    assert came.keys() == went.keys()
    assert all(np.array_equal(a, b) for layer in came for a, b in zip(came[layer], went[layer], strict=True))
    for path in pathlib.Path(tmp_path).rglob("*"):  # pytest keeps the directories of its last three runs
        if path.is_file():
            path.unlink()
