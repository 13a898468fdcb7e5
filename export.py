"""Exports a trained net for other programs: python export.py --ckpt PATH --format FORMAT

PATH is a run directory, a checkpoint prefix, or a single file of the V1 format. FORMAT is named after the programs that
run it:

  saved_model  TensorFlow 2, TensorFlow Serving; with --input jpeg it takes picture files
  frozen       a GraphDef: sessions of TensorFlow 1 and 2, OpenCV's dnn for most nets
  tflite       LiteRT: phones, single-board computers, any CPU without TensorFlow
  onnx         ONNX Runtime and other readers of ONNX: servers without TensorFlow, other languages

The graph takes `images`, float32 [N, height, width, channels], from 0 to 255, and gives `probabilities` and
`logits`, [N, classes]. It includes normalization; dropout and auxiliary heads are removed, and batch norm is folded
into the convolutions. metadata.json beside it says how to cut pictures, labels.txt names the classes. The export is
loaded in its runtime and compared with the checkpoint before it appears in its place. docs/export.md has a client for
each format. From Python: export(Classifier.load(PATH), FORMAT, DIRECTORY).
"""

import dataclasses
import sys
from typing import Annotated, Literal, get_args

import errors
from channels import USUAL, named
from config import PLACE, CheckpointOptions, optional, options, parse
from files import expand, is_text

Format = Literal["saved_model", "frozen", "tflite", "onnx"]
Input = Literal["images", "jpeg"]
FORMATS = get_args(Format)


@options
class ExportOptions(CheckpointOptions):
    """The arguments of export.py."""

    format: Format = dataclasses.field(kw_only=True)
    """File format, see above."""
    input: Input = "images"
    """Input of the graph: cut pictures, or the bytes of JPEG and PNG files (saved_model only)."""
    out: Annotated[str | None, PLACE, optional("DIR")] = None
    """Directory to make; an earlier export in it is replaced. Default: export/FORMAT in the run directory."""


def parse_command_line(args: list[str]) -> ExportOptions:
    """The arguments of this program. Raises UserError for values that do not fit together."""
    found = parse(ExportOptions, "export.py", __doc__, args)
    check_input(found.format, found.input)
    if found.out == "":
        raise errors.UserError("--out '' names no directory; leave it out for export/FORMAT in the run directory")
    if found.out is not None and not is_text(found.out):
        raise errors.UserError(f"--out {found.out!r} is no name in UTF-8, which TensorFlow needs")
    return found


def check_input(format: str, input: str) -> None:
    """Raises UserError for an unknown format or input, and for a format that cannot take the input."""
    for kind, value, known in (("format", format, FORMATS), ("input", input, get_args(Input))):
        if value not in known:
            raise errors.unknown(kind, value, known)
    if input == "jpeg" and format != "saved_model":
        raise errors.UserError(f"--input jpeg is for --format saved_model; {format} has no decoder")


if __name__ == "__main__":  # before TensorFlow's import, which takes seconds: --help should answer at once
    errors.quit_on_signals()
    with errors.reported():
        OPTIONS = parse_command_line(sys.argv[1:])

import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from classifier import Classifier
from engine.session import session_config
from exporting import formats
from exporting.comparison import Exported, ExportError, compare, compare_files, sample_pictures
from exporting.freezing import frozen
from files import atomic_directory, read_regular
from tfcompat import op_determinism, tf

LABELS, METADATA = "labels.txt", "metadata.json"


class Export(NamedTuple):
    """The result of `export`."""

    directory: Path
    pictures: str  # number and origin of those that it was compared on
    differences: list[str]  # from the checkpoint, a line for each runtime


def export(
    classifier: Classifier, format: Format, directory: "str | os.PathLike", *, input: Input = "images"
) -> Export:
    """Writes a net into a directory, which may hold an earlier export, and compares it with the checkpoint.

    input is that of the graph; only saved_model takes 'jpeg'.

    Raises:
        UserError: a directory that holds other files or cannot be written, a checkpoint that does not fit the net.
        ExportError: the export differs from the checkpoint.
    """
    check_input(format, input)
    if input == "jpeg" and classifier.preprocessor.channels not in USUAL:
        takes = f"the net takes {classifier.preprocessor.channels} channels"
        raise errors.UserError(f"--input jpeg is for grey and RGB, and {takes}; leave it out")
    out, names = Path(expand(directory)), classifier.dataset.class_names
    if os.path.exists(f"{out}.index"):  # Path.exists raises on a name that is too long
        raise errors.UserError(f"{out} is the name of a checkpoint; choose another directory")
    try:
        with op_determinism(), atomic_directory(out, is_export) as partial:
            exported = freeze(classifier)
            if input == "jpeg":
                formats.save_file_model(exported.graph, classifier.preprocessor, names, partial)
                differences = compare_files(names, exported, partial)
            else:
                formats.WRITERS[format](exported.graph, partial)
                differences = compare(format, exported, partial)
            metadata = {"net": classifier.config.network.net, "format": format, "input": input}
            write_metadata(classifier, metadata, exported, partial)
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "message", None) or error
        raise errors.UserError(f"{out} cannot be written ({reason})") from None
    return Export(out, f"{len(exported.files)} {exported.origin}", differences)


def is_export(directory: Path) -> bool:
    """Whether a directory holds an export, and nothing else: it may be replaced by another one."""
    try:
        metadata = json.loads(read_regular(directory / METADATA))
    except (OSError, ValueError):
        return False
    known = {METADATA, LABELS, *formats.FILES}
    return isinstance(metadata, dict) and "checkpoint" in metadata and {*os.listdir(directory)} <= known


def freeze(classifier: Classifier) -> Exported:
    """Makes the graph to export, and the checkpoint's outputs for pictures of its data. Raises ExportError."""
    preprocessor, data = classifier.preprocessor, classifier.config.input.data if classifier.run else None
    files, origin = sample_pictures(data, preprocessor.size, preprocessor.channels)
    with classifier.graph():
        file = tf.placeholder(tf.string, [])
        picture = preprocessor.picture(file)
        cut, preprocessed = preprocessor.cut(picture), preprocessor.evaluate(picture)
        images = tf.placeholder(tf.float32, [None, *cut.shape], "images")
        normalized = preprocessor.normalize(images)
        logits = classifier.build(normalized)[0][""]
        probabilities = tf.nn.softmax(logits, name="probabilities")
        outputs = [tf.identity(logits, "logits"), probabilities]
        with tf.Session(config=session_config(classifier.config.run.compute_threads)) as session:
            classifier.restore(session)
            cuts, inputs = zip(*(session.run([cut, preprocessed], {file: data}) for data in files), strict=True)
            expected = session.run(outputs, {normalized: np.stack(inputs)})
            if not np.isfinite(expected[0]).all():
                wrong = f"{classifier.checkpoint} itself gives logits that are not finite, on {origin}"
                raise ExportError(f"{wrong}; choose another checkpoint")
            return Exported(frozen(session, [images], outputs), origin, files, np.stack(cuts), *expected)


def write_metadata(classifier: Classifier, metadata: dict, exported: Exported, directory: Path) -> None:
    """Writes labels.txt and metadata.json."""
    names = classifier.dataset.class_names
    labels = ["\\n".join(name.splitlines()) for name in names]  # names of folders may have line breaks
    (directory / LABELS).write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    height, width, channels = exported.images.shape[1:]
    metadata = {
        **metadata,
        "height": height,
        "width": width,
        "channels": named(channels),
        "values": "float32, 0 to 255",
        "sample_range": classifier.dataset.sample_range,
        "shrink_to": classifier.dataset.short_side,
        **classifier.preprocessor.describe(),
        "resize": "bilinear, half-pixel centres, no antialiasing",
        "preprocessing": classifier.preprocessor.name,
        "checkpoint": classifier.checkpoint,
        "step": classifier.step,
        "averaged_weights": classifier.ema,
        "classes": names,
    }
    text = json.dumps(metadata, indent=1, ensure_ascii=False) + "\n"
    (directory / METADATA).write_text(text, encoding="utf-8")


def size_of(file: Path) -> str:
    """The size of a file in words."""
    size = file.stat().st_size
    return f"{size:,} bytes" if size < 1000 else f"{size / 1e3:,.1f} kB"


def main(options: ExportOptions) -> Path:
    """Runs the command. Prints the comparison and the files, and returns their directory."""
    classifier = Classifier.of(options)
    if options.out is None and classifier.run is None:
        raise errors.UserError(f"{options.ckpt} lies in no run directory, so --out is needed")
    parts = [options.format, *(["jpeg"] if options.input == "jpeg" else []), *(["ema"] if options.ema else [])]
    directory = options.out or os.path.join(classifier.run, "export", "_".join(parts))
    print(f"{classifier.title}: {classifier.config.network.net}", flush=True)
    done = export(classifier, options.format, directory, input=options.input)
    print(f"compared on {done.pictures}", *done.differences, sep="\n")
    for file in sorted(path for path in done.directory.rglob("*") if path.is_file()):
        print(f"{size_of(file):>15}  {file}")
    return done.directory


if __name__ == "__main__":
    with errors.reported():
        main(OPTIONS)
