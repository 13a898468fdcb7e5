"""Weights of keras.applications: read from Keras's files into our variables, and written for Keras.

    values, unused = to_slim(keras_reading.read_weights("vgg16.weights.h5"), "vgg_16")
    write_weights(to_keras(values, "vgg_16"), "vgg_16", "mine.weights.h5")

A layer of Keras is the list of its arrays in Keras's own order: kernel, bias, or gamma, beta, moving mean, moving
variance. The order counts, since files of different ages call the same array kernel:0, W_1:0 or 0. Keras's VGG and
ResNet-50 take BGR pictures, as the Caffe models did, ours RGB: the first convolution's input channels are reversed.
"""

import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from errors import UserError, unknown
from nets import NETS, mobilenet_v1, resnet_keras, vgg
from nets.weights.keras_reading import Layers

# Variables of a layer, in the order of Keras's arrays, by the Keras class as the files spell it.
PARTS = {
    "conv2d": ("weights", "biases"),
    "dense": ("weights", "biases"),
    "depthwise_conv2d": ("depthwise_weights",),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}


class _Layer(NamedTuple):
    """A row of a model's table: what Keras and we call a layer."""

    kind: str  # key of PARTS
    scope: str  # under the net's scope; {classes} is filled in
    name: str  # in Keras since 2.3
    old_name: str  # before
    in_head: bool = False


class _Model(NamedTuple):
    application: str  # in keras.applications
    layers: list[_Layer]  # in the order of Keras's model.layers
    bgr: bool  # takes BGR pictures
    width: float | None = None  # of MobileNet


def _vgg_layers(depth: int) -> Iterator[_Layer]:
    for block, convolutions in enumerate(vgg.CONVOLUTIONS[depth], start=1):
        for i in range(1, convolutions + 1):
            yield _Layer("conv2d", f"conv{block}/conv{block}_{i}", *[f"block{block}_conv{i}"] * 2)
    for scope, name in (("fc6", "fc1"), ("fc7", "fc2"), ("fc8", "predictions")):
        yield _Layer("dense", scope, name, name, in_head=True)


def _resnet_layers() -> Iterator[_Layer]:
    yield _Layer("conv2d", "conv1", "conv1_conv", "conv1")
    yield _Layer("batch_normalization", "bn_conv1", "conv1_bn", "bn_conv1")
    for stage, units in enumerate(resnet_keras.UNITS, start=2):
        for unit, letter in enumerate("abcdef"[:units], start=1):
            branches = ((1, "2a"), (2, "2b"), *([(0, "1")] if unit == 1 else []), (3, "2c"))
            for kind, ours, theirs in (("conv2d", "res", "conv"), ("batch_normalization", "bn", "bn")):
                for number, branch in branches:
                    old_name = f"{ours}{stage}{letter}_branch{branch}"
                    yield _Layer(kind, old_name, f"conv{stage}_block{unit}_{number}_{theirs}", old_name)
    yield _Layer("dense", "fc{classes}", "predictions", "fc1000", in_head=True)


def _mobilenet_layers() -> Iterator[_Layer]:
    rows = [("conv2d", "Conv2d_0", "conv1")]
    for i in range(1, len(mobilenet_v1.ROWS) + 1):
        rows += [("depthwise_conv2d", f"Conv2d_{i}_depthwise", f"conv_dw_{i}")]
        rows += [("conv2d", f"Conv2d_{i}_pointwise", f"conv_pw_{i}")]
    for kind, scope, name in rows:
        yield _Layer(kind, scope, name, name)
        yield _Layer("batch_normalization", f"{scope}/BatchNorm", f"{name}_bn", f"{name}_bn")
    yield _Layer("conv2d", "Logits/Conv2d_1c_1x1", "conv_preds", "conv_preds", in_head=True)


MODELS = {
    "vgg_16": _Model("VGG16", list(_vgg_layers(16)), bgr=True),
    "vgg_19": _Model("VGG19", list(_vgg_layers(19)), bgr=True),
    "resnet50_keras": _Model("ResNet50", list(_resnet_layers()), bgr=True),
    **{
        f"mobilenet_v1{suffix}": _Model("MobileNet", list(_mobilenet_layers()), bgr=False, width=width)
        for suffix, width in (("", 1.0), ("_075", 0.75), ("_050", 0.5), ("_025", 0.25))
    },
}


def _model(net_name: str) -> _Model:
    if net_name not in MODELS:
        raise unknown("net with weights in Keras's files", net_name, MODELS)
    return MODELS[net_name]


class _Variable(NamedTuple):
    name: str
    shape: list[int]
    keras_shape: list[int]


def _variables(net_name: str, num_classes: int) -> dict[_Layer, list[_Variable]]:
    shapes, scope = NETS[net_name].variable_shapes(num_classes), NETS[net_name].scope
    variables = {layer: [] for layer in MODELS[net_name].layers}
    for layer, found in variables.items():
        for part in PARTS[layer.kind]:
            name = f"{scope}/{layer.scope.format(classes=num_classes)}/{part}"
            if name in shapes:  # MobileNet's convolutions have no biases
                shape = shapes[name]
                # fc6 of VGG is stored as a convolution; its places and channels follow one another as Keras flattens.
                flat = [math.prod(shape[:-1]), shape[-1]] if layer.kind == "dense" and part == "weights" else shape
                found.append(_Variable(name, shape, flat))
    return variables


def _with_channels_turned(array: np.ndarray, layer: _Layer, model: _Model) -> np.ndarray:
    """Turns RGB into BGR and back: input channels are axis 2 of the first convolution's kernel [3, 3, 3, filters]."""
    return array[:, :, ::-1] if model.bgr and layer == model.layers[0] and array.ndim == 4 else array


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _match(layers: Layers, model: _Model) -> dict[_Layer, str]:
    """Those of the model's layers that the file has, and what it calls them: in one generation's names for all."""
    count = Counter()
    generations = [{}, {}, {}]
    for layer in model.layers:
        path = f"layers/{layer.kind}_{count[layer.kind]}".removesuffix("_0")
        count[layer.kind] += 1
        for generation, name in zip(generations, (layer.name, layer.old_name, path), strict=True):
            if name in layers:
                generation[layer] = name
    # Counters say nothing about whose they are: ResNet-50 has a conv2d_12 too, and so does any net with more of them.
    if any(f"layers/{kind}_{n}" in layers for kind, n in count.items() if kind != "dense"):
        del generations[2]
    return max(generations, key=len)


def _lacking(found: dict[_Layer, str], model: _Model) -> list[str]:
    return [layer.name for layer in model.layers if not layer.in_head and layer not in found]


def _matched(layers: Layers, net_name: str) -> dict[_Layer, str]:
    """_match, or the UserError that says which net's weights they are not, or are."""
    found = _match(layers, MODELS[net_name])
    fitting = [name for name, model in MODELS.items() if not _lacking(_match(layers, model), model)]
    if missing := _lacking(found, MODELS[net_name]):
        remedy = f"they look like weights of {' or '.join(fitting)}" if fitting else f"known are {', '.join(MODELS)}"
        raise UserError(
            f"these are not the weights of {net_name}: expected also layers {_some(missing)}; "
            f"found layers {_some(layers)}; {remedy}"
        )
    # All of VGG-16 is in VGG-19, which computes something else.
    deeper = [name for name in fitting if len(MODELS[name].layers) > len(MODELS[net_name].layers)]
    if deeper:
        raise UserError(f"these are not the weights of {net_name} but of {deeper[0]}, of which it has some layers")
    return found


def to_slim(layers: Layers, net_name: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Our variables from Keras's layers.

    Args:
        layers: as from read_weights, of either generation of layer names.
        net_name: key of MODELS.

    Returns:
        Full variable names to float32 arrays of the variables' shapes, without the head's where the file has none; and
        the arrays that were not used, as `layer/position`, to the reason.

    Raises:
        UserError: for another net's weights, or a layer of other shapes than the net's variables.
    """
    model = _model(net_name)
    found = _matched(layers, net_name)
    head = layers[found[model.layers[-1]]] if model.layers[-1] in found else [np.zeros(1)]
    num_classes = max(1, *head[-1].shape[-1:])
    values = {}
    for layer, variables in _variables(net_name, num_classes).items():
        if layer not in found:
            continue
        arrays = layers[found[layer]]
        if [list(a.shape) for a in arrays] != [v.keras_shape for v in variables]:
            expected = ", ".join(f"{v.name} {v.shape}" for v in variables)
            raise UserError(
                f"layer {found[layer]} of the file does not fit {net_name}: it has arrays of shapes "
                f"{', '.join(str(list(a.shape)) for a in arrays)}, where the net has {expected}; "
                "take weights of this very net and width, or save the file without its top"
            )
        for array, variable in zip(arrays, variables, strict=True):
            array = _with_channels_turned(np.asarray(array, np.float32).reshape(variable.shape), layer, model)
            if not np.isfinite(array).all():
                raise UserError(
                    f"layer {found[layer]} of the file holds numbers that are not finite, for {variable.name}"
                )
            values[variable.name] = np.ascontiguousarray(array)
    reason = f"{net_name} has no such layer"
    others = [name for name in layers if name not in found.values()]
    return values, {f"{name}/{i}": reason for name in others for i in range(len(layers[name]))}


def to_keras(values: dict[str, np.ndarray], net_name: str) -> Layers:
    """Layers of keras.applications, by their current names, from our variables: to_slim the other way round.

    values may hold other names too, such as an optimizer's; the head may be missing as a whole. Raises UserError where
    variables of the net are missing or of another shape.
    """
    model = _model(net_name)
    head = NETS[net_name].new_scopes[0]
    classes = [v.shape[-1] for name, v in values.items() if name.startswith(head) and name.endswith("/weights")]
    variables = _variables(net_name, classes[0] if classes else 1)
    if not any(v.name in values for layer in variables if layer.in_head for v in variables[layer]):
        variables = {layer: found for layer, found in variables.items() if not layer.in_head}
    if missing := [v.name for found in variables.values() for v in found if v.name not in values]:
        raise UserError(
            f"these are not all variables of {net_name}: {_some(missing)} missing; only a whole head may be"
        )
    layers: Layers = {}
    for layer, found in variables.items():
        arrays = [values[v.name] for v in found]
        for array, variable in zip(arrays, found, strict=True):
            if list(array.shape) != variable.shape:
                raise UserError(
                    f"{variable.name} does not fit {net_name}: it is {list(array.shape)}, where the net has "
                    f"{variable.shape}, and {variable.keras_shape} in layer {layer.name} of Keras"
                )
        turned = [_with_channels_turned(array, layer, model) for array in arrays]
        layers[layer.name] = [array.reshape(v.keras_shape) for array, v in zip(turned, found, strict=True)]
    return layers


# Run by itself, since tfcompat has switched off the TensorFlow behaviour that Keras needs.
KERAS_PROGRAM = """
import json, sys
import numpy as np
import keras
arrays_path, path, application, options = sys.argv[1:]
model = getattr(keras.applications, application)(weights=None, **json.loads(options))
with np.load(arrays_path) as arrays:
    for layer in model.layers:
        if layer.weights:
            layer.set_weights([arrays[f"{layer.name}/{i}"] for i in range(len(layer.weights))])
model.save_weights(path)
"""


def write_weights(layers: Layers, net_name: str, path: "str | os.PathLike") -> str:
    """Lets Keras write the layers of to_keras as a .weights.h5 that its model of the net loads.

    That model has include_top as the head is among the layers, and as many classes. A file at the path is replaced
    once the new one is complete. Returns the call that makes the model.

    Raises UserError for another suffix, and where Keras cannot write it.
    """
    model = _model(net_name)
    path = pathlib.Path(path).absolute()
    if not path.name.endswith(".weights.h5"):
        raise UserError(f"{path}: Keras takes weights from names that end with .weights.h5 only; call it so")
    options = {} if model.width is None else {"alpha": model.width}
    options["include_top"] = (head := model.layers[-1].name) in layers
    if head in layers:
        options["classes"] = int(layers[head][-1].shape[-1])
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as directory:
            made, arrays = os.path.join(directory, "made.weights.h5"), os.path.join(directory, "arrays.npz")
            np.savez(arrays, **{f"{name}/{i}": a for name, parts in layers.items() for i, a in enumerate(parts)})
            # A home of its own keeps out a user's keras.json, which may ask for channels first or half precision.
            settings = {"KERAS_HOME": directory, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
            command = [sys.executable, "-c", KERAS_PROGRAM, arrays, made, model.application, json.dumps(options)]
            done = subprocess.run(
                command, cwd=directory, env={**os.environ, **settings}, capture_output=True, text=True
            )
            if done.returncode:
                raise OSError((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1])
            os.replace(made, path)
    except OSError as error:
        raise UserError(f"{path}: Keras cannot write it ({error}); is there such a directory, and space?") from error
    arguments = ", ".join(["weights=None", *(f"{key}={value}" for key, value in options.items())])
    return f"keras.applications.{model.application}({arguments})"
