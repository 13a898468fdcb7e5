"""What a decoded picture becomes, one family a function: how its nets were trained, and how they are evaluated.

    family(image, size, key) -> float32 [size, size, C]

`image` is float32 [H, W, C] with values 0 to 255. `key` is None in evaluation; in training it is an integer tensor of
shape [2], unique to (seed, epoch, position), from which every random choice follows: a family folds a number of its own
into it for each draw, since two draws from one key are identical.
"""

from collections.abc import Callable

from tfcompat import tf

stateless = tf.compat.v2.image  # compat.v1's tf.image has no stateless_* functions

VGG_MEAN = (123.68, 116.78, 103.94)  # RGB, of ImageNet
GRAY_MEAN = sum(VGG_MEAN) / 3


def decode(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """Decodes a JPEG or PNG file, a scalar string, to uint8 [H, W, channels], equal to OpenCV's decoder."""
    image = tf.cond(
        tf.image.is_jpeg(encoded),
        # The default DCT differs from OpenCV's by up to 21 of 255, at the same speed.
        lambda: tf.io.decode_jpeg(encoded, channels, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_png(encoded, channels),
    )
    image.set_shape([None, None, channels])
    return image


def resize(image: tf.Tensor, height: "int | tf.Tensor", width: "int | tf.Tensor") -> tf.Tensor:
    """Bilinear, on the grid of tf.image.resize and OpenCV (half-pixel centres), without antialiasing: the one resize
    of training, evaluation, prediction and export."""
    return stateless.resize(image, tf.stack([height, width]))


def _resize_short_side(image: tf.Tensor, short_side: "int | tf.Tensor") -> tf.Tensor:
    shape = tf.shape(image)
    scale = tf.cast(short_side, tf.float32) / tf.cast(tf.minimum(shape[0], shape[1]), tf.float32)
    height, width = (tf.cast(tf.round(tf.cast(side, tf.float32) * scale), tf.int32) for side in (shape[0], shape[1]))
    return resize(image, height, width)


def _center_crop(image: tf.Tensor, size: int) -> tf.Tensor:
    """Short side 256 for 224, then the centre."""
    return tf.image.resize_with_crop_or_pad(_resize_short_side(image, round(size * 256 / 224)), size, size)


def _flip(image: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    return stateless.stateless_random_flip_left_right(image, key)


def _pad(image: tf.Tensor, border: int) -> tf.Tensor:
    return tf.pad(image, [[border, border], [border, border], [0, 0]])


def _random_crop(image: tf.Tensor, size: int, key: tf.Tensor) -> tf.Tensor:
    return stateless.stateless_random_crop(image, [size, size, image.shape[2]], key)


def unit(image: tf.Tensor, size: int, key: tf.Tensor | None) -> tf.Tensor:
    """Squashed to size, x / 255. No augmentation."""
    return resize(image, size, size) / 255.0


def digits(image: tf.Tensor, size: int, key: tf.Tensor | None) -> tf.Tensor:
    """As unit; training pads an eighth of the size with zeros on each side and crops: digits move but are no mirror
    images."""
    image = unit(image, size, None)
    if key is not None:
        image = _random_crop(_pad(image, size // 8), size, key)
    return image


def lenet(image: tf.Tensor, size: int, key: tf.Tensor | None) -> tf.Tensor:
    """Squashed to size, (x - 128) / 128. No augmentation. TF-Slim's lenet_preprocessing."""
    return (resize(image, size, size) - 128.0) / 128.0


def cifar(image: tf.Tensor, size: int, key: tf.Tensor | None) -> tf.Tensor:
    """Squashed to size, mean 0 and deviation 1 over the picture. Training pads an eighth of the size with zeros on each
    side (4 of 32), crops and flips (He et al., arXiv:1512.03385, §4.2; without TF-Slim's brightness and contrast)."""
    image = resize(image, size, size)
    if key is not None:
        image = _flip(_random_crop(_pad(image, size // 8), size, tf.random.fold_in(key, 0)), tf.random.fold_in(key, 1))
    return tf.image.per_image_standardization(image)


def vgg(image: tf.Tensor, size: int, key: tf.Tensor | None) -> tf.Tensor:
    """Minus ImageNet's mean. Evaluation: short side 256 for 224, centre crop. Training: short side 256 to 512, random
    crop, flip (arXiv:1409.1556, §3.1). TF-Slim's vgg_preprocessing."""
    if key is None:
        image = _center_crop(image, size)
    else:
        lowest, highest = round(size * 256 / 224), round(size * 512 / 224)
        side = tf.random.stateless_uniform([], tf.random.fold_in(key, 0), lowest, highest + 1, tf.int32)
        image = _resize_short_side(image, side)
        image = _flip(_random_crop(image, size, tf.random.fold_in(key, 1)), tf.random.fold_in(key, 2))
    return image - (VGG_MEAN if image.shape[2] == 3 else GRAY_MEAN)


def inception(image: tf.Tensor, size: int, key: tf.Tensor | None) -> tf.Tensor:
    """To [-1, 1]. Evaluation: the central 87.5 %, squashed. Training: a random box of 5 to 100 % of the area and aspect
    3/4 to 4/3, squashed, flip, brightness ±32/255, saturation 0.5 to 1.5. TF-Slim's inception_preprocessing, fast."""
    if key is None:
        return resize(tf.image.central_crop(image, 0.875), size, size) / 127.5 - 1.0
    begin, extent, _ = stateless.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=tf.random.fold_in(key, 0),
        min_object_covered=0.05,
        aspect_ratio_range=(0.75, 1.33),
        area_range=(0.05, 1.0),
    )
    channels = image.shape[2]
    image = tf.slice(image, begin, extent)
    image.set_shape([None, None, channels])
    image = _flip(resize(image, size, size) / 255.0, tf.random.fold_in(key, 1))
    image = stateless.stateless_random_brightness(image, 32 / 255, tf.random.fold_in(key, 2))
    if channels == 3:
        image = stateless.stateless_random_saturation(image, 0.5, 1.5, tf.random.fold_in(key, 3))
    return tf.clip_by_value(image, 0.0, 1.0) * 2.0 - 1.0


def inception_crop(image: tf.Tensor, size: int, key: tf.Tensor | None) -> tf.Tensor:
    """To [-1, 1]. Evaluation: short side 256 for 224, centre crop, as Keras and torchvision evaluate. Training: as
    inception."""
    if key is not None:
        return inception(image, size, key)
    return _center_crop(image, size) / 127.5 - 1.0


PREPROCESSINGS: dict[str, Callable] = {
    f.__name__: f for f in (cifar, digits, inception, inception_crop, lenet, unit, vgg)
}
