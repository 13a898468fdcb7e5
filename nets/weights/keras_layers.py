"""Converts weights between the layers of keras.applications, by their old and new names, and our nets' variables.

A Keras layer is the list of its arrays in Keras's own order: kernel, bias; or gamma, beta, moving mean, moving
variance. The order is what counts, because files of different ages call the same array kernel:0, W_1:0 or 0.

Keras's VGG and ResNet-50 take BGR pictures, as the Caffe models did; our nets take RGB. So the input channels of the
first convolution are reversed.
"""

import math
import re
from collections import Counter
from typing import NamedTuple

import numpy as np

import nets
from errors import UserError, unknown
from nets.weights.array_checks import as_float32, some
from nets.weights.keras_models import MODELS, KerasLayer, Model
from nets.weights.restoring import head_width

Layers = dict[str, list[np.ndarray]]  # name of a Keras layer to its arrays in Keras's order

# Variables of a layer, in the order of Keras's arrays, by the name of the Keras class as in the files.
PARTS = {
    "conv2d": ("weights", "biases"),
    "dense": ("weights", "biases"),
    "depthwise_conv2d": ("depthwise_weights",),
    "separable_conv2d": ("depthwise_weights", "pointwise_weights"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}


def model_of(net_name: str) -> Model:
    """The Keras model of a net. Raises UserError if Keras has none, or its files cannot be read here."""
    if net_name in nets.NETS and net_name not in MODELS:
        raise UserError(f"{net_name} is not in keras.applications; nets that are: {', '.join(MODELS)}")
    if net_name not in MODELS:
        raise unknown("net with Keras weights", net_name, MODELS)
    return MODELS[net_name]


class Variable(NamedTuple):
    """A variable of our net."""

    name: str
    shape: list[int]
    keras_shape: list[int]  # of the same values in Keras


def variables_of(net_name: str, num_classes: int) -> dict[KerasLayer, list[Variable]]:
    """The variables of each layer of a net, in the order of Keras's arrays."""
    shapes, prefix = nets.NETS[net_name].variable_shapes(num_classes), nets.NETS[net_name].prefix
    variables = {layer: [] for layer in MODELS[net_name].layers}
    for layer, found in variables.items():
        for part in PARTS[layer.kind]:
            name = f"{prefix}{layer.scope.format(classes=num_classes)}/{part}"
            if name in shapes:  # MobileNet's convolutions have no biases
                shape = shapes[name]
                # VGG stores fc6 as a convolution; its positions and channels have the order in which Keras flattens.
                flat = [math.prod(shape[:-1]), shape[-1]] if layer.kind == "dense" and part == "weights" else shape
                found.append(Variable(name, shape, flat))
    return variables


def _rgb_bgr(array: np.ndarray, layer: KerasLayer, model: Model) -> np.ndarray:
    """Reverses the input channels, axis 2, of the first convolution's kernel [H, W, 3, filters] if Keras takes BGR."""
    is_bgr = model.bgr and layer == model.layers[0] and array.ndim == 4 and array.shape[2] == 3
    return array[:, :, ::-1] if is_bgr else array


def _match(layers: Layers, model: Model) -> dict[KerasLayer, str]:
    """The model's layers that the file has, with their names in it: the current, an old, or the counted name."""
    numbered = {kind: iter(_numbered(layers, kind)) for kind in PARTS}
    named = {}
    for layer in model.layers:
        name = next((name for name in layer.names if name in layers), None) if layer.names else None
        name = name if layer.names else next(numbered[layer.kind], None)
        if name:
            named[layer] = name
    counted = _counted(layers, model) if model.in_order else {}
    return max(named, counted, key=len)


def _numbered(layers: Layers, kind: str) -> list[str]:
    """The layers with names that Keras gave them, such as conv2d_17, in the order in which they were made."""
    # TensorFlow 1.13 called a batch norm batch_normalization_v1.
    pattern = re.compile(rf"{kind}(?:_v1)?(?:_(\d{{1,9}}))?")
    found = {name: match for name in layers if (match := pattern.fullmatch(name))}
    return sorted(found, key=lambda name: int(found[name][1] or 0))


def _counted(layers: Layers, model: Model) -> dict[KerasLayer, str]:
    """The model's layers in a file of tf_keras without names: layers/conv2d_1 is the second convolution of all."""
    count, found = Counter(), {}
    for layer in model.layers:
        path = f"layers/{layer.kind}_{count[layer.kind]}".removesuffix("_0")
        count[layer.kind] += 1
        if path in layers:
            found[layer] = path
    # A counted name does not identify a net: every net with more than 12 convolutions has a conv2d_12.
    more = any(f"layers/{kind}_{n}" in layers for kind, n in count.items() if kind != "dense")
    if f"layers/dense_{count['dense']}" in layers:  # dense layers of the user's: which is the head is unknown
        found = {layer: name for layer, name in found.items() if not layer.in_head}
    return {} if more else found


def names_in_keras(model: Model) -> dict[KerasLayer, str]:
    """The names of the layers of a model that Keras makes now, as the first in its process."""
    count, names = Counter(), {}
    for layer in model.layers:
        names[layer] = layer.names[0] if layer.names else f"{layer.kind}_{count[layer.kind]}".removesuffix("_0")
        count[layer.kind] += not layer.names
    return names


def _lacking(found: dict[KerasLayer, str], model: Model) -> list[str]:
    """Names of the layers that are not found, but for those of the head after its last one that is there."""
    names = names_in_keras(model)
    last = max((i for i, layer in enumerate(model.layers) if layer in found), default=-1)
    needed = [layer for i, layer in enumerate(model.layers) if not layer.in_head or i <= last]
    return [names[layer] for layer in needed if layer not in found]


def _matched(layers: Layers, net_name: str) -> dict[KerasLayer, str]:
    """As _match. Raises UserError, with the net that they do fit, if these are the weights of another net."""
    found = _match(layers, MODELS[net_name])
    fitting = [name for name, model in MODELS.items() if not _lacking(_match(layers, model), model)]
    # VGG-19 has all layers of VGG-16: of nets that fit, the deepest.
    most = max((len(MODELS[name].layers) for name in fitting), default=0)
    fitting = [name for name in fitting if len(MODELS[name].layers) == most]
    if missing := _lacking(found, MODELS[net_name]):
        remedy = f"they look like weights of {' or '.join(fitting)}" if fitting else f"known are {', '.join(MODELS)}"
        if not MODELS[net_name].in_order and any(name.startswith("layers/conv2d") for name in layers):
            raise UserError("this file of tf_keras has no names of layers: save the model as .h5 or .keras")
        raise UserError(
            f"these are not the weights of {net_name}: expected also layers {some(missing, 5)}; "
            f"found layers {some(layers, 5)}; {remedy}"
        )
    if most > len(MODELS[net_name].layers):
        raise UserError(f"these are not the weights of {net_name} but of {fitting[0]}, of which it has some layers")
    rest = {name: arrays for name, arrays in layers.items() if name not in found.values()}
    if further := _further(rest, MODELS[net_name]):
        raise UserError(
            f"these are not the weights of {net_name} alone: found also layers {some(further, 5)}, as of a deeper net "
            "or a second one; give a file of one net that is among the known"
        )
    return found


def _further(rest: Layers, model: Model) -> list[str]:
    """Layers beside the model's that look like its own: named alike but for numbers, or the whole model again."""
    trunk = [layer for layer in model.layers if not layer.in_head]

    def pattern(name: str) -> str:
        return re.sub(r"\d+", "#", name)

    # conv#_block#_#_conv is a name of ResNets; a single number, as in conv1, may be a user's own.
    patterns = {pattern(name) for layer in trunk for name in layer.names}
    alike = [name for name in rest if pattern(name) in patterns and pattern(name).count("#") > 1]
    again = {layer for layer in _match(rest, model) if not layer.in_head}
    return alike or (list(rest) if len(again) == len(trunk) else [])


def _with_channels(variable: Variable, channels: int) -> Variable:
    """The kernel [H, W, C, N] of a first convolution, for pictures of `channels`."""
    height, width, _, filters = variable.shape
    return variable._replace(shape=[height, width, channels, filters], keras_shape=[height, width, channels, filters])


def to_slim(layers: Layers, net_name: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Our variables from Keras's layers with their current or old names.

    Returns variable names to float32 arrays of the variables' shapes, without the head's if the file has no head; and
    the arrays that are not used, as `layer/position`, with the reason. Raises UserError for the weights of another net,
    a layer with other shapes than the net's variables, and values that are not finite.
    """
    model = model_of(net_name)
    found = _matched(layers, net_name)
    head = layers[found[model.layers[-1]]] if model.layers[-1] in found else [np.zeros(1)]
    num_classes = max(1, *head[-1].shape[-1:])
    values = {}
    for layer, variables in variables_of(net_name, num_classes).items():
        if layer not in found:
            continue
        arrays = layers[found[layer]]
        if layer == model.layers[0] and arrays and arrays[0].ndim == len(variables[0].shape) == 4:
            channels = arrays[0].shape[2]  # pictures of other channels
            variables = [_with_channels(variables[0], channels), *variables[1:]] if channels else variables
        if [list(a.shape) for a in arrays] != [v.keras_shape for v in variables]:
            expected = ", ".join(f"{v.name} {v.shape}" for v in variables)
            numbered = "; Keras numbers such layers: if layers of yours come before the net, save the net alone"
            raise UserError(
                f"layer {found[layer]} of the file does not fit {net_name}: it has arrays of shapes "
                f"{', '.join(str(list(a.shape)) for a in arrays)}, where the net has {expected}; "
                f"use weights of the same net and width, or save the file without its top"
                f"{'' if layer.names else numbered}"
            )
        for array, variable in zip(arrays, variables, strict=True):
            array = as_float32(array, f"layer {found[layer]} of the file", variable.name).reshape(variable.shape)
            values[variable.name] = np.ascontiguousarray(_rgb_bgr(array, layer, model))
    reason = f"{net_name} has no such layer"
    others = [name for name in layers if name not in found.values()]
    return values, {f"{name}/{i}": reason for name in others for i in range(len(layers[name]))}


def to_keras(values: dict[str, np.ndarray], net_name: str) -> Layers:
    """Layers of keras.applications, with their current names, from our variables: the reverse of to_slim.

    values may hold other names too, such as an optimizer's. The whole head may be missing. Raises UserError if other
    variables of the net are missing.
    """
    model = model_of(net_name)
    width = head_width({name: value.shape for name, value in values.items()}, nets.find(net_name))
    variables = variables_of(net_name, width or 1)
    if not any(v.name in values for layer in variables if layer.in_head for v in variables[layer]):
        variables = {layer: found for layer, found in variables.items() if not layer.in_head}
    if missing := [v.name for found in variables.values() for v in found if v.name not in values]:
        raise UserError(
            f"these are not all variables of {net_name}: {some(missing, 5)} missing; only the whole head may be missing"
        )
    layers: Layers = {}
    names = names_in_keras(model)
    for layer, found in variables.items():
        arrays = [_rgb_bgr(values[v.name], layer, model) for v in found]
        layers[names[layer]] = [array.reshape(v.keras_shape) for array, v in zip(arrays, found, strict=True)]
    return layers
