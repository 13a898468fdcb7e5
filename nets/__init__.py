"""The registry of nets: one record per net, with everything that the program needs to know about it.

    logits, end_points = find("vgg_16").build(images, num_classes, is_training=False, weight_decay=5e-4)

A net is a function of these arguments, called under the arg scope that its family makes from the weight decay, the
factor of the L2 regularizer:

- inputs: pictures [N, H, W, C], float32, preprocessed;
- num_classes: number of logits;
- is_training: bool or tensor; if true, dropout is active, and batch norm uses the batch's statistics and updates its
  moving averages;
- scope: variable scope, with which the published names start;
- further ones that a registry record sets; dropout_keep_prob is the share of units that dropout keeps.

It returns the logits [N, num_classes] and the end points: the outputs of all layers, units and blocks by scope name.
A new net is a function in a family's file, and a record here. A user's own net is in a file of their own, FILE.py:NAME;
docs/your-own.md.
"""

from functools import partial

import own_code
from errors import unknown
from nets import (
    alexnet,
    cifarnet,
    densenet,
    googlenet,
    inception,
    lenet,
    mobilenet,
    mobilenet_v1,
    nasnet,
    overfeat,
    preact_elu,
    preact_resnet,
    resnet,
    resnet_keras,
    teaching,
    vgg,
)
from nets.own import own_net
from nets.record import Net

__all__ = ["NETS", "Net", "find"]


def _family(shared: dict, rows: dict[str, dict]) -> dict[str, Net]:
    """A record per row, with the shared fields and its own; its scope is its name, unless one of them has another."""
    return {name: Net(**{"scope": name, **shared, **row}) for name, row in rows.items()}


_FC8 = {"heads": ("fc8",), "preprocessing": "vgg", "image_size": 224, "learning_rate": 0.01}
_CIFAR = {"heads": ("logits",), "preprocessing": "cifar", "image_size": 32}
_AUXILIARY = tuple(f"{head}/logits" for head in googlenet.AUXILIARY_HEADS.values())

NETS: dict[str, Net] = {
    **_family(
        {"arg_scope": alexnet.alexnet_arg_scope, "weight_decay": alexnet.WEIGHT_DECAY, **_FC8},
        {
            name: {"function": partial(alexnet.alexnet, variant=name), **row}
            for name, row in {
                "alexnet_2012": {"smallest_size": 224},
                "alexnet_half": {"smallest_size": 224},
                "alexnet_mnist": {"preprocessing": "unit", "image_size": 28, "smallest_size": 25, "channels": 1},
                "alexnet_v2": {"smallest_size": 195},
            }.items()
        },
    ),
    "overfeat": Net(
        function=overfeat.overfeat,
        arg_scope=overfeat.overfeat_arg_scope,
        scope="overfeat",
        weight_decay=overfeat.WEIGHT_DECAY,
        **{**_FC8, "image_size": 231, "smallest_size": 231},
    ),
    **_family(
        {"arg_scope": vgg.vgg_arg_scope, "weight_decay": vgg.WEIGHT_DECAY, "smallest_size": 224, **_FC8},
        {
            "vgg_11": {"function": partial(vgg.vgg, depth=11), "scope": "vgg_a"},  # configuration A: TF-Slim's name
            "vgg_13": {"function": partial(vgg.vgg, depth=13)},
            "vgg_16": {"function": partial(vgg.vgg, depth=16)},
            "vgg_19": {"function": partial(vgg.vgg, depth=19)},
            "vgg_16_transfer": {
                "function": partial(vgg.vgg, depth=16, fc6_kernel=None, dense_widths=(1024, 1024), dropout_first=True),
                "scope": "vgg_16",
                "heads": ("fc8", "fc6", "fc7"),
                "smallest_size": 32,
                "any_size": False,
            },
        },
    ),
    **_family(
        {"weight_decay": googlenet.WEIGHT_DECAY, "image_size": 224},
        {
            "inception_v1": {
                "function": partial(googlenet.googlenet, as_published_2014=False),
                "arg_scope": googlenet.inception_v1_arg_scope,
                "scope": "InceptionV1",
                "heads": ("Logits",),
                "preprocessing": "inception",
                "label_offset": 1,
            },
            "googlenet_2014": {
                "function": partial(googlenet.googlenet, as_published_2014=True),
                "arg_scope": googlenet.googlenet_arg_scope,
                "heads": ("Logits", *_AUXILIARY),
                "preprocessing": "vgg",
                "smallest_size": 209,
                "auxiliary": _AUXILIARY,
                "auxiliary_weight": googlenet.AUXILIARY_LOSS_WEIGHT,
                "learning_rate": 0.01,
            },
        },
    ),
    **_family(
        {
            "arg_scope": inception.inception_arg_scope,
            "preprocessing": "inception",
            "weight_decay": inception.WEIGHT_DECAY,
            "image_size": 299,
            "label_offset": 1,
            "auxiliary": ("AuxLogits/logits",),
            "auxiliary_weight": inception.AUXILIARY_LOSS_WEIGHT,
        },
        {
            name: {"function": partial(inception.inception, variant=name), **row}
            for name, row in {
                "inception_v2": {
                    "scope": "InceptionV2",
                    "heads": ("Logits",),
                    "image_size": 224,
                    "auxiliary": (),
                    "auxiliary_weight": 0.0,
                },
                "inception_v3": {
                    "scope": "InceptionV3",
                    "heads": ("Logits", "AuxLogits/Conv2d_2b_1x1"),
                    "smallest_size": 299,
                },
                "inception_v4": {
                    "scope": "InceptionV4",
                    "heads": ("Logits", "AuxLogits/Aux_logits"),
                    "smallest_size": 299,
                },
                "inception_resnet_v2": {
                    "scope": "InceptionResnetV2",
                    "arg_scope": inception.inception_resnet_v2_arg_scope,
                    "heads": ("Logits", "AuxLogits/Logits"),
                    "smallest_size": 299,
                },
            }.items()
        },
    ),
    **_family(
        {"arg_scope": resnet.resnet_arg_scope, "heads": ("logits",), "weight_decay": resnet.WEIGHT_DECAY},
        {
            f"resnet_v{version}_{depth}": {"function": partial(resnet.resnet, depth=depth, unit=unit), **row}
            for version, unit, depths, row in (
                (1, resnet.bottleneck_v1, resnet.UNITS, {"preprocessing": "vgg", "image_size": 224}),
                # The preprocessing is that of the published weights; TF-Slim's factory says vgg, which is wrong.
                (
                    *(2, resnet.bottleneck_v2, resnet.UNITS),
                    {"preprocessing": "inception", "image_size": 299, "label_offset": 1},
                ),
                # Published weights of these are torchvision's and timm's.
                (1, resnet.basic_v1, resnet.BASIC_UNITS, {"preprocessing": "torchvision"}),
                (2, resnet.basic_v2, resnet.BASIC_UNITS, {"preprocessing": "torchvision"}),
            )
            for depth in depths
        },
    ),
    **_family(
        {
            "arg_scope": densenet.densenet_arg_scope,
            "preprocessing": "torchvision",  # of Keras's weights too
            "heads": ("logits",),
            "weight_decay": densenet.WEIGHT_DECAY,
            "smallest_size": 29,
        },
        {f"densenet_{depth}": {"function": partial(densenet.densenet, depth=depth)} for depth in densenet.UNITS},
    ),
    **_family(
        {"arg_scope": resnet_keras.resnet_keras_arg_scope, "heads": ("fc",), "weight_decay": 0.0},
        {
            name: {"function": partial(resnet_keras.resnet_keras, variant=name), **row}
            for name, row in {
                "resnet50_keras": {"preprocessing": "vgg", "image_size": 224},
                "resnet50_signs": {"preprocessing": "unit", "image_size": 64, "smallest_size": 37, "any_size": False},
            }.items()
        },
    ),
    **_family(
        {"arg_scope": preact_resnet.preact_resnet_arg_scope, "weight_decay": preact_resnet.WEIGHT_DECAY, **_CIFAR},
        {name: {"function": partial(preact_resnet.preact_resnet, variant=name)} for name in preact_resnet.VARIANTS},
    ),
    **_family(
        {"arg_scope": preact_elu.preact_elu_arg_scope, "weight_decay": preact_elu.WEIGHT_DECAY, **_CIFAR},
        {"preact_elu": {"function": preact_elu.preact_elu}},
    ),
    **_family(
        {
            "arg_scope": mobilenet_v1.mobilenet_v1_arg_scope,
            "scope": "MobilenetV1",  # of all published checkpoints
            "heads": ("Logits",),
            "preprocessing": "inception",
            "weight_decay": mobilenet_v1.WEIGHT_DECAY,
            "image_size": 224,
            "label_offset": 1,
        },
        {
            f"mobilenet_v1{suffix}": {"function": partial(mobilenet_v1.mobilenet_v1, width=width)}
            for suffix, width in mobilenet_v1.SUFFIXES.items()
        },
    ),
    **_family(
        {
            "arg_scope": mobilenet.mobilenet_arg_scope,
            "heads": ("Logits",),
            "preprocessing": "inception",
            "weight_decay": mobilenet.WEIGHT_DECAY,
            "image_size": 224,
            "label_offset": 1,
        },
        {
            **{
                f"mobilenet_v2{suffix}": {
                    "function": partial(mobilenet.mobilenet, body=mobilenet.V2, width=width),
                    "scope": "MobilenetV2",
                }
                for suffix, width in mobilenet.V2_WIDTHS.items()
            },
            **{
                f"mobilenet_v3_{name}": {
                    "function": partial(mobilenet.mobilenet, body=body, width=width),
                    "scope": "MobilenetV3",
                }
                for name, (body, width) in mobilenet.V3.items()
            },
        },
    ),
    **_family(
        {
            "arg_scope": nasnet.nasnet_arg_scope,
            "scope": "",  # the published names have none
            "preprocessing": "inception",
            "label_offset": 1,
            "auxiliary_weight": nasnet.AUXILIARY_LOSS_WEIGHT,
        },
        {
            name: {
                "function": partial(nasnet.nasnet, variant=name),
                "weight_decay": nasnet.WEIGHT_DECAY[name],
                "heads": ("final_layer/FC", f"aux_{body.reductions[1] - 1}/aux_logits/FC"),
                "auxiliary": (f"aux_{body.reductions[1] - 1}/logits",),
                **({"image_size": 331, "smallest_size": 307} if name.endswith("large") else {"smallest_size": 211}),
            }
            for name, body in nasnet.BODIES.items()
        },
    ),
    **_family(
        {"smallest_size": 4, "any_size": False, "learning_rate": 0.01},
        {
            "cifarnet": {
                "function": cifarnet.cifarnet,
                "arg_scope": cifarnet.cifarnet_arg_scope,
                "scope": "CifarNet",
                "weight_decay": cifarnet.WEIGHT_DECAY,
                **_CIFAR,
            },
            "lenet": {
                "function": lenet.lenet,
                "arg_scope": lenet.lenet_arg_scope,
                "scope": "LeNet",
                "heads": ("fc4",),
                "preprocessing": "lenet",
                "weight_decay": 0.0,
                "image_size": 28,
                "channels": 1,
            },
        },
    ),
    **_family(
        {
            "arg_scope": teaching.teaching_arg_scope,
            "weight_decay": 0.0,
            "preprocessing": "unit",
            "heads": ("logits",),
            "any_size": False,
            "learning_rate": 0.01,
        },
        {
            "inception_strided": {"function": teaching.inception_strided, "image_size": 150},
            "residual_cnn": {"function": teaching.residual_cnn, "image_size": 256},
        },
    ),
}


def find(name: str) -> Net:
    """The record of a net. Raises UserError for an unknown name, with the nearest known one.

    For FILE.py:NAME it is the user's own net, as nets.own.own_net describes.
    """
    if own_code.is_own(name):
        return own_net(own_code.absolute(name))
    if name not in NETS:
        raise unknown("net", name, NETS)
    return NETS[name]
