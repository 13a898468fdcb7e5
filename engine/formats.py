"""A frozen graph, from `images` to `logits` and `probabilities`, in the formats of the runtimes that read it."""

import tempfile
from pathlib import Path

from engine.runtimes import FROZEN, ONNX, OUTPUTS, TFLITE
from tfcompat import eager_mode, tf

ONNX_OPSET = 17


def save_model(graph: tf.GraphDef, directory: Path) -> None:
    """A SavedModel with one signature."""
    with tf.Graph().as_default():
        names = [f"{name}:0" for name in ("images", *OUTPUTS)]
        images, *outputs = tf.import_graph_def(graph, name="", return_elements=names)
        with tf.Session() as session:
            outputs = dict(zip(OUTPUTS, outputs, strict=True))
            tf.saved_model.simple_save(session, str(directory), {"images": images}, outputs)


def save_frozen(graph: tf.GraphDef, directory: Path) -> None:
    """The graph as it is."""
    (directory / FROZEN).write_bytes(graph.SerializeToString())


def save_tflite(graph: tf.GraphDef, directory: Path) -> None:
    """float32 throughout, with the SavedModel's signature."""
    with tempfile.TemporaryDirectory() as saved:
        save_model(graph, Path(saved))
        with eager_mode():  # TensorFlow 1's converter leaves the signature out
            model = tf.compat.v2.lite.TFLiteConverter.from_saved_model(saved).convert()
    (directory / TFLITE).write_bytes(model)


def save_onnx(graph: tf.GraphDef, directory: Path) -> None:
    """With the outputs' names, and `images` in NHWC."""
    import tf2onnx  # takes a second

    model, _ = tf2onnx.convert.from_graph_def(
        graph,
        input_names=["images:0"],
        output_names=[f"{name}:0" for name in OUTPUTS],
        opset=ONNX_OPSET,
        tensors_to_rename={f"{name}:0": name for name in ("images", *OUTPUTS)},
    )
    (directory / ONNX).write_bytes(model.SerializeToString())


WRITERS = {"saved_model": save_model, "frozen": save_frozen, "tflite": save_tflite, "onnx": save_onnx}
