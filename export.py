"""Exports a trained net for other programs: python export.py --ckpt PATH --format FORMAT

PATH is as for eval.py. FORMAT is named after what is to run it:

  saved_model  TensorFlow 2, TensorFlow Serving; with --input jpeg it takes picture files
  frozen       a GraphDef: sessions of TensorFlow 1 and 2, OpenCV's dnn for most nets
  tflite       LiteRT: phones, single-board computers, any CPU without TensorFlow
  onnx         ONNX Runtime and all else that reads ONNX: servers without TensorFlow, other languages

The graph takes `images`, float32 [N, height, width, channels], RGB or grey from 0 to 255, and gives `probabilities` and
`logits`, [N, classes]. Normalisation is within, dropout and auxiliary heads are gone, batch norm is part of the
convolutions. metadata.json beside it says how to cut pictures, labels.txt names the classes. What is written is loaded
in its runtime and compared with the checkpoint before it takes its place. docs/export.md has a client for each.
"""

import argparse

import errors
from arguments import checkpoint_parser

FORMATS = ("saved_model", "frozen", "tflite", "onnx")


def parse_command_line() -> argparse.Namespace:
    """The arguments of this script."""
    parser = checkpoint_parser("export.py", __doc__)
    parser.add_argument("--format", required=True, choices=FORMATS)
    parser.add_argument(
        "--input",
        choices=["images", "jpeg"],
        default="images",
        help="what it takes: cut pictures, or the bytes of JPEG and PNG files (saved_model only; default: images)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="directory to make (default: export/FORMAT in the run directory)",
    )
    args = parser.parse_args()
    if args.input == "jpeg" and args.format != "saved_model":
        parser.error(f"--input jpeg is for --format saved_model; {args.format} has no decoder")
    if args.out == "":
        parser.error("--out '' names no directory; leave it out for export/FORMAT in the run directory")
    if any("\ud800" <= character <= "\udfff" for character in args.out or ""):
        parser.error(f"--out {args.out!r} is no name in UTF-8, which TensorFlow asks for")
    return args


if __name__ == "__main__":  # here, since TensorFlow's import takes seconds and --help should not
    ARGS = parse_command_line()

import json
import os
import signal
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

import classifier
from checkpoints import step_of
from classifier import Trained
from engine.session import session_config
from exporting import formats, runtimes
from exporting.freezing import frozen
from exporting.serving import cut_files
from files import atomic_directory
from pipeline.dataset import has_dataset, load_dataset, load_index
from pipeline.images import encode_jpeg, encode_png
from pipeline.pictures import Picture
from pipeline.preprocess import PREPROCESSINGS
from pipeline.tfrecord import read_at
from tfcompat import tf

PICTURES = 8  # to compare on
TOLERANCE = 1e-4  # of logits, relative to the largest; runtimes that sum in another order differ by about 1e-6
RUNTIMES = {  # (name, what loads it, whether the export fails with it)
    "saved_model": [("TensorFlow 2", runtimes.tensorflow_2, True)],
    "frozen": [("a session", runtimes.session, True), ("OpenCV's dnn", runtimes.opencv, False)],
    "tflite": [("LiteRT", runtimes.litert, True)],
    "onnx": [("ONNX Runtime", runtimes.onnx_runtime, True)],
}


class ExportError(errors.UserError):
    """What was made is not what was trained."""

    exit_code = 1


class Exported(NamedTuple):
    """The graph to write, and what it must give."""

    graph: tf.GraphDef
    shape: list[int]  # height, width and channels of its images
    files: list[bytes]  # JPEG and PNG, to compare on
    images: np.ndarray  # float32 [N, H, W, C], as evaluation cuts them
    logits: np.ndarray  # float32 [N, classes], as evaluation computes them
    probabilities: np.ndarray


def export(args: argparse.Namespace) -> Path:
    """Writes what the command line asks for. Returns its directory."""
    net = classifier.find(args)
    if args.out is None and net.run is None:
        raise errors.UserError(f"{args.ckpt} lies in no run directory, so --out is needed")
    name = "_".join([args.format, *(["jpeg"] if args.input == "jpeg" else []), *(["ema"] if args.ema else [])])
    out = Path(args.out or os.path.join(net.run, "export", name))
    if Path(f"{out}.index").exists():
        raise errors.UserError(f"{out} is the name of a checkpoint; choose another directory")
    try:
        with atomic_directory(out) as partial_out:
            exported = freeze(net, *pictures_of(net))
            print(f"{net.prefix}, step {step_of(net.prefix)}: {net.config.net}", flush=True)
            if args.input == "jpeg":
                save_file_model(net, exported.graph, partial_out)
                compare_files(net, exported, partial_out)
            else:
                formats.WRITERS[args.format](exported.graph, partial_out)
                compare(args.format, exported, partial_out)
            describe(args, net, exported, partial_out)
            told = [(file, file.stat().st_size) for file in sorted(partial_out.rglob("*")) if file.is_file()]
            told = [f"{size / 1e3:12,.1f} kB  {out / file.relative_to(partial_out)}" for file, size in told]
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "message", None) or error
        raise errors.UserError(f"{out} cannot be written ({reason})") from None
    print("\n".join(told))
    return out


def pictures_of(net: Trained) -> tuple[list[bytes], str]:
    """Files of pictures to compare on, and where they come from: the run's data, or noise where they are gone."""
    data = net.config.data
    if net.run and has_dataset(data):
        dataset = load_dataset(data)
        split = next(s for s in ("test", "validation", "train") if dataset["splits"].get(s, {}).get("examples"))
        index = load_index(data, dataset, split, "skip").intact()
        files = []
        for row in np.linspace(0, len(index.offsets) - 1, min(PICTURES, len(index.offsets)), dtype=int):
            example = tf.train.Example.FromString(read_at(*index.place(row)).payload)
            files.append(example.features.feature["image/encoded"].bytes_list.value[0])
        return files, f"pictures of {data}, {split}"
    random, size = np.random.default_rng(0), net.config.image_size
    files = []
    for number in range(PICTURES):
        height, width = size + size // 4, size + size // 2
        # Octaves whose amplitude falls with their frequency, as in photographs.
        waves = [
            cv2.resize(random.normal(0, 1 / side, (side, side, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
            for side in (2, 4, 8, 16, 32, 64)
        ]
        pixels = np.clip(128 + 100 * sum(waves), 0, 255).astype(np.uint8)
        pixels = np.ascontiguousarray(pixels[..., : net.dataset["channels"]])
        files.append((encode_jpeg if number % 2 else encode_png)(pixels).data)
    return files, "pictures of noise, since the run's data are not here"


def freeze(net: Trained, files: list[bytes], source: str) -> Exported:
    """Restores the checkpoint and makes the graph to export of it."""
    family, size, channels = PREPROCESSINGS[net.config.preprocessing], net.config.image_size, net.dataset["channels"]
    with tf.Graph().as_default():
        tf.set_random_seed(net.config.seed)
        file = tf.placeholder(tf.string, [])
        picture = Picture.of(file, channels)
        cut, preprocessed = family.cut(picture, size, net.statistics), family(picture, size, None, net.statistics)
        images = tf.placeholder(tf.float32, [None, *cut.shape], "images")
        normalized = family.normalize(images, size, net.statistics)
        logits = net.build(normalized)[0][""]
        probabilities = tf.nn.softmax(logits, name="probabilities")
        outputs = [tf.identity(logits, "logits"), probabilities]
        with tf.Session(config=session_config(net.config.compute_threads)) as session:
            net.restore(session)
            cuts, seen = zip(*(session.run([cut, preprocessed], {file: data}) for data in files), strict=True)
            expected = session.run(outputs, {normalized: np.stack(seen)})
            if not np.isfinite(expected[0]).all():
                raise ExportError(
                    f"{net.prefix} itself gives logits that are not finite, on {source}; choose another checkpoint"
                )
            graph = frozen(session, [images], outputs)
    print(f"comparing on {len(files)} {source}", flush=True)
    return Exported(graph, cut.shape.as_list(), files, np.stack(cuts), *expected)


def save_file_model(net: Trained, graph: tf.GraphDef, directory: Path) -> None:
    """A SavedModel of picture files: string [N] to the names of all classes and their probabilities, [N, classes], the
    most probable first."""
    config = net.config
    with tf.Graph().as_default():
        files = tf.placeholder(tf.string, [None], "files")
        channels = net.dataset["channels"]
        images = cut_files(files, channels, config.preprocessing, config.image_size, net.statistics)
        graph = formats.for_any_batch(graph)
        (probabilities,) = tf.import_graph_def(graph, {"images": images}, ["probabilities:0"], name="")
        probabilities, labels = tf.math.top_k(probabilities, len(net.class_names))
        outputs = {"classes": tf.gather(tf.constant(net.class_names), labels), "probabilities": probabilities}
        with tf.Session() as session:
            tf.saved_model.simple_save(session, str(directory), {"files": files}, outputs)


def compare(format: str, exported: Exported, directory: Path) -> None:
    """Prints how far each runtime is from the checkpoint's evaluation. Raises ExportError where that is too far."""
    images = exported.images
    for name, load, is_needed in RUNTIMES[format]:
        try:
            run = load(directory)
            parts = [run(images[:1]), *([run(images[1:])] if len(images) > 1 else [])]  # one, and several
        except RuntimeError as error:
            if is_needed:
                raise ExportError(f"{name} cannot run the net ({error})") from None
            print(f"{name} cannot run this net: {error}")
            continue
        outputs = {key: np.concatenate([part[key] for part in parts]) for key in runtimes.OUTPUTS}
        scale = max(float(np.abs(exported.logits).max()), 1e-30)
        logits = float(np.abs(outputs["logits"] - exported.logits).max()) / scale
        probabilities = float(np.abs(outputs["probabilities"] - exported.probabilities).max())
        print(f"{name}: probabilities differ by up to {probabilities:.1e}, logits by {logits:.1e} of the largest")
        # A difference d of logits moves a probability by d / 2 at most.
        if not (logits <= TOLERANCE and probabilities <= TOLERANCE * max(1.0, scale)):
            message = f"{name} gives other numbers than the checkpoint; at most {TOLERANCE:.0e} are allowed"
            if is_needed:
                raise ExportError(message)
            print(message)


def compare_files(net: Trained, exported: Exported, directory: Path) -> None:
    """As compare, for a SavedModel of picture files."""
    outputs = runtimes.tensorflow_2(directory, "files")(np.array(exported.files, object))
    names = [name.encode() for name in net.class_names]
    by_label = [
        [dict(zip(classes, probabilities, strict=True))[name] for name in names]
        for classes, probabilities in zip(outputs["classes"], outputs["probabilities"], strict=True)
    ]
    difference = float(np.abs(np.array(by_label) - exported.probabilities).max())
    print(f"TensorFlow 2, from files: probabilities differ by up to {difference:.1e}")
    if not difference <= TOLERANCE * max(1.0, float(np.abs(exported.logits).max())):
        raise ExportError("the SavedModel gives other numbers than the checkpoint")


def describe(args: argparse.Namespace, net: Trained, exported: Exported, directory: Path) -> None:
    """Writes labels.txt and metadata.json."""
    labels = ["\\n".join(name.splitlines()) for name in net.class_names]  # a folder may be called so
    (directory / "labels.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    height, width, channels = exported.shape
    metadata = {
        "net": net.config.net,
        "format": args.format,
        "input": args.input,
        "height": height,
        "width": width,
        "channels": "RGB" if channels == 3 else "grey",
        "values": "float32, 0 to 255",
        **PREPROCESSINGS[net.config.preprocessing].rule(net.config.image_size),
        "resize": "bilinear, half-pixel centres, no antialiasing",
        "preprocessing": net.config.preprocessing,
        "checkpoint": net.prefix,
        "step": step_of(net.prefix),
        "averaged_weights": net.ema,
        "classes": net.class_names,
    }
    (directory / "metadata.json").write_text(
        json.dumps(metadata, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is half made is removed
    with errors.reported():
        export(ARGS)
