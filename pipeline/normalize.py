"""How preprocessing normalises values: the part of it that an exported graph holds, one function a way.

    (images [..., H, W, C], size, statistics) -> [..., size, size, C]

All are float32; images are from 0 to 255. H and W are `size`; where statistics of each pixel are used, H and W
are those of the statistics.
"""

import numpy as np

from errors import UserError
from pipeline.pictures import resize
from pipeline.statistics import PIXEL_STATS, SMALL, Statistics
from tfcompat import tf

VGG_MEAN = (123.68, 116.78, 103.94)  # RGB, of ImageNet
GRAY_MEAN = sum(VGG_MEAN) / 3


def as_they_are(images: tf.Tensor, size: int, statistics: Statistics) -> tf.Tensor:
    """0 to 255."""
    return images


def to_unit(images: tf.Tensor, size: int, statistics: Statistics) -> tf.Tensor:
    """To [0, 1]: x / 255."""
    return images / 255.0


def to_plus_minus_one(images: tf.Tensor, size: int, statistics: Statistics) -> tf.Tensor:
    """To [-1, 1]: x / 127.5 - 1."""
    return images / 127.5 - 1.0


def as_lenets(images: tf.Tensor, size: int, statistics: Statistics) -> tf.Tensor:
    """(x - 128) / 128. TF-Slim's lenet_preprocessing."""
    return (images - 128.0) / 128.0


def minus_imagenets_mean(images: tf.Tensor, size: int, statistics: Statistics) -> tf.Tensor:
    """Of RGB by channel. TF-Slim's vgg_preprocessing."""
    return images - (VGG_MEAN if images.shape[-1] == 3 else GRAY_MEAN)


def minus_trainings_mean(images: tf.Tensor, size: int, statistics: Statistics) -> tf.Tensor:
    """By channel."""
    if statistics.mean is None:
        raise UserError(
            "--preprocessing alexnet needs the training pictures' mean and principal components, which these data "
            "lack; choose another, such as vgg, or convert the data with python -m pipeline.convert"
        )
    return images - statistics.mean.astype(np.float32)


def standardized_each(images: tf.Tensor, size: int, statistics: Statistics) -> tf.Tensor:
    """To mean 0 and deviation 1 over the picture."""
    return tf.image.per_image_standardization(images)


def _scaled(images: tf.Tensor, size: int, offset: np.ndarray, scale: np.ndarray) -> tf.Tensor:
    """(x - offset) / scale, then at `size`; pixels without variance are scaled by 1."""
    scale = np.where(scale == 0, 1.0, scale)
    return resize((images - offset.astype(np.float32)) / scale.astype(np.float32), size, size)


def min_max(images: tf.Tensor, size: int, statistics: Statistics) -> tf.Tensor:
    """To [0, 1], each pixel by its minimum and maximum over the training pictures."""
    pixels = pixel_statistics("min_max", statistics)
    return _scaled(images, size, pixels["minimum"], pixels["maximum"] - pixels["minimum"])


def standardize(images: tf.Tensor, size: int, statistics: Statistics) -> tf.Tensor:
    """To mean 0 and deviation 1, each pixel by its mean and deviation over the training pictures."""
    pixels = pixel_statistics("standardize", statistics)
    return _scaled(images, size, pixels["mean"], pixels["deviation"])


def pixel_statistics(family: str, statistics: Statistics) -> dict[str, np.ndarray]:
    """Of each pixel, float64 [H, W, C]. Raises UserError where the data have none."""
    if statistics.pixels is None:
        raise UserError(
            f"--preprocessing {family} needs {PIXEL_STATS} beside the shards, which convert writes when all training "
            f"pictures are of one size, at most {SMALL:,} pixels; choose another, such as cifar or unit"
        )
    return statistics.pixels
