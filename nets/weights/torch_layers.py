"""Pairs of names: layers of torchvision and timm models, and the scopes of the same layers in our nets.

Only nets whose architecture is the same are here. DIFFERENT says of the others why the weights do not fit, although
most of their shapes do: the logits would be wrong.
"""

from collections.abc import Iterator
from typing import NamedTuple

from errors import UserError, unknown
from nets import densenet, resnet, vgg

# Arrays of a layer in PyTorch, and our variables, by the layer's kind.
PARTS = {
    "conv": {"weight": "weights", "bias": "biases"},
    "dense": {"weight": "weights", "bias": "biases"},
    "norm": {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"},
}


class Layer(NamedTuple):
    """A layer of a PyTorch model."""

    kind: str  # key of PARTS
    name: str  # in PyTorch
    scope: str  # under the net's scope
    in_head: bool = False


class Model(NamedTuple):
    """The layers of a model, from the first to the logits, and other names of them: patterns with replacements."""

    layers: list[Layer]
    renamed: tuple[tuple[str, str], ...] = ()


def _resnet_v1_layers(depth: int) -> Iterator[Layer]:
    yield Layer("conv", "conv1", "conv1")
    yield Layer("norm", "bn1", "conv1/BatchNorm")
    for block, units in enumerate(resnet.BASIC_UNITS[depth], start=1):
        for unit in range(units):
            name, scope = f"layer{block}.{unit}", f"block{block}/unit_{unit + 1}/basic_v1"
            pairs = [("conv1", "bn1", "conv1"), ("conv2", "bn2", "conv2")]
            if block > 1 and unit == 0:
                pairs += [("downsample.0", "downsample.1", "shortcut")]
            for convolution, norm, ours in pairs:
                yield Layer("conv", f"{name}.{convolution}", f"{scope}/{ours}")
                yield Layer("norm", f"{name}.{norm}", f"{scope}/{ours}/BatchNorm")
    yield Layer("dense", "fc", "logits", in_head=True)


def _resnet_v2_layers(depth: int) -> Iterator[Layer]:
    yield Layer("conv", "stem.conv", "conv1")
    for block, units in enumerate(resnet.BASIC_UNITS[depth]):
        for unit in range(units):
            name, scope = f"stages.{block}.blocks.{unit}", f"block{block + 1}/unit_{unit + 1}/basic_v2"
            yield Layer("norm", f"{name}.norm1", f"{scope}/preact")
            if block > 0 and unit == 0:
                yield Layer("conv", f"{name}.downsample.conv", f"{scope}/shortcut")
            yield Layer("conv", f"{name}.conv1", f"{scope}/conv1")
            yield Layer("norm", f"{name}.norm2", f"{scope}/conv1/BatchNorm")
            yield Layer("conv", f"{name}.conv2", f"{scope}/conv2")
    yield Layer("norm", "norm", "postnorm")
    yield Layer("dense", "head.fc", "logits", in_head=True)


def _densenet_layers(depth: int) -> Iterator[Layer]:
    yield Layer("conv", "features.conv0", "conv1")
    yield Layer("norm", "features.norm0", "conv1/norm")
    for block, units in enumerate(densenet.UNITS[depth], start=1):
        for unit in range(1, units + 1):
            name, scope = f"features.denseblock{block}.denselayer{unit}", f"block{block}/unit_{unit}"
            for kind, theirs, ours in (
                ("norm", "norm1", "preact"),
                ("conv", "conv1", "conv1"),
                ("norm", "norm2", "norm"),
                ("conv", "conv2", "conv2"),
            ):
                yield Layer(kind, f"{name}.{theirs}", f"{scope}/{ours}")
        if block < len(densenet.UNITS[depth]):
            yield Layer("norm", f"features.transition{block}.norm", f"transition{block}/preact")
            yield Layer("conv", f"features.transition{block}.conv", f"transition{block}/conv")
    yield Layer("norm", "features.norm5", "postnorm")
    yield Layer("dense", "classifier", "logits", in_head=True)


def _vgg_layers(depth: int) -> Iterator[Layer]:
    position = 0  # in torchvision's list, which also counts ReLUs and pools
    for block, convolutions in enumerate(vgg.CONVOLUTIONS[depth], start=1):
        for i in range(1, convolutions + 1):
            yield Layer("conv", f"features.{position}", f"conv{block}/conv{block}_{i}")
            position += 2
        position += 1
    for position, scope in ((0, "fc6"), (3, "fc7"), (6, "fc8")):
        yield Layer("dense", f"classifier.{position}", scope, in_head=True)


# torchvision's files of 2017: a name with a dot in it, which its own loader also replaces.
_OLD_DENSENET = ((r"(\.denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2"),)
_TIMM_VGG = (
    (r"^pre_logits\.fc1\.", "classifier.0."),
    (r"^pre_logits\.fc2\.", "classifier.3."),
    (r"^head\.fc\.", "classifier.6."),
)
MODELS = {
    **{f"resnet_v1_{depth}": Model(list(_resnet_v1_layers(depth))) for depth in resnet.BASIC_UNITS},
    **{f"resnet_v2_{depth}": Model(list(_resnet_v2_layers(depth))) for depth in resnet.BASIC_UNITS},  # timm's alone
    **{f"densenet_{depth}": Model(list(_densenet_layers(depth)), _OLD_DENSENET) for depth in densenet.UNITS},
    **{f"vgg_{depth}": Model(list(_vgg_layers(depth)), _TIMM_VGG) for depth in vgg.CONVOLUTIONS},
}

# By the beginning of a net's name; read in torchvision 0.29 and timm 1.0.31.
DIFFERENT = {
    "resnet_v1_": "PyTorch's ResNets have the stride of a block in its first unit, TF-Slim's in its last unit",
    "resnet_v2_": "timm's have the stride of a block in its first unit, TF-Slim's in its last; torchvision has no v2",
    "resnet50_": "torchvision's ResNet-50 has the stride of a unit in its 3×3 convolution, this net in its first 1×1",
    "inception_v3": "torchvision's batch norm has a gamma, TF-Slim's has none, and its average pools count the padding",
    "inception_v1": "torchvision's GoogLeNet has 3×3 convolutions where the paper and TF-Slim have 5×5",
    "googlenet_2014": "torchvision's GoogLeNet has 3×3 convolutions where the paper has 5×5, and batch norm",
    "mobilenet_v2": "torchvision pads all sides before a stride of 2, TF-Slim only below and right",
    "mobilenet_v3": "torchvision pads all sides before a stride of 2, TF-Slim only below and right",
    "alexnet_v2": "torchvision's first convolution pads 2 pixels, and its fourth has 256 channels; TF-Slim's has 384",
    "alexnet_2012": "torchvision's is the net of 2014, without groups and local response normalisation",
    "vgg_16_transfer": "its dense layers are others; import the file for vgg_16 and give that to --init-from",
}


def model_of(net_name: str) -> Model:
    """The PyTorch model of a net. Raises UserError if there is none, with the reason if its architecture is another."""
    if net_name in MODELS:
        return MODELS[net_name]
    reason = next((reason for start, reason in DIFFERENT.items() if net_name.startswith(start)), None)
    if reason:
        raise UserError(f"{net_name} cannot use PyTorch's weights: {reason}. Nets that can are {', '.join(MODELS)}")
    raise unknown("net with PyTorch weights", net_name, MODELS)
