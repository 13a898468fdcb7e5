"""Writes a frozen graph, from `images` to `logits` and `probabilities`, in the formats of several runtimes."""

import tempfile
from pathlib import Path

import numpy as np

from exporting.runtimes import FROZEN, ONNX, OUTPUTS, TFLITE
from tfcompat import eager_mode, tf

ONNX_OPSET = 17
LARGE = 2**20  # numbers in a matrix


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


WRITERS = {"saved_model": save_model, "frozen": save_frozen, "tflite": save_tflite, "onnx": save_onnx}
