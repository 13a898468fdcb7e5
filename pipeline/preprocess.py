"""What a picture becomes, one family a row of PREPROCESSINGS: how its nets were trained, and how they are evaluated.

    family(picture, size, key, statistics) -> float32 [size, size, C]

`picture` is not yet decoded, so that a family that crops decodes no more than it needs. `key` is None in evaluation; in
training it is an integer tensor of shape [2], unique to (seed, epoch, position), from which every random choice
follows: a family folds a number of its own into it for each draw, since two draws from one key are identical.
`statistics` are those of the training pictures. Families of CENTER_CROPPED evaluate the centre of a larger picture and
take `crops=10`, after which they give [10, size, size, C]: corners, centre and their mirror images.

Evaluation is two parts: what of the picture is taken, and how its values are normalised. An exported graph holds the
second alone, or both.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.normalize import (
    as_lenets,
    as_they_are,
    min_max,
    minus_imagenets_mean,
    minus_trainings_mean,
    pixel_statistics,
    standardize,
    standardized_each,
    to_plus_minus_one,
    to_unit,
)
from pipeline.pictures import Picture
from pipeline.statistics import Statistics
from tfcompat import tf

stateless = tf.compat.v2.image  # compat.v1's tf.image has no stateless_* functions


@dataclass(frozen=True)
class Family:
    """A way to preprocess."""

    cut: Callable  # evaluation's pixels: (picture, size, statistics) -> float32 [H, W, C], 0 to 255
    normalize: Callable  # what the net gets of them: (images [..., H, W, C], size, statistics) -> [..., size, size, C]
    augmented: Callable | None = None  # training's: (picture, size, key, statistics) -> [size, size, C]

    def rule(self, size: int) -> dict:
        """What `cut` does, for whoever cuts pictures with other tools: its name and words, and the short side that
        center_crop resizes to."""
        if self.cut is center_crop:
            words = f"resize to a short side of {_larger(size)}, then cut out the centre"
            return {"cut": "center_crop", "short_side": _larger(size), "cut_in_words": words}
        if self.cut is central_part:
            words = "cut off 1/16 of the picture at each side, rounded down, then resize whatever the aspect"
            return {"cut": "central_part", "cut_in_words": words}
        return {"cut": "squash", "cut_in_words": "resize the whole picture, whatever its aspect"}

    def __call__(
        self, picture: Picture, size: int, key: "tf.Tensor | None", statistics: Statistics, crops: int = 1
    ) -> tf.Tensor:
        """What the net gets, as the head of this file says."""
        if key is not None and self.augmented is not None:
            return self.augmented(picture, size, key, statistics)
        if crops == 1:
            return self.normalize(self.cut(picture, size, statistics), size, statistics)
        larger = _larger(size)
        return self.normalize(ten_crops(picture.center(larger, larger, larger), size), size, statistics)


def _draw(key: tf.Tensor, draw: int, low: float, high: float) -> tf.Tensor:
    return tf.random.stateless_uniform([], tf.random.fold_in(key, draw), low, high)


def _flip(image: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    return stateless.stateless_random_flip_left_right(image, key)


def _random_crop(image: tf.Tensor, size: int, key: tf.Tensor) -> tf.Tensor:
    return stateless.stateless_random_crop(image, [size, size, image.shape[2]], key)


def _pad(image: tf.Tensor, border: int) -> tf.Tensor:
    return tf.pad(image, [[border, border], [border, border], [0, 0]])


def _larger(size: int) -> int:
    """The short side that a picture of `size` is cut from: 256 for 224."""
    return round(size * 256 / 224)


def ten_crops(image: tf.Tensor, size: int) -> tf.Tensor:
    """Corners and centre of [H, W, C], then their mirror images: [10, size, size, C] (Krizhevsky et al., 2012)."""
    height, width = tf.unstack(tf.shape(image)[:2])
    bottom, right = height - size, width - size
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = tf.stack([image[y : y + size, x : x + size] for y, x in corners])
    crops = tf.concat([crops, tf.reverse(crops, [2])], 0)
    crops.set_shape([10, size, size, image.shape[2]])
    return crops


# What evaluation takes of a picture


def squash(picture: Picture, size: int, statistics: Statistics) -> tf.Tensor:
    """All of it, whatever its aspect."""
    return picture.squashed(size, size)


def center_crop(picture: Picture, size: int, statistics: Statistics) -> tf.Tensor:
    """Short side 256 for 224, then the centre."""
    return picture.center(_larger(size), size, size)


def central_part(picture: Picture, size: int, statistics: Statistics) -> tf.Tensor:
    """The central 87.5 %, squashed."""
    border = [tf.cast(tf.cast(side, tf.float32) * (0.125 / 2), tf.int32) for side in (picture.height, picture.width)]
    inner = picture.height - 2 * border[0], picture.width - 2 * border[1]
    return picture.window(*border, *inner, size, size)


def squash_as_trained(family: str, picture: Picture, size: int, statistics: Statistics) -> tf.Tensor:
    """All of it, at the size of the training pictures."""
    return picture.squashed(*pixel_statistics(family, statistics)["mean"].shape[:2])


# What training makes of a picture


def digits(picture: Picture, size: int, key: tf.Tensor, statistics: Statistics) -> tf.Tensor:
    """Padded with zeros by an eighth of the size on each side, and cropped: digits move but are no mirror images."""
    return _random_crop(_pad(to_unit(picture.squashed(size, size), size, statistics), size // 8), size, key)


def flip(picture: Picture, size: int, key: tf.Tensor, statistics: Statistics) -> tf.Tensor:
    """Mirrored, every other time."""
    return _flip(to_unit(picture.squashed(size, size), size, statistics), key)


def cifar(picture: Picture, size: int, key: tf.Tensor, statistics: Statistics) -> tf.Tensor:
    """Padded with zeros by an eighth of the size on each side (4 of 32), cropped, flipped (He et al., arXiv:1512.03385,
    §4.2; without TF-Slim's brightness and contrast)."""
    image = _random_crop(_pad(picture.squashed(size, size), size // 8), size, tf.random.fold_in(key, 0))
    return standardized_each(_flip(image, tf.random.fold_in(key, 1)), size, statistics)


def vgg(picture: Picture, size: int, key: tf.Tensor, statistics: Statistics) -> tf.Tensor:
    """Short side 256 to 512, random crop, flip (arXiv:1409.1556, §3.1). TF-Slim's vgg_preprocessing."""
    # What a crop of the resized picture is in the picture as it was: only that is decoded.
    side = _draw(key, 0, _larger(size), round(size * 512 / 224) + 1.0)
    part = tf.cast(tf.round(tf.cast(picture.short_side, tf.float32) * size / tf.floor(side)), tf.int32)
    part = tf.clip_by_value(part, 1, picture.short_side)
    top, left = (
        tf.cast(_draw(key, draw, 0, 1) * tf.cast(room - part + 1, tf.float32), tf.int32)
        for draw, room in ((1, picture.height), (2, picture.width))
    )
    image = _flip(picture.window(top, left, part, part, size, size), tf.random.fold_in(key, 3))
    return minus_imagenets_mean(image, size, statistics)


def _random_box(picture: Picture, size: int, key: tf.Tensor, least_area: float) -> tf.Tensor:
    """A random box of the picture, of aspect 3/4 to 4/3, squashed and flipped or not, values 0 to 255."""
    begin, extent, _ = stateless.stateless_sample_distorted_bounding_box(
        tf.stack([picture.height, picture.width, picture.channels]),
        tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=tf.random.fold_in(key, 0),
        min_object_covered=least_area,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(least_area, 1.0),
    )
    image = picture.window(begin[0], begin[1], extent[0], extent[1], size, size)
    return _flip(image, tf.random.fold_in(key, 1))


def inception(picture: Picture, size: int, key: tf.Tensor, statistics: Statistics) -> tf.Tensor:
    """A random box of 5 to 100 % of the area and aspect 3/4 to 4/3, squashed, flip, brightness ±32/255, saturation 0.5
    to 1.5. TF-Slim's inception_preprocessing, fast."""
    image = _random_box(picture, size, key, 0.05) / 255.0
    image = stateless.stateless_random_brightness(image, 32 / 255, tf.random.fold_in(key, 2))
    if picture.channels == 3:
        image = stateless.stateless_random_saturation(image, 0.5, 1.5, tf.random.fold_in(key, 3))
    return tf.clip_by_value(image, 0.0, 1.0) * 2.0 - 1.0


def inception_crop(picture: Picture, size: int, key: tf.Tensor, statistics: Statistics) -> tf.Tensor:
    """A random box of 8 to 100 % of the area, squashed, flip, as torchvision's references train; no colours are
    changed."""
    return to_plus_minus_one(_random_box(picture, size, key, 0.08), size, statistics)


def alexnet(picture: Picture, size: int, key: tf.Tensor, statistics: Statistics) -> tf.Tensor:
    """A random crop of the central 256 × 256, flip, and noise along the principal components of RGB (Krizhevsky et al.,
    2012, §4.1; its mean is of each pixel, ours of each channel).

    The noise is α·σ·p for each component p, σ its deviation on the scale 0 to 255, α normal with deviation 0.1.
    """
    image = picture.center(_larger(size), _larger(size), _larger(size))
    image = _flip(_random_crop(image, size, tf.random.fold_in(key, 0)), tf.random.fold_in(key, 1))
    image = minus_trainings_mean(image, size, statistics)
    alpha = tf.random.stateless_normal([picture.channels], tf.random.fold_in(key, 2), stddev=0.1)
    # dataset.json's eigenvalues are variances; the noise is a tenth of a deviation.
    axes = np.sqrt(np.maximum(statistics.eigenvalues, 0))[:, None] * statistics.components
    return image + tf.linalg.matvec(axes.T.astype(np.float32), alpha)


def keras_affine(picture: Picture, size: int, key: tf.Tensor, statistics: Statistics) -> tf.Tensor:
    """Rotation ±40°, shifts ±20 %, shear ±0.2°, zoom ±20 % each way, flip; what lies outside is filled with the nearest
    pixel. Keras's ImageDataGenerator(rotation_range=40, width_shift_range=0.2, height_shift_range=0.2, shear_range=0.2,
    zoom_range=0.2, horizontal_flip=True)."""
    image = to_unit(picture.squashed(size, size), size, statistics)
    angle, shear = _draw(key, 0, -40, 40), _draw(key, 1, -0.2, 0.2)
    down, right = _draw(key, 2, -0.2, 0.2) * size, _draw(key, 3, -0.2, 0.2) * size
    image = affine(image, angle, down, right, shear, _draw(key, 4, 0.8, 1.2), _draw(key, 5, 0.8, 1.2))
    return _flip(image, tf.random.fold_in(key, 6))


def affine(
    image: tf.Tensor,
    angle: tf.Tensor,
    down: tf.Tensor,
    right: tf.Tensor,
    shear: tf.Tensor,
    zoom_y: tf.Tensor,
    zoom_x: tf.Tensor,
) -> tf.Tensor:
    """Keras's apply_affine_transform: bilinear, what lies outside is filled with the nearest pixel.

    Args:
        image: float32 [size, size, C].
        angle: degrees of rotation, a scalar as all that follow.
        down: shift in pixels.
        right: shift in pixels.
        shear: degrees.
        zoom_y: factor by which the picture shrinks along its height.
        zoom_x: the same along its width.
    """
    angle, shear = angle * (math.pi / 180), shear * (math.pi / 180)
    zero, one = tf.zeros([]), tf.ones([])

    def matrix(*rows: list) -> tf.Tensor:
        return tf.convert_to_tensor([*rows, [zero, zero, one]])

    center_y, center_x = ((side - 1) / 2 for side in image.shape[:2].as_list())
    # From a pixel of the result to one of the picture, in coordinates (y, x, 1).
    transform = (
        matrix([one, zero, one * center_y], [zero, one, one * center_x])
        @ matrix([tf.cos(angle), -tf.sin(angle), zero], [tf.sin(angle), tf.cos(angle), zero])
        @ matrix([one, zero, down], [zero, one, right])
        @ matrix([one, -tf.sin(shear), zero], [zero, tf.cos(shear), zero])
        @ matrix([zoom_y, zero, zero], [zero, zoom_x, zero])
        @ matrix([one, zero, -one * center_y], [zero, one, -one * center_x])
    )
    a, b = transform[0], transform[1]
    # The op takes x first: the eight numbers of a projective transform.
    projection = tf.stack([b[1], b[0], b[2], a[1], a[0], a[2], zero, zero])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None],
        transforms=projection[None],
        output_shape=tf.shape(image)[:2],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )[0]


PREPROCESSINGS: dict[str, Callable] = {
    "alexnet": Family(center_crop, minus_trainings_mean, alexnet),
    "cifar": Family(squash, standardized_each, cifar),
    "digits": Family(squash, to_unit, digits),
    "flip": Family(squash, to_unit, flip),
    "inception": Family(central_part, to_plus_minus_one, inception),
    "inception_crop": Family(center_crop, to_plus_minus_one, inception_crop),  # evaluated as by Keras and torchvision
    "keras_affine": Family(squash, to_unit, keras_affine),
    "lenet": Family(squash, as_lenets),
    "min_max": Family(partial(squash_as_trained, "min_max"), min_max),
    "none": Family(squash, as_they_are),
    "standardize": Family(partial(squash_as_trained, "standardize"), standardize),
    "unit": Family(squash, to_unit),
    "vgg": Family(center_crop, minus_imagenets_mean, vgg),
}
CENTER_CROPPED = tuple(name for name, family in PREPROCESSINGS.items() if family.cut is center_crop)
