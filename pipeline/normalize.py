"""Normalization of pixel values: the part of preprocessing that an exported graph holds.

    normalize(preprocessor, images [..., H, W, C]) -> [..., size, size, C]

All are float32; images are from 0 to 255. H and W are the preprocessor's size, or those of the statistics where each
pixel has its own.
"""

from typing import TYPE_CHECKING

import numpy as np

from errors import UserError
from pipeline.pictures import resize
from pipeline.statistics import PIXEL_STATS, SMALL
from tfcompat import tf

if TYPE_CHECKING:
    from pipeline.preprocess import Preprocessor

VGG_MEAN = (123.68, 116.78, 103.94)  # RGB, of ImageNet
GRAY_MEAN = sum(VGG_MEAN) / 3


def unchanged(to: "Preprocessor", images: tf.Tensor) -> tf.Tensor:
    """0 to 255."""
    return images


def unit(to: "Preprocessor", images: tf.Tensor) -> tf.Tensor:
    """To [0, 1]: x / 255."""
    return images / 255.0


def plus_minus_one(to: "Preprocessor", images: tf.Tensor) -> tf.Tensor:
    """To [-1, 1]: x / 127.5 - 1."""
    return images / 127.5 - 1.0


def lenet(to: "Preprocessor", images: tf.Tensor) -> tf.Tensor:
    """(x - 128) / 128. TF-Slim's lenet_preprocessing."""
    return (images - 128.0) / 128.0


def minus_imagenet_mean(to: "Preprocessor", images: tf.Tensor) -> tf.Tensor:
    """Minus ImageNet's mean of each channel. TF-Slim's vgg_preprocessing."""
    return images - (VGG_MEAN if images.shape[-1] == 3 else GRAY_MEAN)


def minus_training_mean(to: "Preprocessor", images: tf.Tensor) -> tf.Tensor:
    """Minus the training pictures' mean of each channel. Raises UserError where the data have none."""
    if to.statistics.mean is None:
        raise UserError(
            f"--preprocessing {to.name} needs the mean and the principal components of the training pictures, which "
            "these data lack; choose another, such as vgg, or convert the data with python -m pipeline.convert"
        )
    return images - to.statistics.mean.astype(np.float32)


def standardize_picture(to: "Preprocessor", images: tf.Tensor) -> tf.Tensor:
    """Each picture to mean 0 and standard deviation 1."""
    return tf.image.per_image_standardization(images)


def min_max(to: "Preprocessor", images: tf.Tensor) -> tf.Tensor:
    """To [0, 1], each pixel by its minimum and maximum over the training pictures."""
    pixels = pixel_statistics(to)
    return _scale(to, images, pixels["minimum"], pixels["maximum"] - pixels["minimum"])


def standardize(to: "Preprocessor", images: tf.Tensor) -> tf.Tensor:
    """To mean 0 and standard deviation 1, each pixel by its own over the training pictures."""
    pixels = pixel_statistics(to)
    return _scale(to, images, pixels["mean"], pixels["deviation"])


def _scale(to: "Preprocessor", images: tf.Tensor, offset: np.ndarray, scale: np.ndarray) -> tf.Tensor:
    """(x - offset) / scale, then resized; pixels without variance are scaled by 1."""
    scale = np.where(scale == 0, 1.0, scale)
    return resize((images - offset.astype(np.float32)) / scale.astype(np.float32), to.size, to.size)


def pixel_statistics(to: "Preprocessor") -> dict[str, np.ndarray]:
    """Statistics of each pixel, float64 [H, W, C]. Raises UserError where the data have none."""
    if to.statistics.pixels is None:
        raise UserError(
            f"--preprocessing {to.name} needs {PIXEL_STATS} beside the shards, which convert writes when all training "
            f"pictures are of one size, at most {SMALL:,} pixels; choose another, such as cifar or unit"
        )
    return to.statistics.pixels
