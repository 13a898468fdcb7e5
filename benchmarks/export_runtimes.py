"""Measures exports in their runtimes beside the evaluation graph of the checkpoint, in turns.

    python benchmarks/export_runtimes.py [NET …] [--batches 1,32] [--rounds N] [--threads N]

Each net gets random weights and a head of 1,000 classes, and is exported in all four formats. Every runtime is a
process of its own, the SavedModel's a plain TensorFlow 2; a round is one batch in each. Prints two Markdown tables:
sizes, with differences from the evaluation graph; and medians of images/s, with those of the ratio to the evaluation
graph in the same round. Without NET: one net of each published family at batch 1; inception_v1 and resnet_v2_50 at
batch 32, too.
"""

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

FAMILIES = ("alexnet_v2", "vgg_16", "inception_v1", "resnet_v1_50", "resnet_v2_50", "mobilenet_v1")
LARGE_BATCH = ("inception_v1", "resnet_v2_50")
CLASSES = 1000
PLAIN = "evaluation"
RUNTIMES = {  # column, and the format that it runs
    PLAIN: None,
    "SavedModel": "saved_model",
    "frozen": "frozen",
    "OpenCV": "frozen",
    "LiteRT": "tflite",
    "ONNX Runtime": "onnx",
}


def loaded(runtime: str, directory: Path, name: str, threads: int) -> Callable:
    """A function that runs a net in one runtime: from images to outputs by name."""
    if runtime == "SavedModel":  # before anything imports tfcompat, which turns TensorFlow 2's behaviour off
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        function = tf.saved_model.load(str(directory)).signatures["serving_default"]
        return lambda images: {key: value.numpy() for key, value in function(images=tf.constant(images)).items()}
    from exporting import runtimes

    if runtime == PLAIN:
        return evaluation(directory.parent / "model.ckpt-0", name, threads)
    if runtime == "OpenCV":
        import cv2

        cv2.setNumThreads(threads)
        return runtimes.opencv(directory, ["logits"])
    return {"frozen": runtimes.session, "LiteRT": runtimes.litert, "ONNX Runtime": runtimes.onnx_runtime}[runtime](
        directory, threads
    )


def evaluation(prefix: Path, name: str, threads: int) -> Callable:
    """The checkpoint as eval.py builds it, with normalization and softmax."""
    from classifier import Classifier
    from engine.session import session_config
    from tfcompat import tf

    classifier = Classifier.load(prefix, net=name)
    with classifier.graph() as graph:
        images = classifier.inputs()
        logits = classifier.build(classifier.preprocessor.normalize(images))[0][""]
        outputs = {"logits": logits, "probabilities": tf.nn.softmax(logits)}
        session = tf.Session(graph=graph, config=session_config(threads))
        classifier.restore(session)
    return lambda given: session.run(outputs, {images: given})


def serve(runtime: str, directory: Path, name: str, threads: int, connection: Connection) -> None:
    """A process: loads a net, and answers each batch with the seconds it took and the outputs."""
    run = loaded(runtime, directory, name, threads)
    connection.send("ready")
    while (images := connection.recv()) is not None:
        began = time.perf_counter()
        outputs = run(images)
        connection.send((time.perf_counter() - began, outputs))


def export(name: str, place: Path) -> tuple[dict[str, float], np.ndarray]:
    """Exports a net with random weights. Runs in its own process: protobufs are slow to release memory.

    Returns sizes in MB by format, and pictures of noise as evaluation cuts them.
    """
    from classifier import Classifier
    from export import freeze
    from exporting.formats import WRITERS
    from nets import NETS
    from nets.weights import write_checkpoint

    random, values = np.random.default_rng(0), {}
    for variable, shape in NETS[name].variable_shapes(CLASSES).items():
        kind = variable.rpartition("/")[2]
        if kind in ("gamma", "moving_variance"):  # as of a trained net
            value = random.uniform(0.5, 1.5, shape)
        else:
            value = random.normal(0, np.sqrt(2 / np.prod(shape[:-1])) if kind.endswith("weights") else 0.1, shape)
        values[variable] = value.astype(np.float32)
    write_checkpoint(values, place / "model.ckpt-0")
    classifier = Classifier.load(place / "model.ckpt-0", net=name)
    made = freeze(classifier)
    sizes = {}
    for format, save in WRITERS.items():
        began = time.perf_counter()
        (place / format).mkdir()
        save(made.graph, place / format)
        sizes[format] = sum(file.stat().st_size for file in (place / format).rglob("*") if file.is_file()) / 1e6
        print(f"{name}: {format} in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return sizes, made.images


def measure(name: str, batches: list[int], rounds: int, threads: int) -> tuple[str, list[str]]:
    """The lines of both tables for one net: the first one's, and the second one's for each batch."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        with spawn.Pool(1) as pool:
            sizes, images = pool.apply(export, (name, place))
        workers = {}
        for runtime, format in RUNTIMES.items():
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=serve, args=(runtime, place / (format or "none"), name, threads, theirs))
            process.start()
            theirs.close()
            workers[runtime] = process, ours
        for _, connection in workers.values():
            assert connection.recv() == "ready"

        def ask(runtime: str, given: np.ndarray) -> tuple[float, dict]:
            workers[runtime][1].send(given)
            return workers[runtime][1].recv()

        found = {runtime: ask(runtime, images)[1] for runtime in workers}
        scale = np.abs(found[PLAIN]["logits"]).max()
        cells = [f"{sizes[format]:,.1f}" for format in sizes]
        for runtime in list(workers)[1:]:
            cells.append(f"{np.abs(found[runtime]['logits'] - found[PLAIN]['logits']).max() / scale:.0e}")
        first, second = f"| `{name}` | {' | '.join(cells)} |", []
        for batch in batches:
            given = np.resize(images, (batch, *images.shape[1:]))
            times = {runtime: [] for runtime in workers}
            for i in range((rounds if batch == 1 else max(5, rounds // 4)) + 2):
                for runtime in workers:
                    seconds, _ = ask(runtime, given)
                    if i >= 2:  # the first ones allocate
                        times[runtime].append(seconds)
            cells = []
            for runtime in workers:
                ratio = statistics.median(p / t for p, t in zip(times[PLAIN], times[runtime], strict=True))
                speed = batch / statistics.median(times[runtime])
                cells.append(f"{speed:.1f}" if runtime == PLAIN else f"{speed:.1f} ({ratio:.2f}×)")
            second.append(f"| `{name}` | {batch} | {' | '.join(cells)} |")
            print(second[-1], file=sys.stderr, flush=True)
        for process, connection in workers.values():
            connection.send(None)
            process.join()
    return first, second


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", metavar="NET")
    parser.add_argument("--batches", help="default: 1, and 32 for some")
    parser.add_argument("--rounds", type=int, default=40, help="at batch 1; a quarter of them at others")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    first, second = [], []
    for name in args.nets or FAMILIES:
        batches = [1, 32] if name in LARGE_BATCH else [1]
        if args.batches:
            batches = [int(batch) for batch in args.batches.split(",")]
        line, lines = measure(name, batches, args.rounds, args.threads)
        first.append(line)
        second += lines
    columns = ["net", *(f"`{format}`, MB" for format in dict.fromkeys(filter(None, RUNTIMES.values())))]
    columns += [runtime for runtime in RUNTIMES if runtime != PLAIN]
    print("Sizes, and the largest difference of logits, relative to the largest logit:\n")
    print("\n".join([f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *first]))
    columns = ["net", "batch", *RUNTIMES]
    print(f"\nImages/s with {args.threads} threads, and times the evaluation graph's:\n")
    print("\n".join([f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *second]))


if __name__ == "__main__":
    main()
