"""A sheet of labelled samples of a data set, as stored or as training sees them."""

import contextlib
import os
import tempfile

import numpy as np

from errors import UserError
from files import whole_file
from pipeline import statistics
from pipeline.dataset import NEEDED
from pipeline.pictures import Picture, decode
from pipeline.preprocess import PREPROCESSINGS
from pipeline.records import FEATURES, load_index
from pipeline.tfrecord import read_at
from tfcompat import tf

COLUMNS, ROWS = 8, 5
SEED = 0


def check_place(path: str) -> None:
    """Raises UserError where draw could not write."""
    directory, name = os.path.split(os.path.abspath(path))
    if not path.endswith(".png") or not os.path.isdir(directory) or os.path.isdir(path):
        raise UserError(f"--montage {path} must be a .png in a directory that is there")
    try:
        tempfile.NamedTemporaryFile(dir=directory, prefix=f".{name}.partial").close()
    except OSError as error:
        raise UserError(f"--montage {path} cannot be written ({error.strerror})") from None


def draw(path: str, directory: str, dataset: dict, split: str | None, family: str | None, size: int) -> None:
    """Writes the sheet as PNG.

    Args:
        path: file to write, which check_place has seen.
        directory: of the shards.
        dataset: what load_dataset gives.
        split: train, validation or test; None takes train, else what there is.
        family: key of PREPROCESSINGS: each row is a picture, then what training makes of it. None: pictures as stored,
            drawn evenly from the split.
        size: in pixels, of what training sees.

    Raises:
        UserError: a disk that is full, a split without records.
    """
    from matplotlib.figure import Figure

    split = split or next(name for name, part in dataset["splits"].items() if part["examples"])
    index = load_index(directory, dataset, split, "skip").intact()
    wanted = ROWS if family else ROWS * COLUMNS
    rows = np.random.default_rng(SEED).permutation(len(index.offsets))[:wanted]
    tiles, names = [], dataset["class_names"]
    with tf.Graph().as_default():
        serialized, key = tf.placeholder(tf.string, []), tf.placeholder(tf.int32, [2])
        features = tf.io.parse_single_example(serialized, {name: FEATURES[name] for name in NEEDED})
        fetches = decode(features["image/encoded"], dataset["channels"]), features["image/class/label"]
        if family:
            picture = Picture.of(features["image/encoded"], dataset["channels"])
            seen = PREPROCESSINGS[family](picture, size, key, statistics.load(directory, dataset))
        with tf.Session() as session:
            for row in rows:
                payload = read_at(*index.place(row)).payload
                with contextlib.suppress(tf.errors.OpError, UnicodeDecodeError):  # check tells of it
                    pixels, label = session.run(fetches, {serialized: payload})
                    title = names[label] if 0 <= label < len(names) else f"label {label}"
                    tiles.append((pixels, title))
                    if family:
                        views = [session.run(seen, {serialized: payload, key: [row, i]}) for i in range(COLUMNS - 1)]
                        tiles += [(view, "") for view in _shown(np.stack(views))]
    if not tiles:
        raise UserError(f"no picture of the {split} split can be drawn")
    figure = Figure(figsize=(COLUMNS * 1.6, -(-len(tiles) // COLUMNS) * 1.8), layout="constrained")
    for i, (pixels, title) in enumerate(tiles):
        axes = figure.add_subplot(-(-len(tiles) // COLUMNS), COLUMNS, i + 1)
        axes.imshow(pixels[..., 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
        axes.set_title(title[:18], fontsize=8)
        axes.axis("off")
    try:
        with whole_file(path) as partial:
            figure.savefig(partial, dpi=100)
    except OSError as error:
        raise UserError(f"--montage {path} cannot be written ({error.strerror})") from None


def _shown(views: np.ndarray) -> np.ndarray:
    """float32 [N, H, W, C] of any range as uint8: black is the lowest value of all, white the highest."""
    low, high = views.min(), views.max()
    return ((views - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
