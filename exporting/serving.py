"""A SavedModel that takes picture files. It rejects files that are no pictures, and those that are too large."""

from collections.abc import Sequence
from pathlib import Path

from exporting import formats
from pipeline.images import MAX_PIXELS
from pipeline.preprocess import Preprocessor
from tfcompat import tf

PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
PNG_HEADER_BYTES = 33
PARALLEL = 2  # pictures decoded at a time: a PNG of MAX_PIXELS takes 1 GB while it is decoded and resized


def save_file_model(graph: tf.GraphDef, preprocessor: Preprocessor, class_names: Sequence[str], path: Path) -> None:
    """Writes a SavedModel from picture files, string [N], to all class names and their probabilities, [N, classes], the
    most probable first."""
    with tf.Graph().as_default():
        files = tf.placeholder(tf.string, [None], "files")
        images, graph = cut_files(files, preprocessor), formats.for_any_batch(graph)
        (probabilities,) = tf.import_graph_def(graph, {"images": images}, ["probabilities:0"], name="")
        probabilities, labels = tf.math.top_k(probabilities, len(class_names))
        outputs = {"classes": tf.gather(tf.constant(class_names), labels), "probabilities": probabilities}
        with tf.Session() as session:
            tf.saved_model.simple_save(session, str(path), {"files": files}, outputs)


def cut_files(encoded: tf.Tensor, preprocessor: Preprocessor) -> tf.Tensor:
    """The pixels that evaluation uses of JPEG and PNG files: string [N] to float32 [N, H, W, C], 0 to 255.

    When the graph runs, InvalidArgumentError names the first file that is neither, or whose header has more than
    MAX_PIXELS; the header is checked before anything is decoded.
    """

    @tf.autograph.experimental.do_not_convert
    def cut(of_one: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        data, number = of_one
        is_png = tf.strings.length(data) > PNG_HEADER_BYTES
        is_png &= tf.equal(tf.strings.substr(data, 0, len(PNG_START)), PNG_START)
        known = tf.Assert(tf.image.is_jpeg(data) | is_png, ["picture", number, "of the batch is neither JPEG nor PNG"])
        with tf.control_dependencies([known]):
            picture = preprocessor.picture(tf.identity(data))
        sides = tf.cast(picture.height, tf.int64), tf.cast(picture.width, tf.int64)
        sound = (sides[0] > 0) & (sides[1] > 0) & (sides[0] * sides[1] <= MAX_PIXELS)
        message = ["the header of picture", number, "of the batch has height and width", *sides]
        message.append(f"; at most {MAX_PIXELS:,} pixels are allowed")
        with tf.control_dependencies([tf.Assert(sound, message)]):
            picture = picture._replace(encoded=tf.identity(data))
        return preprocessor.cut(picture)

    numbers = tf.range(tf.shape(encoded)[0])
    return tf.map_fn(cut, (encoded, numbers), dtype=tf.float32, parallel_iterations=PARALLEL)
