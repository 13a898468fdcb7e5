"""Writes the golden files of tests/nets/test_slim_golden.py from TF-Slim's own nets. It needs their source:

    git clone https://github.com/tensorflow/models      # research/slim, of 2020 or later
    cd models/research/slim && python -m tfcompat …/tests/golden/slim_reference.py …/tests/golden [NAME …]

slim_variables.json.gz has the names and shapes of the variables of each net with 1,001 classes. slim_outputs.json has
the logits of two pictures for 11 classes, with variables drawn by their names (`value`), in evaluation and in training
mode without dropout.
"""

import contextlib
import gzip
import json
import pathlib
import sys
import types
import zlib

import numpy as np
import tensorflow as tf

SIZES = {"cifarnet": 32, "overfeat": 231, "inception_v2": 224, "inception_v3": 299, "inception_v4": 299}
SIZES |= {"inception_resnet_v2": 299, "resnet_v1_200": 65, "resnet_v2_200": 65, "mobilenet_v2": 96}
SIZES |= {"mobilenet_v2_140": 96, "mobilenet_v2_035": 96, "mobilenet_v3_large": 96, "mobilenet_v3_small": 96}
SIZES |= {"mobilenet_v3_large_075": 96, "mobilenet_v3_small_075": 96}  # TF-Slim's factory has no names for these
SIZES |= {"mobilenet_v3_large_minimalistic": 96, "mobilenet_v3_small_minimalistic": 96}
SIZES |= {"nasnet_mobile": 224, "nasnet_large": 331, "pnasnet_mobile": 224, "pnasnet_large": 331}
CLASSES = 11


def pictures(size: int) -> np.ndarray:
    """Two random pictures, float32 [2, size, size, 3]."""
    return np.random.default_rng(0).normal(0, 1, (2, size, size, 3)).astype(np.float32)


def value(name: str, shape: list[int]) -> np.ndarray:
    """The value of a variable, float32, a function of its name: kernels by He's deviation, scales near 1."""
    random, kind = np.random.default_rng(zlib.crc32(name.encode())), name.rsplit("/", 1)[1]
    if kind.endswith("weights"):
        fan_in = np.prod(shape[:2]) if kind == "depthwise_weights" else np.prod(shape[:-1])
        return (random.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)
    if kind in ("gamma", "moving_variance"):
        return random.uniform(0.8, 1.2, shape).astype(np.float32)
    return (random.standard_normal(shape) * 0.1).astype(np.float32)


class HParams(types.SimpleNamespace):
    """tf.contrib.training.HParams, as far as NASNet uses it."""

    def set_hparam(self, name: str, new: object) -> None:
        """Sets a value."""
        setattr(self, name, new)


def build(factory: types.ModuleType, name: str, inputs: tf.Tensor, classes: int, training: bool) -> tuple:
    """TF-Slim's net without dropout and drop path: logits and end points."""
    narrow = name.startswith("mobilenet_v3") and name.endswith("_075")
    options = {"depth_multiplier": 0.75, "finegrain_classification_mode": True} if narrow else {}
    name = name.removesuffix("_075") if narrow else name
    function, scope = factory.networks_map[name], factory.arg_scopes_map[name]
    if name.startswith("mobilenet"):
        arg_scope = scope(is_training=training, dropout_keep_prob=1.0)
    else:
        arg_scope = scope()
        if "nasnet" in name:
            from nets.nasnet import nasnet, pnasnet

            module = pnasnet if name.startswith("p") else nasnet
            config = getattr(module, f"{name.rsplit('_', 1)[1]}_imagenet_config")()
            config.dense_dropout_keep_prob = config.drop_path_keep_prob = 1.0
            options["config"] = config
        elif not name.startswith("resnet"):
            options["dropout_keep_prob"] = 1.0
    with tf.contrib.slim.arg_scope(arg_scope):
        return function(inputs, classes, is_training=training, **options)


def outputs(factory: types.ModuleType, name: str) -> dict[str, list]:
    """Logits [2, 11] by head and mode."""
    found = {}
    for training in (False, True):
        with tf.Graph().as_default(), tf.Session() as session:
            logits, end_points = build(factory, name, tf.constant(pictures(SIZES[name])), CLASSES, training)
            variables = [each for each in tf.global_variables() if each.dtype.base_dtype == tf.float32]
            values = {v.initializer.inputs[1]: value(v.op.name, v.shape.as_list()) for v in variables}
            session.run([v.initializer for v in variables], values)
            heads = {"logits": logits, **({"auxiliary": end_points["AuxLogits"]} if "AuxLogits" in end_points else {})}
            for head, result in session.run(heads).items():
                key = f"{head}, {'training' if training else 'evaluation'}"
                found[key] = [[float(f"{x:.8g}") for x in row] for row in result.reshape(2, -1)]
    return found


def main() -> None:
    """The command line."""
    directory, names = pathlib.Path(sys.argv[1]), sys.argv[2:] or list(SIZES)
    sys.path.insert(0, "")
    with contextlib.suppress(AttributeError):
        tf.contrib.training.HParams = HParams
    from nets import nets_factory

    shapes, logits = {}, {}
    for name in names:
        with tf.Graph().as_default():
            known = name if name in nets_factory.networks_map else name.removesuffix("_075")
            size = nets_factory.networks_map[known].default_image_size
            build(nets_factory, name, tf.placeholder(tf.float32, [2, size, size, 3]), 1001, training=True)
            shapes[name] = {v.op.name: v.shape.as_list() for v in tf.contrib.slim.get_model_variables()}
        logits[name] = outputs(nets_factory, name)
        print(name, len(shapes[name]), "variables", flush=True)
    text = json.dumps(shapes, separators=(",", ":")).encode()
    (directory / "slim_variables.json.gz").write_bytes(gzip.compress(text, mtime=0))
    (directory / "slim_outputs.json").write_text(json.dumps(logits, indent=0) + "\n")


if __name__ == "__main__":
    main()
