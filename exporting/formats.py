"""Writes a frozen graph, from `images` to `logits` and `probabilities`, in the formats of several runtimes.

A SavedModel may take picture files instead. It rejects files that are no pictures, and those that are too large.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from exporting.runtimes import FROZEN, ONNX, OUTPUTS, TFLITE
from pipeline.images import MAX_PIXELS
from pipeline.preprocess import Preprocessor
from tfcompat import eager_mode, tf

FILES = (FROZEN, TFLITE, ONNX, "saved_model.pb", "variables", "assets", "fingerprint.pb")  # that the writers make
ONNX_OPSET = 17
LARGE = 2**20  # numbers in a matrix
PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
PNG_HEADER_BYTES = 33
PARALLEL = 2  # pictures decoded at a time: a PNG of MAX_PIXELS takes 1 GB while it is decoded and resized


def save_model(graph: tf.GraphDef, directory: Path) -> None:
    """Writes a SavedModel with one signature."""
    _save_model(for_any_batch(graph), directory)


def _save_model(graph: tf.GraphDef, directory: Path) -> None:
    with tf.Graph().as_default():
        names = [f"{name}:0" for name in ("images", *OUTPUTS)]
        images, *outputs = tf.import_graph_def(graph, name="", return_elements=names)
        with tf.Session() as session:
            outputs = dict(zip(OUTPUTS, outputs, strict=True))
            tf.saved_model.simple_save(session, str(directory), {"images": images}, outputs)


def save_frozen(graph: tf.GraphDef, directory: Path) -> None:
    """Writes a GraphDef."""
    (directory / FROZEN).write_bytes(for_any_batch(graph).SerializeToString())


def for_any_batch(graph: tf.GraphDef) -> tf.GraphDef:
    """The graph for TensorFlow itself, where large matrices become defaults of placeholders.

    oneDNN keeps a constant matrix in the layout that is best for the first batch, and converts it at each step with
    another batch size: alexnet_v2 takes 124 ms for one picture after a batch of 8, and 14 to 25 ms with this change.
    """
    free = tf.GraphDef()
    free.CopyFrom(graph)
    for node in _large_matrices(free):
        name, shape = node.name, tf.AttrValue(shape=node.attr["value"].tensor.tensor_shape)
        node.name = f"{name}/value"
        attributes = {"dtype": node.attr["dtype"], "shape": shape}
        free.node.append(tf.NodeDef(name=name, op="PlaceholderWithDefault", input=[node.name], attr=attributes))
    return free


def _large_matrices(graph: tf.GraphDef) -> list[tf.NodeDef]:
    """The constants of a graph that are matrices of more than LARGE numbers."""
    found = []
    for node in graph.node:
        shape = [side.size for side in node.attr["value"].tensor.tensor_shape.dim] if node.op == "Const" else []
        if len(shape) == 2 and np.prod(shape) > LARGE:
            found.append(node)
    return found


def save_tflite(graph: tf.GraphDef, directory: Path) -> None:
    """Writes a float32 TFLite model with the SavedModel's signature."""
    with tempfile.TemporaryDirectory() as saved:
        _save_model(graph, Path(saved))
        with eager_mode():  # the converter of TensorFlow 1 omits the signature
            model = tf.compat.v2.lite.TFLiteConverter.from_saved_model(saved).convert()
    (directory / TFLITE).write_bytes(model)


def save_onnx(graph: tf.GraphDef, directory: Path) -> None:
    """Writes an ONNX model with the names of the outputs, and `images` in NHWC."""
    import onnx
    import tf2onnx  # takes a second

    # The converter copies all constants many times, 24 GB for VGG-16. Large matrices, which it does not change, are
    # inputs during the conversion and are put back after it.
    small, matrices = tf.GraphDef(), {}
    small.CopyFrom(graph)
    for node in _large_matrices(small):
        tensor = node.attr["value"].tensor
        matrices[f"{node.name}:0"] = tf.make_ndarray(tensor)
        attributes = {"dtype": node.attr["dtype"], "shape": tf.AttrValue(shape=tensor.tensor_shape)}
        node.CopyFrom(tf.NodeDef(name=node.name, op="Placeholder", attr=attributes))
    model, _ = tf2onnx.convert.from_graph_def(
        small,
        input_names=["images:0", *matrices],
        output_names=[f"{name}:0" for name in OUTPUTS],
        opset=ONNX_OPSET,
        tensors_to_rename={f"{name}:0": name for name in ("images", *OUTPUTS)},
    )
    for name, values in matrices.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    inputs = [value for value in model.graph.input if value.name not in matrices]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    (directory / ONNX).write_bytes(model.SerializeToString())


def save_file_model(graph: tf.GraphDef, preprocessor: Preprocessor, class_names: Sequence[str], path: Path) -> None:
    """Writes a SavedModel from picture files, string [N], to all class names and their probabilities, [N, classes], the
    most probable first."""
    with tf.Graph().as_default():
        files = tf.placeholder(tf.string, [None], "files")
        images, graph = cut_files(files, preprocessor), for_any_batch(graph)
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


WRITERS = {"saved_model": save_model, "frozen": save_frozen, "tflite": save_tflite, "onnx": save_onnx}
