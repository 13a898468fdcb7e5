"""Preprocessing: from an encoded picture to the net's input, in training and in evaluation.

    preprocessor = Preprocessor("vgg", size=224, channels=3, statistics=dataset.statistics)
    image = preprocessor.evaluate(preprocessor.picture(encoded))      # float32 [224, 224, 3]
    image = preprocessor.train(preprocessor.picture(encoded), key)

A family is a row of FAMILIES: how its nets were trained and how they are evaluated. Evaluation has two steps, the cut
of the picture and the normalization of its values; an exported graph holds the second, or both. Pictures are decoded
late, so that a family that crops decodes only the part it needs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from errors import UserError, unknown
from pipeline import augmentation, normalize
from pipeline.pictures import Picture, short_side_of
from pipeline.statistics import Statistics
from tfcompat import tf


def resize_whole(to: "Preprocessor", picture: Picture) -> tf.Tensor:
    """The whole picture, whatever its aspect."""
    return picture.resized(to.size, to.size)


def center_crop(to: "Preprocessor", picture: Picture) -> tf.Tensor:
    """Short side 256 for a size of 224, then the centre."""
    return picture.center(short_side_of(to.size), to.size, to.size)


def central_part(to: "Preprocessor", picture: Picture) -> tf.Tensor:
    """The central 87.5 %, resized whatever its aspect."""
    border = [tf.cast(tf.cast(side, tf.float32) * (0.125 / 2), tf.int32) for side in (picture.height, picture.width)]
    inner = picture.height - 2 * border[0], picture.width - 2 * border[1]
    return picture.window(*border, *inner, to.size, to.size)


def resize_to_training_size(to: "Preprocessor", picture: Picture) -> tf.Tensor:
    """The whole picture at the size of the training pictures, for which there are statistics of each pixel."""
    return picture.resized(*normalize.pixel_statistics(to)["mean"].shape[:2])


class Family(NamedTuple):
    """A way to preprocess."""

    cut: Callable  # evaluation: (preprocessor, picture) -> float32 [H, W, C], 0 to 255
    normalize: Callable  # (preprocessor, images [..., H, W, C]) -> [..., size, size, C]
    augment: Callable | None = None  # training: (preprocessor, picture, key) -> [size, size, C]; None as in evaluation


FAMILIES = {
    "alexnet": Family(center_crop, normalize.minus_training_mean, augmentation.alexnet),
    "cifar": Family(resize_whole, normalize.standardize_picture, augmentation.cifar),
    "digits": Family(resize_whole, normalize.unit, augmentation.digits),
    "flip": Family(resize_whole, normalize.unit, augmentation.flip),
    "inception": Family(central_part, normalize.plus_minus_one, augmentation.inception),
    # Evaluated as by Keras and torchvision.
    "inception_crop": Family(center_crop, normalize.plus_minus_one, augmentation.inception_crop),
    "keras_affine": Family(resize_whole, normalize.unit, augmentation.keras_affine),
    "lenet": Family(resize_whole, normalize.lenet),
    "min_max": Family(resize_to_training_size, normalize.min_max),
    "none": Family(resize_whole, normalize.unchanged),
    "standardize": Family(resize_to_training_size, normalize.standardize),
    "unit": Family(resize_whole, normalize.unit),
    "vgg": Family(center_crop, normalize.minus_imagenet_mean, augmentation.vgg),
}
CENTER_CROPPED = tuple(name for name, family in FAMILIES.items() if family.cut is center_crop)


NO_STATISTICS = Statistics()


def find_family(name: str) -> Family:
    """A row of FAMILIES. Raises UserError for an unknown name."""
    if name not in FAMILIES:
        raise unknown("preprocessing", name, FAMILIES)
    return FAMILIES[name]


@dataclass(frozen=True)
class Preprocessor:
    """A family at a size, with the statistics of the training pictures. Raises UserError for an unknown family."""

    name: str  # key of FAMILIES
    size: int  # height and width of the net's input
    channels: int  # 3 for RGB, 1 for grey
    statistics: Statistics = NO_STATISTICS

    def __post_init__(self):
        find_family(self.name)

    @property
    def family(self) -> Family:
        """The row of FAMILIES."""
        return find_family(self.name)

    def picture(self, encoded: tf.Tensor) -> Picture:
        """A picture that is not decoded yet, of the bytes of a JPEG or PNG file, a scalar string."""
        return Picture.of(encoded, self.channels)

    def train(self, picture: Picture, key: tf.Tensor) -> tf.Tensor:
        """The net's input in training, float32 [size, size, C].

        key is an integer tensor of shape [2], unique to (seed, epoch, position). Every random choice follows from it: a
        family folds a number of its own into it for each draw, since two draws from one key are identical.
        """
        if self.family.augment is None:
            return self.evaluate(picture)
        return self.family.augment(self, picture, key)

    def evaluate(self, picture: Picture) -> tf.Tensor:
        """The net's input in evaluation, float32 [size, size, C]."""
        return self.normalize(self.cut(picture))

    def cut(self, picture: Picture) -> tf.Tensor:
        """The pixels that evaluation uses, float32 [H, W, C], 0 to 255."""
        return self.family.cut(self, picture)

    def normalize(self, images: tf.Tensor) -> tf.Tensor:
        """The net's input for the pixels of `cut`: float32 [..., H, W, C] to [..., size, size, C]."""
        return self.family.normalize(self, images)

    def crops(self, picture: Picture) -> tf.Tensor:
        """Ten inputs of one picture, float32 [10, size, size, C]: corners, centre and their mirror images.

        Source: Krizhevsky et al., 2012. Raises UserError for families that do not evaluate a centre crop.
        """
        if self.name not in CENTER_CROPPED:
            raise UserError(
                f"--crops 10 with --preprocessing {self.name}: 10 crops are for {', '.join(CENTER_CROPPED)}"
            )
        larger = short_side_of(self.size)
        return self.normalize(ten_crops(picture.center(larger, larger, larger), self.size))

    def describe(self) -> dict:
        """The cut as data, for programs that cut pictures with other tools; used in an export's metadata.json."""
        if self.family.cut is center_crop:
            short = short_side_of(self.size)
            words = f"resize to a short side of {short}, then cut out the centre"
            return {"cut": "center_crop", "short_side": short, "cut_in_words": words}
        if self.family.cut is central_part:
            words = "cut off 1/16 of the picture at each side, rounded down, then resize whatever the aspect"
            return {"cut": "central_part", "cut_in_words": words}
        return {"cut": "squash", "cut_in_words": "resize the whole picture, whatever its aspect"}


def ten_crops(image: tf.Tensor, size: int) -> tf.Tensor:
    """Corners and centre of [H, W, C], then their mirror images: [10, size, size, C]."""
    height, width = tf.unstack(tf.shape(image)[:2])
    bottom, right = height - size, width - size
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = tf.stack([image[y : y + size, x : x + size] for y, x in corners])
    crops = tf.concat([crops, tf.reverse(crops, [2])], 0)
    crops.set_shape([10, size, size, image.shape[2]])
    return crops
