"""Runs exported nets as their users do: each function loads one from its directory and returns a function to call.

Each runtime is imported where it is used: none needs the others.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tfcompat import eager_mode, tf

FROZEN, TFLITE, ONNX = "frozen_graph.pb", "model.tflite", "model.onnx"
OUTPUTS = ("logits", "probabilities")
Run = Callable[[np.ndarray], dict[str, np.ndarray]]  # from the net's inputs to its outputs by name


def tensorflow_2(directory: Path, argument: str = "images") -> Run:
    """A SavedModel in TensorFlow 2. `argument` is the name of the signature's argument."""
    with eager_mode():
        function = tf.compat.v2.saved_model.load(str(directory)).signatures["serving_default"]

    def run(inputs: np.ndarray) -> dict[str, np.ndarray]:
        with eager_mode():
            return {name: value.numpy() for name, value in function(**{argument: tf.constant(inputs)}).items()}

    return run


def session(directory: Path, threads: int = 0) -> Run:
    """A frozen graph in a session. `threads` is the size of both thread pools, 0 for one thread per core."""
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(tf.GraphDef.FromString((directory / FROZEN).read_bytes()), name="")
    config = tf.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
    opened = tf.Session(graph=graph, config=config)
    return lambda images: opened.run({name: f"{name}:0" for name in OUTPUTS}, {"images:0": images})


def opencv(directory: Path, names: Sequence[str] = OUTPUTS) -> Run:
    """A frozen graph in OpenCV's dnn. Raises RuntimeError that names the operation that OpenCV lacks.

    OpenCV returns the last output of a graph only, so each of `names` is loaded as its own net.
    """
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # the error says the same
    graph = tf.GraphDef.FromString((directory / FROZEN).read_bytes())
    nets = {}
    try:
        for name in names:
            part = tf.graph_util.extract_sub_graph(graph, [name])
            nets[name] = cv2.dnn.readNetFromTensorflow(np.frombuffer(part.SerializeToString(), np.uint8))
    except cv2.error as error:
        raise RuntimeError(_message(error)) from None

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = {}
        for name, net in nets.items():
            net.setInput(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
            try:
                outputs[name] = net.forward()
            except cv2.error as error:
                raise RuntimeError(_message(error)) from None
        return outputs

    return run


def _message(error: "cv2.error") -> str:  # noqa: F821
    """OpenCV's message in one line, with its function, which names the operation."""
    return " ".join(f"{error.func}: {error.err}".split())


def litert(directory: Path, threads: int | None = None) -> Run:
    """A TFLite model in LiteRT's interpreter, with XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(directory / TFLITE), num_threads=threads).get_signature_runner()
    return lambda images: runner(images=images)


def onnx_runtime(directory: Path, threads: int = 0) -> Run:
    """An ONNX model in ONNX Runtime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    opened = onnxruntime.InferenceSession(str(directory / ONNX), options, providers=["CPUExecutionProvider"])
    return lambda images: dict(zip(OUTPUTS, opened.run(list(OUTPUTS), {"images": images}), strict=True))
