"""The layers of keras.applications' models: Keras's names, old and new, and the variables of our nets.

A Keras layer is the list of its arrays in Keras's own order: kernel, bias; or gamma, beta, moving mean, moving
variance. The order is what counts, because files of different ages call the same array kernel:0, W_1:0 or 0.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import nets
from errors import unknown
from nets import mobilenet_v1, resnet_keras, vgg

# Variables of a layer, in the order of Keras's arrays, by the name of the Keras class as in the files.
PARTS = {
    "conv2d": ("weights", "biases"),
    "dense": ("weights", "biases"),
    "depthwise_conv2d": ("depthwise_weights",),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}


class KerasLayer(NamedTuple):
    """A layer of a Keras model: its name in Keras and its scope in our net."""

    kind: str  # key of PARTS
    scope: str  # under the net's scope; {classes} is filled in
    name: str  # since Keras 2.3
    old_name: str  # before Keras 2.3
    in_head: bool = False


class Model(NamedTuple):
    """A model of keras.applications."""

    application: str  # in keras.applications
    layers: list[KerasLayer]  # in the order of Keras's model.layers
    bgr: bool  # takes BGR pictures
    width: float | None = None  # of MobileNet


def _vgg_layers(depth: int) -> Iterator[KerasLayer]:
    for block, convolutions in enumerate(vgg.CONVOLUTIONS[depth], start=1):
        for i in range(1, convolutions + 1):
            yield KerasLayer("conv2d", f"conv{block}/conv{block}_{i}", *[f"block{block}_conv{i}"] * 2)
    for scope, name in (("fc6", "fc1"), ("fc7", "fc2"), ("fc8", "predictions")):
        yield KerasLayer("dense", scope, name, name, in_head=True)


def _resnet_layers() -> Iterator[KerasLayer]:
    yield KerasLayer("conv2d", "conv1", "conv1_conv", "conv1")
    yield KerasLayer("batch_normalization", "bn_conv1", "conv1_bn", "bn_conv1")
    for stage, units in enumerate(resnet_keras.UNITS, start=2):
        for unit, letter in enumerate("abcdef"[:units], start=1):
            branches = ((1, "2a"), (2, "2b"), *([(0, "1")] if unit == 1 else []), (3, "2c"))
            for kind, ours, theirs in (("conv2d", "res", "conv"), ("batch_normalization", "bn", "bn")):
                for number, branch in branches:
                    old_name = f"{ours}{stage}{letter}_branch{branch}"
                    yield KerasLayer(kind, old_name, f"conv{stage}_block{unit}_{number}_{theirs}", old_name)
    yield KerasLayer("dense", "fc{classes}", "predictions", "fc1000", in_head=True)


def _mobilenet_layers() -> Iterator[KerasLayer]:
    rows = [("conv2d", "Conv2d_0", "conv1")]
    for i in range(1, len(mobilenet_v1.ROWS) + 1):
        rows += [("depthwise_conv2d", f"Conv2d_{i}_depthwise", f"conv_dw_{i}")]
        rows += [("conv2d", f"Conv2d_{i}_pointwise", f"conv_pw_{i}")]
    for kind, scope, name in rows:
        yield KerasLayer(kind, scope, name, name)
        yield KerasLayer("batch_normalization", f"{scope}/BatchNorm", f"{name}_bn", f"{name}_bn")
    yield KerasLayer("conv2d", "Logits/Conv2d_1c_1x1", "conv_preds", "conv_preds", in_head=True)


MODELS = {
    "vgg_16": Model("VGG16", list(_vgg_layers(16)), bgr=True),
    "vgg_19": Model("VGG19", list(_vgg_layers(19)), bgr=True),
    "resnet50_keras": Model("ResNet50", list(_resnet_layers()), bgr=True),
    **{
        f"mobilenet_v1{suffix}": Model("MobileNet", list(_mobilenet_layers()), bgr=False, width=width)
        for suffix, width in (("", 1.0), ("_075", 0.75), ("_050", 0.5), ("_025", 0.25))
    },
}


def model_of(net_name: str) -> Model:
    """The Keras model of a net. Raises UserError if Keras has none, or its files cannot be read here."""
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
    shapes, scope = nets.NETS[net_name].variable_shapes(num_classes), nets.NETS[net_name].scope
    variables = {layer: [] for layer in MODELS[net_name].layers}
    for layer, found in variables.items():
        for part in PARTS[layer.kind]:
            name = f"{scope}/{layer.scope.format(classes=num_classes)}/{part}"
            if name in shapes:  # MobileNet's convolutions have no biases
                shape = shapes[name]
                # VGG stores fc6 as a convolution; its positions and channels have the order in which Keras flattens.
                flat = [math.prod(shape[:-1]), shape[-1]] if layer.kind == "dense" and part == "weights" else shape
                found.append(Variable(name, shape, flat))
    return variables
