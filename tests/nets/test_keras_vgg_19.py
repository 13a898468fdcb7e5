"""VGG-19's logits equal Keras's: half a gigabyte of random weights, saved by Keras and imported."""

import subprocess
import sys

import numpy as np
import pytest

from nets import NETS
from nets.weights import import_keras
from tfcompat import tf

# Keras cannot run in a process where v2 behaviour is off. It takes BGR pictures, ours are RGB.
KERAS = """
import keras, numpy as np
model = keras.applications.VGG19(weights=None, classes=10, classifier_activation=None)
rng = np.random.default_rng(0)
for layer in model.layers:
    if layer.weights:
        kernel, bias = (variable.shape for variable in layer.weights)
        deviation = np.sqrt(2 / np.prod(kernel[:-1]))
        layer.set_weights([rng.normal(0, deviation, kernel), rng.normal(0, 0.3, bias)])
model.save_weights("vgg19.weights.h5")
np.save("logits.npy", model.predict(np.load("pictures.npy")[..., ::-1], verbose=0))
"""


@pytest.mark.slow
def test_logits_equal_keras(tmp_path):
    pictures = np.random.default_rng(1).normal(0, 60, (2, 224, 224, 3)).astype(np.float32)
    np.save(tmp_path / "pictures.npy", pictures)
    subprocess.run([sys.executable, "-c", KERAS], cwd=tmp_path, check=True, capture_output=True, timeout=300)
    assert import_keras(tmp_path / "vgg19.weights.h5", "vgg_19", tmp_path / "imported") == {}
    with tf.Graph().as_default(), tf.Session() as session:
        logits, _ = NETS["vgg_19"].build(tf.constant(pictures), 10, False, 0.0)
        tf.train.Saver().restore(session, str(tmp_path / "imported/model.ckpt-0"))
        ours = session.run(logits)
    theirs = np.load(tmp_path / "logits.npy")
    assert theirs.std() > 0.1 * np.abs(theirs).max()
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())
    for path in tmp_path.rglob("*"):  # pytest keeps the directories of its last three runs
        if path.is_file():
            path.unlink()
