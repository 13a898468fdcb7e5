"""The recipes, and the command line that selects one and changes it: defaults < preset < command line.

docs/recipes.md lists the accuracy of each. This module does not import TensorFlow, so `--help` answers at once.
"""

from collections.abc import Mapping
from itertools import pairwise

import tyro

from config import DURATIONS, Config, flag, help_page
from errors import UserError, unknown

_ADAM = {"optimizer": "adam", "learning_rate": 3e-4}
# TensorFlow's flower_photos, or a part of them. The number of pictures differs, so the durations are in epochs.
_FLOWERS = {"dataset": "flowers", "batch_size": 32, "validate_every_epochs": 5, "snapshot_every_epochs": 10}
_FLOWERS_CROPPED = {**_FLOWERS, **_ADAM, "preprocessing": "inception_crop"}
# Kaggle's cats and dogs, or a part of them. One sigmoid output; Keras's random rotations, shifts, shear and zooms.
_CATSDOGS = {
    **{"dataset": "folder", "data": "data/cats_dogs", "head": "sigmoid", "preprocessing": "keras_affine"},
    **{"batch_size": 20, "optimizer": "rmsprop", "momentum": 0.0, "keep_checkpoints": 1},
    **{"validate_every_steps": 150, "snapshot_every_steps": 300},
}
# He et al. (arXiv:1603.05027): momentum, batch 128, 64,000 steps; learning rate 0.01 for the first 400 steps, then 0.1,
# divided by 10 at steps 32,000 and 48,000. Our warm-up is linear instead.
_CIFAR10 = {
    **{"dataset": "cifar10", "batch_size": 128, "total_steps": 64000, "warmup_steps": 400, "schedule": "step"},
    **{"decay_at_steps": (32000, 48000), "validate_every_steps": 400, "snapshot_every_steps": 400},
}

_RECIPES: Mapping[str, Config] = {
    # 8×8 pixels; an epoch is 20 steps.
    "digits": Config.of(image_size=8, preprocessing="digits", total_steps=800),
    # AlexNet as of 2012 on MNIST (Krizhevsky et al., ImageNet Classification with Deep CNNs), batch 100, Adam 1e-3.
    # The posts use a constant learning rate: --schedule constant.
    "mnist_alexnet": Config.of(
        **_ADAM | {"dataset": "mnist", "net": "alexnet_mnist", "weight_decay": 0.0, "learning_rate": 1e-3},
        **{"batch_size": 100, "total_steps": 1500, "validate_every_steps": 500, "snapshot_every_steps": 250},
    ),
    # The user's own pictures, one folder for each class; small enough for a laptop.
    "folder": Config.of(dataset="folder", preprocessing="cifar", image_size=64, total_steps=2000),
    # The posts: 10 epochs of Adam at 5e-4, mirror images. A few hundred pictures of each class need more epochs and
    # more augmentation.
    "flowers_alexnet": Config.of(**_FLOWERS_CROPPED, net="alexnet_half", warmup_epochs=2, total_epochs=60),
    # The posts: frozen convolutions, 10 epochs of Adam at 1e-4 for a new head.
    "flowers_vgg16": Config.of(
        **_FLOWERS | _ADAM | {"learning_rate": 1e-4, "validate_every_epochs": 1, "snapshot_every_epochs": 1},
        **{"net": "vgg_16_transfer", "init_from": "vgg_16", "train_only": ("fc6", "fc7", "fc8"), "total_epochs": 10},
    ),
    # All layers of MobileNet from ImageNet's weights. A quarter of the width takes a fifth of the time:
    # --net mobilenet_v1_025 --init-from mobilenet_v1_025 --preprocessing inception_crop --learning-rate 3e-4.
    "flowers_mobilenet": Config.of(
        **_FLOWERS_CROPPED | {"learning_rate": 1e-4},
        **{"net": "mobilenet_v1", "init_from": "mobilenet_v1", "warmup_epochs": 1, "total_epochs": 20},
    ),
    # The posts: 30 epochs of Adam at 3e-4, mirror images; losses of the auxiliary heads times 0.3, as here. The net has
    # no batch norm and needs many steps, so the batches are small: 16.
    "flowers_googlenet": Config.of(
        **_FLOWERS_CROPPED | {"batch_size": 16}, net="googlenet_2014", warmup_epochs=2, total_epochs=30
    ),
    # The posts: RMSProp at 1e-5, 20 × 100 steps of 20 pictures, 150 px.
    "catsdogs_inception": Config.of(**_CATSDOGS, net="inception_strided", learning_rate=1e-5, total_steps=1000),
    # The same at 256 px.
    "catsdogs_residual": Config.of(**_CATSDOGS, net="residual_cnn", learning_rate=1e-4, total_steps=2000),
    # The course: x / 255, and 2 epochs of Adam at 1e-3, batch 32. That is too short for batch norm's moving averages
    # (decay 0.99). Here: random shifts, and 30 epochs.
    "signs_resnet50": Config.of(
        **_ADAM | {"dataset": "signs", "net": "resnet50_signs", "preprocessing": "digits", "learning_rate": 1e-3},
        **{"batch_size": 32, "warmup_epochs": 1, "total_epochs": 30},
        **{"validate_every_epochs": 5, "snapshot_every_epochs": 5},
    ),
    # All layers work on 32×32 maps: an epoch of 9,000 pictures takes more than a minute on 2 cores, and accuracy rises
    # slowly. With a rate of 1e-3, validation accuracy is only 43 % after 4 epochs.
    "preact_elu": Config.of(
        **_ADAM | {"dataset": "cifar10", "net": "preact_elu", "batch_size": 32, "total_epochs": 80},
        **{"validate_every_epochs": 2, "snapshot_every_epochs": 1},
    ),
    "cifar10_preact20": Config.of(**_CIFAR10, net="preact_resnet_20"),
    "cifar10_preact56": Config.of(**_CIFAR10, net="preact_resnet_56"),
    # The same without shortcuts, to show their effect.
    "cifar10_plain56": Config.of(**_CIFAR10, net="plain_56"),
}
PRESETS = {name: recipe.replace(run_dir=f"runs/{name}") for name, recipe in _RECIPES.items()}


def parse_command_line(args: list[str]) -> Config:
    """The configuration for `[PRESET] [--key value ...]`. Exits with 0 after --help, with 2 on a mistake.

    Raises UserError for an unknown preset, a duration in two units, and a directory without a name.
    """
    preset = "digits"
    if args and not args[0].startswith("-"):
        preset, args = args[0], args[1:]
    for before, word in pairwise(args):
        if word in PRESETS and not before.startswith("-"):
            raise UserError(f"the preset {word} must be the first word: python train.py {word} --key value ...")
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    default, given = PRESETS[preset], {arg.split("=")[0].replace("_", "-") for arg in args}
    for name in DURATIONS:
        steps, epochs = flag(f"{name}_steps"), flag(f"{name}_epochs")
        if {steps, epochs} <= given:
            raise UserError(f"{steps} and {epochs} are the same duration; give one of them")
        if steps in given:  # the preset's value in epochs does not apply
            default = default.replace(**{f"{name}_epochs": () if name == "decay_at" else None})
    config = _parse(args, default)
    # Values of the preset that are for its own net or schedule do not apply to another one.
    if config.network.net != default.network.net:
        default = default.replace(image_size=None, preprocessing=None, weight_decay=None)
    if config.schedule.schedule != default.schedule.schedule:
        default = default.replace(decay_at_steps=(), decay_at_epochs=())
    config = _parse(args, default)
    for key in ("source", "data", "run_dir"):  # '' would mean the default, as from a shell variable that is not set
        if config.flat()[key] == "":
            raise UserError(f"{flag(key)} '' names no directory; leave it out for the default")
    return config


def _parse(args: list[str], default: Config) -> Config:
    rows = "\n".join(f"  {name:<19}{_summary(config)}" for name, config in PRESETS.items())
    about = (
        f"{Config.__doc__}\n\nPresets, given as the first word (default: digits):\n{rows}\n\n"
        "PRESET --help shows the values of that preset."
    )
    return tyro.cli(
        tyro.conf.OmitArgPrefixes[Config],
        args=args,
        default=default,
        prog="train.py [PRESET]",
        description=help_page(about),
    )


def _summary(config: Config) -> str:
    inputs, schedule, start = config.input, config.schedule, config.network.init_from
    data = inputs.data.removeprefix("data/") if inputs.data else inputs.dataset
    length = f"{schedule.total_epochs:g} epochs" if schedule.total_epochs else f"{schedule.total_steps:,} steps"
    return f"{config.network.net} on {data}{f' from {start}' if start else ''}, {length}"
