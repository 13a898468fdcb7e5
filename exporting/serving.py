"""Picture files to pixels within an exported graph, which meets files that nobody has looked at before."""

from pipeline.images import MAX_PIXELS
from pipeline.pictures import Picture
from pipeline.preprocess import PREPROCESSINGS
from pipeline.statistics import Statistics
from tfcompat import tf

PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
PNG_HEADER_BYTES = 33
# A PNG of MAX_PIXELS takes 1 GB while it is decoded and resized.
AT_A_TIME = 2


def cut_files(encoded: tf.Tensor, channels: int, preprocessing: str, size: int, statistics: Statistics) -> tf.Tensor:
    """What evaluation takes of pictures: string [N], JPEG or PNG, to float32 [N, H, W, C], 0 to 255.

    In the running graph, InvalidArgumentError says which of them is no such file, or promises more than MAX_PIXELS:
    that is read from the header, before anything is decoded.
    """

    @tf.autograph.experimental.do_not_convert
    def cut(of_one: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        data, number = of_one
        is_png = tf.strings.length(data) > PNG_HEADER_BYTES
        is_png &= tf.equal(tf.strings.substr(data, 0, len(PNG_START)), PNG_START)
        known = tf.Assert(tf.image.is_jpeg(data) | is_png, ["picture", number, "of the batch is neither JPEG nor PNG"])
        with tf.control_dependencies([known]):
            picture = Picture.of(tf.identity(data), channels)
        sides = tf.cast(picture.height, tf.int64), tf.cast(picture.width, tf.int64)
        sound = (sides[0] > 0) & (sides[1] > 0) & (sides[0] * sides[1] <= MAX_PIXELS)
        told = ["picture", number, "of the batch promises height and width", *sides, f"; at most {MAX_PIXELS:,} pixels"]
        with tf.control_dependencies([tf.Assert(sound, told)]):
            picture = picture._replace(encoded=tf.identity(data))
        return PREPROCESSINGS[preprocessing].cut(picture, size, statistics)

    numbers = tf.range(tf.shape(encoded)[0])
    return tf.map_fn(cut, (encoded, numbers), dtype=tf.float32, parallel_iterations=AT_A_TIME)
