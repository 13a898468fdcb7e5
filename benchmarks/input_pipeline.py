"""How fast pictures come in, and where the time goes.

    python benchmarks/input_pipeline.py --data DIR [--preprocessing FAMILY] [--image-size N] [--batch-size N]

Times the training batches of a data set in stages, turn by turn, each stage with all before it: records read and
parsed; the whole picture decoded by tf.io.decode_jpeg; all that training does (a part decoded, augmented, batched).
Where PyTorch is installed (pip install torch==2.13.0), its DataLoader does the same beside it with OpenCV: a random
box of 8 to 100 % of the area, resized, flipped or not, as float32 in [-1, 1], which is our inception_crop. Small data
sets are repeated as a stream. Op determinism is on, as in training.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import errors
from engine.session import session_config
from pipeline.batches import training_batches
from pipeline.dataset import Dataset
from pipeline.pictures import Picture
from pipeline.preprocess import FAMILIES, Family, Preprocessor, find_family
from tfcompat import op_determinism, tf

READ, DECODE, ALL, TORCH = "read and parse", "tf.io.decode_jpeg", "all that training does", "PyTorch DataLoader"


def read_only(to: Preprocessor, picture: Picture, key: tf.Tensor) -> tf.Tensor:
    """No decoding: one number for each picture."""
    return tf.cast(tf.strings.length(picture.encoded), tf.float32)


def decode_whole(to: Preprocessor, picture: Picture, key: tf.Tensor) -> tf.Tensor:
    """The whole picture, by TensorFlow's own decoder alone; returns one number of it."""
    image = tf.cond(
        tf.image.is_jpeg(picture.encoded),
        lambda: tf.io.decode_jpeg(picture.encoded, picture.channels),
        lambda: tf.io.decode_png(picture.encoded, picture.channels),
    )
    return tf.cast(image[0, 0, 0], tf.float32)


def stage(args: argparse.Namespace, data: Dataset, family: Family) -> Callable[[], float]:
    """A function that reads batches for some seconds and returns pictures per second."""
    FAMILIES["benchmark"] = family
    preprocessor = Preprocessor("benchmark", args.image_size, data.channels, data.statistics)
    with tf.Graph().as_default() as graph:
        tf.set_random_seed(0)
        batches = training_batches(data.index(args.split), preprocessor, args.batch_size, 0)
    session = tf.Session(graph=graph, config=session_config(os.cpu_count()))
    fetch = batches.images.op  # runs it, and copies nothing to Python

    def measure() -> float:
        batches.start(session)
        session.run(fetch)  # fills the prefetch buffer
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < args.seconds:
            session.run(fetch)
            count += args.batch_size
        return count / (time.perf_counter() - began)

    return measure


def torch_stage(args: argparse.Namespace, data: Dataset) -> Callable[[], float]:
    """As `stage`, of PyTorch in a process of its own, since its workers are forked."""
    index = data.index(args.split)
    command = [sys.executable, str(Path(__file__).with_name("torch_loader.py"))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    places = [index.place(row) for row in range(len(index.offsets))]
    settings = {"places": places, "size": args.image_size, "batch_size": args.batch_size, "seconds": args.seconds}
    process.stdin.write(json.dumps(settings) + "\n")
    process.stdin.flush()
    if process.stdout.readline().strip() != "ready":
        raise errors.UserError("benchmarks/torch_loader.py did not start; what it says stands above")

    def measure() -> float:
        process.stdin.write("go\n")
        process.stdin.flush()
        return float(process.stdout.readline())

    return measure


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DIR", help="shards with their dataset.json")
    parser.add_argument("--split", help="default: train, where there is one")
    parser.add_argument("--preprocessing", default="inception_crop", metavar="FAMILY", help="default: %(default)s")
    parser.add_argument("--image-size", type=int, default=224, metavar="N", help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=5, help="of each stage in a round (default: %(default)s)")
    args = parser.parse_args()
    data, family = Dataset.load(args.data), find_family(args.preprocessing)
    args.split = args.split or next(name for name in data.splits if data.size(name))
    families = {READ: family._replace(augment=read_only), DECODE: family._replace(augment=decode_whole), ALL: family}
    measures = {name: stage(args, data, family) for name, family in families.items()}
    if find_spec("torch"):
        measures[TORCH] = torch_stage(args, data)
    rates = {name: [] for name in measures}
    for _ in range(args.rounds):
        for name, measure in measures.items():
            rates[name].append(measure())
    medians = {name: float(np.median(values)) for name, values in rates.items()}
    print(f"{args.split} split of {args.data}: {data.size(args.split):,} records")
    print(f"{args.preprocessing}, {args.image_size} px, batches of {args.batch_size}, {os.cpu_count()} cores,")
    print(f"medians of {args.rounds} rounds of {args.seconds:g} s (lowest to highest), op determinism on")
    for name, values in rates.items():
        print(
            f"{name:<24}{medians[name]:9,.0f} pictures/s {medians[name] / args.batch_size:8.1f} batches/s"
            f"   ({min(values):,.0f} to {max(values):,.0f})"
        )
    # Stages cost their difference; a part decoded may cost less than the whole.
    whole, reading = 1 / medians[ALL], 1 / medians[READ]
    decoding = min(1 / medians[DECODE], whole) - reading
    print(
        f"of the time of a picture: reading {reading / whole:.0%}, decoding {decoding / whole:.0%} (the whole, at "
        f"most), augmenting {(whole - reading - decoding) / whole:.0%}"
    )
    print(f"all that training does is {medians[ALL] / medians[DECODE]:.2f}× tf.io.decode_jpeg alone")
    if TORCH in medians:
        print(f"and {medians[ALL] / medians[TORCH]:.2f}× {TORCH} with 2 workers")
    else:
        print("PyTorch is not installed; pip install torch==2.13.0 puts its DataLoader beside these")


if __name__ == "__main__":
    with errors.reported(), op_determinism():
        main()
