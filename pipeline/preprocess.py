"""What a picture becomes, one family a function: how its nets were trained, and how they are evaluated.

    family(picture, size, key, statistics) -> float32 [size, size, C]

`picture` is not yet decoded, so that a family that crops decodes no more than it needs. `key` is None in evaluation; in
training it is an integer tensor of shape [2], unique to (seed, epoch, position), from which every random choice
follows: a family folds a number of its own into it for each draw, since two draws from one key are identical.
`statistics` are those of the training pictures. Families of CENTER_CROPPED evaluate the centre of a larger picture and
take `crops=10`, after which they give [10, size, size, C]: corners, centre and their mirror images.
"""

import math
from collections.abc import Callable

import numpy as np

from errors import UserError
from pipeline.pictures import Picture, resize
from pipeline.statistics import PIXEL_STATS, SMALL, Statistics
from tfcompat import tf

stateless = tf.compat.v2.image  # compat.v1's tf.image has no stateless_* functions

VGG_MEAN = (123.68, 116.78, 103.94)  # RGB, of ImageNet
GRAY_MEAN = sum(VGG_MEAN) / 3
Key = "tf.Tensor | None"


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


def _center_crops(picture: Picture, size: int, crops: int) -> tf.Tensor:
    if crops == 1:
        return picture.center(_larger(size), size, size)
    return ten_crops(picture.center(_larger(size), _larger(size), _larger(size)), size)


def ten_crops(image: tf.Tensor, size: int) -> tf.Tensor:
    """Corners and centre of [H, W, C], then their mirror images: [10, size, size, C] (Krizhevsky et al., 2012)."""
    height, width = tf.unstack(tf.shape(image)[:2])
    bottom, right = height - size, width - size
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = tf.stack([image[y : y + size, x : x + size] for y, x in corners])
    crops = tf.concat([crops, tf.reverse(crops, [2])], 0)
    crops.set_shape([10, size, size, image.shape[2]])
    return crops


def none(picture: Picture, size: int, key: Key, statistics: Statistics) -> tf.Tensor:
    """Squashed to size, values 0 to 255. No augmentation."""
    return picture.squashed(size, size)


def unit(picture: Picture, size: int, key: Key, statistics: Statistics) -> tf.Tensor:
    """Squashed to size, x / 255. No augmentation."""
    return picture.squashed(size, size) / 255.0


def digits(picture: Picture, size: int, key: Key, statistics: Statistics) -> tf.Tensor:
    """As unit; training pads an eighth of the size with zeros on each side and crops: digits move but are no mirror
    images."""
    image = unit(picture, size, None, statistics)
    if key is not None:
        image = _random_crop(_pad(image, size // 8), size, key)
    return image


def lenet(picture: Picture, size: int, key: Key, statistics: Statistics) -> tf.Tensor:
    """Squashed to size, (x - 128) / 128. No augmentation. TF-Slim's lenet_preprocessing."""
    return (picture.squashed(size, size) - 128.0) / 128.0


def _pixels(family: str, statistics: Statistics) -> dict[str, np.ndarray]:
    if statistics.pixels is None:
        raise UserError(
            f"--preprocessing {family} needs {PIXEL_STATS} beside the shards, which convert writes when all training "
            f"pictures are of one size, at most {SMALL:,} pixels; choose another, such as cifar or unit"
        )
    return statistics.pixels


def _scaled(picture: Picture, size: int, offset: np.ndarray, scale: np.ndarray) -> tf.Tensor:
    """(x - offset) / scale at the size of the statistics, then at `size`; pixels without variance are scaled by 1."""
    height, width = offset.shape[:2]
    scale = np.where(scale == 0, 1.0, scale)
    return resize((picture.squashed(height, width) - offset.astype(np.float32)) / scale.astype(np.float32), size, size)


def min_max(picture: Picture, size: int, key: Key, statistics: Statistics) -> tf.Tensor:
    """To [0, 1], each pixel by its minimum and maximum over the training pictures. No augmentation."""
    pixels = _pixels("min_max", statistics)
    return _scaled(picture, size, pixels["minimum"], pixels["maximum"] - pixels["minimum"])


def standardize(picture: Picture, size: int, key: Key, statistics: Statistics) -> tf.Tensor:
    """To mean 0 and deviation 1, each pixel by its mean and deviation over the training pictures. No augmentation."""
    pixels = _pixels("standardize", statistics)
    return _scaled(picture, size, pixels["mean"], pixels["deviation"])


def cifar(picture: Picture, size: int, key: Key, statistics: Statistics) -> tf.Tensor:
    """Squashed to size, mean 0 and deviation 1 over the picture. Training pads an eighth of the size with zeros on each
    side (4 of 32), crops and flips (He et al., arXiv:1512.03385, §4.2; without TF-Slim's brightness and contrast)."""
    image = picture.squashed(size, size)
    if key is not None:
        image = _flip(_random_crop(_pad(image, size // 8), size, tf.random.fold_in(key, 0)), tf.random.fold_in(key, 1))
    return tf.image.per_image_standardization(image)


def vgg(picture: Picture, size: int, key: Key, statistics: Statistics, crops: int = 1) -> tf.Tensor:
    """Minus ImageNet's mean. Evaluation: short side 256 for 224, centre crop. Training: short side 256 to 512, random
    crop, flip (arXiv:1409.1556, §3.1). TF-Slim's vgg_preprocessing."""
    if key is None:
        image = _center_crops(picture, size, crops)
    else:
        # What a crop of the resized picture is in the picture as it was: only that is decoded.
        side = _draw(key, 0, _larger(size), round(size * 512 / 224) + 1.0)
        part = tf.cast(tf.round(tf.cast(picture.short_side, tf.float32) * size / tf.floor(side)), tf.int32)
        part = tf.clip_by_value(part, 1, picture.short_side)
        top, left = (
            tf.cast(_draw(key, draw, 0, 1) * tf.cast(room - part + 1, tf.float32), tf.int32)
            for draw, room in ((1, picture.height), (2, picture.width))
        )
        image = _flip(picture.window(top, left, part, part, size, size), tf.random.fold_in(key, 3))
    return image - (VGG_MEAN if picture.channels == 3 else GRAY_MEAN)


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


def inception(picture: Picture, size: int, key: Key, statistics: Statistics) -> tf.Tensor:
    """To [-1, 1]. Evaluation: the central 87.5 %, squashed. Training: a random box of 5 to 100 % of the area and aspect
    3/4 to 4/3, squashed, flip, brightness ±32/255, saturation 0.5 to 1.5. TF-Slim's inception_preprocessing, fast."""
    if key is None:
        border = [
            tf.cast(tf.cast(side, tf.float32) * (0.125 / 2), tf.int32) for side in (picture.height, picture.width)
        ]
        inner = picture.height - 2 * border[0], picture.width - 2 * border[1]
        return picture.window(*border, *inner, size, size) / 127.5 - 1.0
    image = _random_box(picture, size, key, 0.05) / 255.0
    image = stateless.stateless_random_brightness(image, 32 / 255, tf.random.fold_in(key, 2))
    if picture.channels == 3:
        image = stateless.stateless_random_saturation(image, 0.5, 1.5, tf.random.fold_in(key, 3))
    return tf.clip_by_value(image, 0.0, 1.0) * 2.0 - 1.0


def inception_crop(picture: Picture, size: int, key: Key, statistics: Statistics, crops: int = 1) -> tf.Tensor:
    """To [-1, 1]. Evaluation: short side 256 for 224, centre crop, as Keras and torchvision evaluate. Training: a
    random box of 8 to 100 % of the area, squashed, flip, as torchvision's references train; no colours are changed."""
    if key is not None:
        return _random_box(picture, size, key, 0.08) / 127.5 - 1.0
    return _center_crops(picture, size, crops) / 127.5 - 1.0


def alexnet(picture: Picture, size: int, key: Key, statistics: Statistics, crops: int = 1) -> tf.Tensor:
    """Minus the mean of the training pictures. Evaluation: short side 256 for 224, centre crop. Training: a random crop
    of the central 256 × 256, flip, and noise along the principal components of RGB (Krizhevsky et al., 2012, §4.1; its
    mean is of each pixel, ours of each channel).

    The noise is α·σ·p for each component p, σ its deviation on the scale 0 to 255, α normal with deviation 0.1.
    """
    if statistics.mean is None:
        raise UserError(
            "--preprocessing alexnet needs the training pictures' mean and principal components, which these data "
            "lack; choose another, such as vgg, or convert the data with python -m pipeline.convert"
        )
    if key is None:
        return _center_crops(picture, size, crops) - statistics.mean.astype(np.float32)
    image = picture.center(_larger(size), _larger(size), _larger(size))
    image = _flip(_random_crop(image, size, tf.random.fold_in(key, 0)), tf.random.fold_in(key, 1))
    alpha = tf.random.stateless_normal([picture.channels], tf.random.fold_in(key, 2), stddev=0.1)
    # dataset.json's eigenvalues are variances; the noise is a tenth of a deviation.
    axes = np.sqrt(np.maximum(statistics.eigenvalues, 0))[:, None] * statistics.components
    return image - statistics.mean.astype(np.float32) + tf.linalg.matvec(axes.T.astype(np.float32), alpha)


def keras_affine(picture: Picture, size: int, key: Key, statistics: Statistics) -> tf.Tensor:
    """Squashed to size, x / 255. Training: rotation ±40°, shifts ±20 %, shear ±0.2°, zoom ±20 % each way, flip; what
    lies outside is filled with the nearest pixel. Keras's ImageDataGenerator(rotation_range=40,
    width_shift_range=0.2, height_shift_range=0.2, shear_range=0.2, zoom_range=0.2, horizontal_flip=True)."""
    image = unit(picture, size, None, statistics)
    if key is None:
        return image
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
    f.__name__: f
    for f in (
        *(
            alexnet,
            cifar,
            digits,
            inception,
            inception_crop,
            keras_affine,
            lenet,
            min_max,
            none,
            standardize,
            unit,
            vgg,
        ),
    )
}
CENTER_CROPPED = ("alexnet", "inception_crop", "vgg")
