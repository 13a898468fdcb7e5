"""Preprocessing: from an encoded picture to the net's input, in training and in evaluation.

    preprocessor = Preprocessor("vgg", size=224, channels=3, statistics=dataset.statistics)
    image = preprocessor.evaluate(preprocessor.picture(encoded))      # float32 [224, 224, 3]
    image = preprocessor.train(preprocessor.picture(encoded), key)

A family is a row of FAMILIES: how its nets were trained and how they are evaluated. Evaluation has two steps, the cut
of the picture and the normalization of its values; an exported graph holds the second, or both. Pictures are decoded
late, so that training decodes only the part that a random crop needs.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

import own_code
from errors import UserError, unknown
from pipeline import augmentation
from pipeline.pictures import Picture, before_crop, resize
from pipeline.statistics import PIXEL_STATS, SMALL, Statistics
from sizes import PictureSize, sides
from tfcompat import tf

VGG_MEAN = (123.68, 116.78, 103.94)  # RGB, of ImageNet
GRAY_MEAN = sum(VGG_MEAN) / 3
TORCH_MEAN, TORCH_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # RGB of ImageNet, of values in [0, 1]


def resize_whole(to: "Preprocessor", picture: Picture) -> tf.Tensor:
    """The whole picture, whatever its aspect."""
    return picture.resized(to.height, to.width)


def center_crop(to: "Preprocessor", picture: Picture) -> tf.Tensor:
    """Short side 256 for a size of 224, then the centre; for 224×320, so that the picture just covers 256×366."""
    return picture.center(before_crop(to.size), to.height, to.width)


def central_part(to: "Preprocessor", picture: Picture) -> tf.Tensor:
    """The central 87.5 %, resized whatever its aspect."""
    border = [tf.cast(tf.cast(side, tf.float32) * (0.125 / 2), tf.int32) for side in (picture.height, picture.width)]
    inner = picture.height - 2 * border[0], picture.width - 2 * border[1]
    return picture.window(*border, *inner, to.height, to.width)


def resize_to_training_size(to: "Preprocessor", picture: Picture) -> tf.Tensor:
    """The whole picture at the size of the training pictures, for which there are statistics of each pixel."""
    return picture.resized(*pixel_statistics(to)["mean"].shape[:2])


def unit(to: "Preprocessor", images: tf.Tensor) -> tf.Tensor:
    """To [0, 1]: x / 255."""
    return images / 255.0


def plus_minus_one(to: "Preprocessor", images: tf.Tensor) -> tf.Tensor:
    """To [-1, 1]: x / 127.5 - 1."""
    return images / 127.5 - 1.0


def minus_imagenet_mean(to: "Preprocessor", images: tf.Tensor) -> tf.Tensor:
    """Minus ImageNet's mean of each channel; of channels beyond RGB, and of one or two, the mean of RGB's.
    TF-Slim's vgg_preprocessing."""
    channels = images.shape[-1]
    return images - (GRAY_MEAN if channels < 3 else (*VGG_MEAN, *[GRAY_MEAN] * (channels - 3)))


def imagenet_standardized(to: "Preprocessor", images: tf.Tensor) -> tf.Tensor:
    """(x / 255 - mean) / deviation with ImageNet's of each channel; of channels beyond RGB, and of one or two, with the
    mean of RGB's. torchvision's and timm's Normalize."""
    channels = images.shape[-1]
    rgb = np.array([TORCH_MEAN, TORCH_DEVIATION])
    gray = rgb.mean(1, keepdims=True)
    values = gray if channels < 3 else np.concatenate([rgb, np.repeat(gray, channels - 3, 1)], 1)
    mean, deviation = (values * 255).astype(np.float32)
    return (images - mean) / deviation


def minus_training_mean(to: "Preprocessor", images: tf.Tensor) -> tf.Tensor:
    """Minus the training pictures' mean of each channel. Raises UserError where the data have none."""
    if to.statistics.mean is None:
        raise UserError(
            f"--preprocessing {to.name} needs the mean and the principal components of the training pictures, which "
            "these data lack; choose another, such as vgg, or convert the data with python -m pipeline.convert"
        )
    return images - to.statistics.mean.astype(np.float32)


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
    return resize((images - offset.astype(np.float32)) / scale.astype(np.float32), to.height, to.width)


def pixel_statistics(to: "Preprocessor") -> dict[str, np.ndarray]:
    """Statistics of each pixel, float64 [H, W, C]. Raises UserError where the data have none."""
    if to.statistics.pixels is None:
        raise UserError(
            f"--preprocessing {to.name} needs {PIXEL_STATS} beside the shards, which convert writes when all training "
            f"pictures are of one size, at most {SMALL:,} pixels; choose another, such as cifar or unit"
        )
    return to.statistics.pixels


class Family(NamedTuple):
    """A way to preprocess."""

    cut: Callable  # evaluation: (preprocessor, picture) -> float32 [H, W, C], 0 to 255
    normalize: Callable  # (preprocessor, float32 images [..., H, W, C], 0 to 255) -> float32 [..., height, width, C]
    augment: Callable | None = (
        None  # training: (preprocessor, picture, key) -> [height, width, C]; None as in evaluation
    )


FAMILIES = {
    "alexnet": Family(center_crop, minus_training_mean, augmentation.alexnet),
    # Each picture to mean 0 and standard deviation 1.
    "cifar": Family(resize_whole, lambda to, images: tf.image.per_image_standardization(images), augmentation.cifar),
    "digits": Family(resize_whole, unit, augmentation.digits),
    "flip": Family(resize_whole, unit, augmentation.flip),
    "inception": Family(central_part, plus_minus_one, augmentation.inception),
    # Evaluated as by Keras and torchvision.
    "inception_crop": Family(center_crop, plus_minus_one, augmentation.inception_crop),
    "keras_affine": Family(resize_whole, unit, augmentation.keras_affine),
    "lenet": Family(resize_whole, lambda to, images: (images - 128.0) / 128.0),  # TF-Slim's lenet_preprocessing
    "min_max": Family(resize_to_training_size, min_max),
    "none": Family(resize_whole, lambda to, images: images),
    "standardize": Family(resize_to_training_size, standardize),
    "torchvision": Family(center_crop, imagenet_standardized, augmentation.inception_crop),
    "unit": Family(resize_whole, unit),
    "vgg": Family(center_crop, minus_imagenet_mean, augmentation.vgg),
}
CENTER_CROPPED = tuple(name for name, family in FAMILIES.items() if family.cut is center_crop)
NO_STATISTICS = Statistics()


def find_family(name: str) -> Family:
    """A row of FAMILIES, or for FILE.py:NAME the user's own. Raises UserError for an unknown name."""
    if own_code.is_own(name):
        return _own_family(own_code.absolute(name))
    if name not in FAMILIES:
        raise unknown("preprocessing", name, FAMILIES)
    return FAMILIES[name]


def _own_family(name: str) -> Family:
    """A user's own family: a Family, or a function that is its `normalize`; their results are checked."""
    found = own_code.load(name, "preprocessing")
    if not isinstance(found, Family) and not callable(found):
        kind = type(found).__name__
        raise UserError(f"{name} is a {kind}; it must be a pipeline.preprocess.Family, or a function that normalizes")
    family = found if isinstance(found, Family) else Family(resize_whole, found)
    known = any(family.cut is each.cut for each in FAMILIES.values())  # crops and describe compare it
    return Family(
        family.cut if known else _checked(family.cut, name, "cut"),
        _checked(family.normalize, name, "normalize"),
        family.augment and _checked(family.augment, name, "augment"),
    )


def _checked(function: Callable, name: str, step: str) -> Callable:
    """A function of a user's own family that raises UserError where it fails, and where its result is not float32
    [height, width, C] as far as its shape is known; of `cut`, height and width are free."""

    @functools.wraps(function)
    def checked(to: "Preprocessor", images: "tf.Tensor | Picture", *key: tf.Tensor) -> tf.Tensor:
        try:
            result = function(to, images, *key)
        except own_code.FAILURES as error:
            raise own_code.mistake(own_code.split(name)[0], error) from error
        first = images.shape[:-3].as_list() if step == "normalize" else []
        shape = [*first, *([None, None] if step == "cut" else [to.height, to.width]), to.channels]
        if not tf.is_tensor(result) or result.dtype != tf.float32 or not result.shape.is_compatible_with(shape):
            given = f"{result.dtype.name} {_words(result.shape)}" if tf.is_tensor(result) else type(result).__name__
            raise UserError(f"{name}: its {step} returned {given}; it must return float32 {_words(shape)}")
        return result

    return checked


def _words(shape: "tf.TensorShape | list[int | None]") -> str:
    """A shape in words, such as [?, 224, 224, 3]."""
    if isinstance(shape, tf.TensorShape):
        if shape.rank is None:
            return "of an unknown shape"
        shape = shape.as_list()
    return f"[{', '.join('?' if side is None else str(side) for side in shape)}]"


@dataclass(frozen=True)
class Preprocessor:
    """A family at a size, with the statistics of the training pictures. Raises UserError for an unknown family."""

    name: str  # key of FAMILIES, or FILE.py:NAME
    size: PictureSize  # of the net's input: height and width of a square, or both
    channels: int  # 3 for RGB, 1 for grey, or another number up to 16
    statistics: Statistics = NO_STATISTICS

    def __post_init__(self):
        find_family(self.name)

    @property
    def family(self) -> Family:
        """The row of FAMILIES, or the user's own family."""
        return find_family(self.name)

    @property
    def height(self) -> int:
        """Height of the net's input in pixels."""
        return sides(self.size).height

    @property
    def width(self) -> int:
        """Width of the net's input in pixels."""
        return sides(self.size).width

    def picture(self, encoded: tf.Tensor) -> Picture:
        """A picture that is not decoded yet, of the bytes of a record's JPEG or PNG file, a scalar string."""
        return Picture.of(encoded, self.channels)

    def train(self, picture: Picture, key: tf.Tensor) -> tf.Tensor:
        """The net's input in training, float32 [height, width, C].

        key is an integer tensor of shape [2], unique to (seed, epoch, position). Every random choice follows from it: a
        family folds a number of its own into it for each draw, since two draws from one key are identical.
        """
        augment = self.family.augment
        return augment(self, picture._replace(in_part=True), key) if augment else self.evaluate(picture)

    def evaluate(self, picture: Picture) -> tf.Tensor:
        """The net's input in evaluation, float32 [height, width, C]."""
        return self.normalize(self.cut(picture))

    def cut(self, picture: Picture) -> tf.Tensor:
        """The pixels that evaluation uses, float32 [H, W, C], 0 to 255."""
        return self.family.cut(self, picture)

    def normalize(self, images: tf.Tensor) -> tf.Tensor:
        """The net's input for the pixels of `cut`: float32 [..., H, W, C] to [..., height, width, C]."""
        return self.family.normalize(self, images)

    def crops(self, picture: Picture) -> tf.Tensor:
        """Ten inputs of one picture, float32 [10, height, width, C]: corners, centre and their mirror images.

        Source: Krizhevsky et al., 2012. Raises UserError for families that do not evaluate a centre crop.
        """
        if self.family.cut is not center_crop:
            allowed = ", ".join(CENTER_CROPPED)
            raise UserError(f"--crops 10 with --preprocessing {self.name}: 10 crops are for {allowed}")
        larger = before_crop(self.size)
        return self.normalize(ten_crops(picture.center(larger, *larger), self.size))

    def describe(self) -> dict:
        """The cut as data, for programs that cut pictures with other tools; used in an export's metadata.json."""
        if self.family.cut is center_crop:
            height, width = before_crop(self.size)
            words = (
                f"resize, keeping the aspect, to just cover {height}×{width} (height×width), then cut out the centre"
            )
            if height == width:
                words = f"resize to a short side of {height}, then cut out the centre"
            short = {"short_side": height} if height == width else {}
            return {"cut": "center_crop", **short, "cover": [height, width], "cut_in_words": words}
        if self.family.cut is central_part:
            words = "cut off 1/16 of the picture at each side, rounded down, then resize whatever the aspect"
            return {"cut": "central_part", "cut_in_words": words}
        if self.family.cut in (resize_whole, resize_to_training_size):
            return {"cut": "squash", "cut_in_words": "resize the whole picture, whatever its aspect"}
        return {"cut": own_code.short(self.name), "cut_in_words": f"the function {self.family.cut.__name__}"}


def ten_crops(image: tf.Tensor, size: PictureSize) -> tf.Tensor:
    """Corners and centre of [H, W, C], then their mirror images: [10, height, width, C]."""
    height, width = sides(size)
    bottom, right = (whole - side for whole, side in zip(tf.unstack(tf.shape(image)[:2]), (height, width), strict=True))
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = tf.stack([image[y : y + height, x : x + width] for y, x in corners])
    crops = tf.concat([crops, tf.reverse(crops, [2])], 0)
    crops.set_shape([10, height, width, image.shape[2]])
    return crops
