"""Decoding and resizing: one decoder and one resize for training, evaluation, prediction and export."""

from typing import NamedTuple

from channels import USUAL
from sizes import PictureSize, Size, sides
from tfcompat import tf

Side = "int | tf.Tensor"  # a length in pixels


def decode(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """Decodes a JPEG or PNG file, a scalar string, to uint8 [H, W, channels], equal to OpenCV's decoder.

    A picture that is neither RGB nor grey is a grey PNG, [channels * H, W], with one channel below the other.
    """
    if channels not in USUAL:
        rows = tf.io.decode_png(encoded, 1)
        planes = tf.reshape(rows, [channels, tf.shape(rows)[0] // channels, tf.shape(rows)[1]])
        return tf.transpose(planes, [1, 2, 0])
    image = tf.cond(
        tf.image.is_jpeg(encoded),
        # The default DCT differs from OpenCV's by up to 21 of 255, at the same speed.
        lambda: tf.io.decode_jpeg(encoded, channels, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_png(encoded, channels),
    )
    image.set_shape([None, None, channels])
    return image


def resize(image: tf.Tensor, height: Side, width: Side) -> tf.Tensor:
    """Bilinear, on the grid of tf.image.resize and OpenCV (half-pixel centres), without antialiasing.

    From uint8 or float32 [H, W, C] to float32 [height, width, C].
    """
    # compat.v1's tf.image.resize has another grid. Bytes are not converted first: a picture of 12 megapixels would take
    # 144 MB. The result is the same; the cast is for a picture that has the size already, which is returned as it is.
    return tf.cast(tf.compat.v2.image.resize(image, tf.stack([height, width])), tf.float32)


def before_crop(size: PictureSize) -> Size:
    """What a picture is resized to cover before a crop of `size`: 256×256, the short side 256, for 224."""
    return Size(*(round(side * 256 / 224) for side in sides(size)))


class Picture(NamedTuple):
    """A picture that is not decoded yet."""

    encoded: tf.Tensor  # string [], JPEG or PNG
    channels: int
    height: tf.Tensor  # int32 []
    width: tf.Tensor
    in_part: bool = False  # whether only the needed part of a JPEG is decoded, at the least size that suffices

    @classmethod
    def of(cls, encoded: tf.Tensor, channels: int) -> "Picture":
        """Reads the size from the header, which costs 1 % of decoding."""
        size = tf.cond(
            tf.image.is_jpeg(encoded),
            lambda: tf.image.extract_jpeg_shape(encoded)[:2],
            # After 8 bytes of signature and 8 of chunk: width, then height, as big-endian int32.
            lambda: tf.reverse(tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False), [0]),
        )
        return cls(encoded, channels, size[0] if channels in USUAL else size[0] // channels, size[1])

    @property
    def sides(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Height and width, int32 []."""
        return self.height, self.width

    @property
    def short_side(self) -> tf.Tensor:
        """The smaller of height and width, int32 []."""
        return tf.minimum(self.height, self.width)

    def window(
        self, top: Side, left: Side, height: Side, width: Side, target_height: Side, target_width: Side
    ) -> tf.Tensor:
        """A part of the picture, resized: float32 [target_height, target_width, C], values 0 to 255.

        With in_part, as in training, only that part of a JPEG is decoded, and at a half, a quarter or an eighth of its
        size where that is no smaller than the target: the decoder then averages over pixels that the resize would have
        skipped. Else the whole picture is decoded, so that any other decoder gives the same numbers.
        """
        if not self.in_part or self.channels not in USUAL:  # which no JPEG has
            return resize(self._whole(top, left, height, width), target_height, target_width)
        # The smaller of the two ratios of the part to its target, as whole numbers.
        excess = tf.minimum(height // target_height, width // target_width)

        def decoded(ratio: int) -> tf.Tensor:
            # The part's sides are rounded as the decoder rounds the picture's, so a whole picture stays whole.
            part = tf.stack([top // ratio, left // ratio, -(-height // ratio), -(-width // ratio)])
            return tf.io.decode_and_crop_jpeg(
                self.encoded, part, self.channels, ratio=ratio, dct_method="INTEGER_ACCURATE"
            )

        image = tf.case(
            [
                (tf.logical_not(tf.image.is_jpeg(self.encoded)), lambda: self._whole(top, left, height, width)),
                *((excess >= ratio, lambda ratio=ratio: decoded(ratio)) for ratio in (8, 4, 2)),
            ],
            default=lambda: decoded(1),
        )
        image.set_shape([None, None, self.channels])
        return resize(image, target_height, target_width)

    def _whole(self, top: Side, left: Side, height: Side, width: Side) -> tf.Tensor:
        """A part of the picture, uint8 [height, width, C], of which all is decoded."""
        return decode(self.encoded, self.channels)[top : top + height, left : left + width]

    def resized(self, height: Side, width: Side) -> tf.Tensor:
        """The whole picture at a size, whatever its aspect: float32 [height, width, C], values 0 to 255."""
        return self.window(0, 0, self.height, self.width, height, width)

    def center(self, cover: PictureSize, height: int, width: int) -> tf.Tensor:
        """The centre of the picture after it is resized to just cover a size: float32 [height, width, C], 0 to 255.

        cover is the length of the short side, or a height and a width. Only the part of a very long picture that can
        reach the result is resized.
        """
        cover = sides(cover)
        most = 4 * -(-max(cover) // min(cover))  # the longest part, in short sides: 4 for a square
        long_side = tf.minimum(tf.maximum(self.height, self.width), most * self.short_side)
        part_height, part_width = tf.minimum(self.height, long_side), tf.minimum(self.width, long_side)
        ratios = (
            tf.cast(to, tf.float32) / tf.cast(side, tf.float32) for to, side in zip(cover, self.sides, strict=True)
        )
        scale = tf.maximum(*ratios)
        resized = [tf.cast(tf.round(tf.cast(side, tf.float32) * scale), tf.int32) for side in (part_height, part_width)]
        top, left = (self.height - part_height) // 2, (self.width - part_width) // 2
        image = self.window(top, left, part_height, part_width, *resized)
        return tf.image.resize_with_crop_or_pad(image, height, width)
