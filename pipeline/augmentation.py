"""Augmentation: the random changes that training makes to pictures, one function for each preprocessing family.

    augment(preprocessor, picture, key) -> float32 [height, width, C]

Every random choice follows from the key; each draw folds a number of its own into it.
"""

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.pictures import Picture, before_crop
from sizes import PictureSize, sides
from tfcompat import tf

if TYPE_CHECKING:
    from pipeline.preprocess import Preprocessor

stateless = tf.compat.v2.image  # compat.v1's tf.image has no stateless_* functions


def draw(key: tf.Tensor, number: int, low: float, high: float) -> tf.Tensor:
    """A random float32 scalar from low to high; equal for the same key and number."""
    return tf.random.stateless_uniform([], tf.random.fold_in(key, number), low, high)


def random_flip(image: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """A picture [H, W, C] or its mirror image."""
    return stateless.stateless_random_flip_left_right(image, key)


def random_crop(image: tf.Tensor, size: PictureSize, key: tf.Tensor) -> tf.Tensor:
    """A random part of a picture [H, W, C], of a size: [height, width, C]."""
    return stateless.stateless_random_crop(image, [*sides(size), image.shape[2]], key)


def _padded(image: tf.Tensor) -> tf.Tensor:
    """A picture [H, W, C] with zeros at each side, an eighth of its length each."""
    height, width = (side // 8 for side in image.shape[:2].as_list())
    return tf.pad(image, [[height, height], [width, width], [0, 0]])


def digits(to: "Preprocessor", picture: Picture, key: tf.Tensor) -> tf.Tensor:
    """Shifts: zero padding of an eighth of the size on each side, then a random crop. Digits have no mirror images."""
    image = to.normalize(picture.resized(to.height, to.width))
    return random_crop(_padded(image), to.size, key)


def flip(to: "Preprocessor", picture: Picture, key: tf.Tensor) -> tf.Tensor:
    """Random mirror images."""
    return random_flip(to.normalize(picture.resized(to.height, to.width)), key)


def cifar(to: "Preprocessor", picture: Picture, key: tf.Tensor) -> tf.Tensor:
    """Zero padding of an eighth of the size on each side (4 of 32), a random crop, random mirror images.

    Source: He et al., arXiv:1512.03385, §4.2; without TF-Slim's brightness and contrast.
    """
    image = _padded(picture.resized(to.height, to.width))
    image = random_crop(image, to.size, tf.random.fold_in(key, 0))
    return to.normalize(random_flip(image, tf.random.fold_in(key, 1)))


def vgg(to: "Preprocessor", picture: Picture, key: tf.Tensor) -> tf.Tensor:
    """Short side 256 to 512 (for a size of 224), a random crop, random mirror images.

    Source: arXiv:1409.1556, §3.1, as TF-Slim's vgg_preprocessing. The short side of a size that is no square, such as
    224×320, is in place of its side: pictures are resized to cover 256×366 to 512×731.
    """
    size = min(to.height, to.width)
    side = tf.floor(draw(key, 0, min(before_crop(size)), round(size * 512 / 224) + 1.0))
    # The crop of the resized picture as a part of the original picture: only that is decoded. At the size of the crop
    # it would be the largest part of the crop's aspect; the resize to a longer side makes it smaller.
    height, width = (tf.cast(each, tf.float32) for each in picture.sides)
    largest = (tf.minimum(height, width * (to.height / to.width)), tf.minimum(width, height * (to.width / to.height)))
    part = [tf.cast(tf.round(each * size / side), tf.int32) for each in largest]
    part = [tf.clip_by_value(each, 1, room) for each, room in zip(part, picture.sides, strict=True)]
    top, left = (
        tf.cast(draw(key, number, 0, 1) * tf.cast(room - each + 1, tf.float32), tf.int32)
        for number, (room, each) in enumerate(zip(picture.sides, part, strict=True), start=1)
    )
    return to.normalize(random_flip(picture.window(top, left, *part, to.height, to.width), tf.random.fold_in(key, 3)))


def _random_box(to: "Preprocessor", picture: Picture, key: tf.Tensor, least_area: float) -> tf.Tensor:
    """A random box of the picture, aspect 3/4 to 4/3, resized, with random mirror images; values 0 to 255."""
    begin, extent, _ = stateless.stateless_sample_distorted_bounding_box(
        tf.stack([picture.height, picture.width, picture.channels]),
        tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=tf.random.fold_in(key, 0),
        min_object_covered=least_area,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(least_area, 1.0),
    )
    image = picture.window(begin[0], begin[1], extent[0], extent[1], to.height, to.width)
    return random_flip(image, tf.random.fold_in(key, 1))


def inception(to: "Preprocessor", picture: Picture, key: tf.Tensor) -> tf.Tensor:
    """A random box of 5 to 100 % of the area, mirror images, brightness ±32/255, and for RGB saturation 0.5 to 1.5.

    Source: TF-Slim's inception_preprocessing, fast mode.
    """
    image = _random_box(to, picture, key, 0.05) / 255.0
    image = stateless.stateless_random_brightness(image, 32 / 255, tf.random.fold_in(key, 2))
    if picture.channels == 3:
        image = stateless.stateless_random_saturation(image, 0.5, 1.5, tf.random.fold_in(key, 3))
    return tf.clip_by_value(image, 0.0, 1.0) * 2.0 - 1.0


def inception_crop(to: "Preprocessor", picture: Picture, key: tf.Tensor) -> tf.Tensor:
    """A random box of 8 to 100 % of the area and mirror images, as torchvision's references; colours stay."""
    return to.normalize(_random_box(to, picture, key, 0.08))


def alexnet(to: "Preprocessor", picture: Picture, key: tf.Tensor) -> tf.Tensor:
    """A random crop of the central 256 × 256, mirror images, and noise along the channels' principal components.

    The noise is α·σ·p for each component p, σ its standard deviation on the scale 0 to 255, α normal with standard
    deviation 0.1. Source: Krizhevsky et al., 2012, §4.1; their mean is of each pixel, ours of each channel.
    """
    larger = before_crop(to.size)
    image = random_crop(picture.center(larger, *larger), to.size, tf.random.fold_in(key, 0))
    image = to.normalize(random_flip(image, tf.random.fold_in(key, 1)))
    alpha = tf.random.stateless_normal([picture.channels], tf.random.fold_in(key, 2), stddev=0.1)
    # dataset.json's eigenvalues are variances.
    axes = np.sqrt(np.maximum(to.statistics.eigenvalues, 0))[:, None] * to.statistics.components
    return image + tf.linalg.matvec(axes.T.astype(np.float32), alpha)


class Affine(NamedTuple):
    """An affine transform of a picture; each value a float32 scalar."""

    angle: tf.Tensor  # degrees of rotation
    down: tf.Tensor  # shift in pixels
    right: tf.Tensor  # shift in pixels
    shear: tf.Tensor  # degrees
    zoom_y: tf.Tensor  # factor by which the picture shrinks along its height
    zoom_x: tf.Tensor  # the same along its width


def keras_affine(to: "Preprocessor", picture: Picture, key: tf.Tensor) -> tf.Tensor:
    """Rotation ±40°, shifts ±20 %, shear ±0.2°, zoom ±20 % in each direction, mirror images; nearest fill.

    Source: Keras's ImageDataGenerator(rotation_range=40, width_shift_range=0.2, height_shift_range=0.2,
    shear_range=0.2, zoom_range=0.2, horizontal_flip=True).
    """
    image = to.normalize(picture.resized(to.height, to.width))
    angle, shear = draw(key, 0, -40, 40), draw(key, 1, -0.2, 0.2)
    down, right = draw(key, 2, -0.2, 0.2) * to.height, draw(key, 3, -0.2, 0.2) * to.width
    by = Affine(angle, down, right, shear, zoom_y=draw(key, 4, 0.8, 1.2), zoom_x=draw(key, 5, 0.8, 1.2))
    return random_flip(affine(image, by), tf.random.fold_in(key, 6))


def affine(image: tf.Tensor, by: Affine) -> tf.Tensor:
    """Keras's apply_affine_transform on float32 [height, width, C]: bilinear, the outside takes the nearest pixel."""
    angle, shear = by.angle * (math.pi / 180), by.shear * (math.pi / 180)
    zero, one = tf.zeros([]), tf.ones([])

    def matrix(*rows: list) -> tf.Tensor:
        return tf.convert_to_tensor([*rows, [zero, zero, one]])

    center_y, center_x = ((side - 1) / 2 for side in image.shape[:2].as_list())
    # From a pixel of the result to one of the picture, in coordinates (y, x, 1).
    transform = (
        matrix([one, zero, one * center_y], [zero, one, one * center_x])
        @ matrix([tf.cos(angle), -tf.sin(angle), zero], [tf.sin(angle), tf.cos(angle), zero])
        @ matrix([one, zero, by.down], [zero, one, by.right])
        @ matrix([one, -tf.sin(shear), zero], [zero, tf.cos(shear), zero])
        @ matrix([by.zoom_y, zero, zero], [zero, by.zoom_x, zero])
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
