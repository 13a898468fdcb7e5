"""A sheet of labelled samples of a data set, as stored or as training sees them."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from errors import UserError
from files import output_file
from pipeline import statistics
from pipeline.batches import NEEDED
from pipeline.dataset import FEATURES, Index, load_index
from pipeline.pictures import Picture, decode
from pipeline.preprocess import PREPROCESSINGS
from pipeline.tfrecord import read_at
from tfcompat import tf

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS, ROWS = 8, 5
SHEETS = 10  # drawn at most of a stream of pictures
SEED = 0


def draw(path: str, directory: str, dataset: dict, split: str | None, family: str | None, size: int) -> None:
    """Writes the sheet as PNG.

    Args:
        path: file to write, which files.check_output has seen.
        directory: of the shards.
        dataset: what load_dataset gives.
        split: train, validation or test; None takes train, else what there is.
        family: key of PREPROCESSINGS: each row is a picture, then what training makes of it. None: pictures as stored,
            drawn evenly from the split.
        size: in pixels, of what training sees.

    Raises:
        UserError: a disk that is full, a split without records.
    """
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
                    tiles.append((pixels, title[:18]))
                    if family:
                        views = [session.run(seen, {serialized: payload, key: [row, i]}) for i in range(COLUMNS - 1)]
                        tiles += [(view, "") for view in _shown(np.stack(views))]
    if not tiles:
        raise UserError(f"no picture of the {split} split can be drawn")
    figure = sheet(tiles)
    with output_file("--montage", path) as partial:
        figure.savefig(partial, dpi=100)


def sheet(tiles: list[tuple[np.ndarray, str]], columns: int = COLUMNS) -> "Figure":
    """A matplotlib Figure of pictures, uint8 [H, W, C], each under its title, row by row."""
    from matplotlib.figure import Figure

    rows = -(-len(tiles) // columns)
    width, height, side = 1.6, 1.8, 1.4  # of a tile and of a picture's longer side, in inches
    figure = Figure(figsize=(columns * width, rows * height))
    # All in one axes: one for each picture takes five times as long, at every validation.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    for i, (pixels, title) in enumerate(tiles):
        half = np.array(pixels.shape[:2]) * (side / 2 / max(pixels.shape[:2]))
        center = np.array([i // columns * height + 1.05, (i % columns + 0.5) * width])
        (top, left), (bottom, right) = center - half, center + half
        shown = pixels[..., 0] if pixels.shape[2] == 1 else pixels
        axes.imshow(shown, cmap="gray", vmin=0, vmax=255, extent=(left, right, bottom, top))
        axes.text(center[1], top - 0.05, title, fontsize=8, ha="center", va="bottom", parse_math=False)
    axes.set(xlim=(0, columns * width), ylim=(rows * height, 0), aspect="auto")
    return figure


def sheet_names(path: str) -> list[Path]:
    """What `sheets` writes to: path, path_2 and so on."""
    return [Path(path), *(Path(path).with_stem(f"{Path(path).stem}_{i}") for i in range(2, SHEETS + 1))]


@contextlib.contextmanager
def sheets(flag: str, path: str) -> Iterator[Callable[[np.ndarray, str], None]]:
    """Yields a function that takes a picture and its title. As soon as 40 have come they are written as PNG: to `path`,
    which the option `flag` named, the next to path_2 and so on; what is left over at the end. Says how many pictures
    come after the tenth sheet and are on none. Raises UserError where the system fails."""
    tiles, drawn, left = [], 0, 0

    def draw() -> None:
        nonlocal drawn
        with output_file(flag, sheet_names(path)[drawn]) as partial:
            sheet(tiles, min(COLUMNS, len(tiles))).savefig(partial, dpi=100)
        drawn += 1
        tiles.clear()

    def add(pixels: np.ndarray, title: str) -> None:
        nonlocal left
        if drawn == SHEETS:
            left += 1
            return
        tiles.append((pixels, title))
        if len(tiles) == COLUMNS * ROWS:
            draw()

    yield add
    if tiles:
        draw()
    if left:
        print(f"{flag}: {drawn} sheets are drawn; {left:,} pictures are on none", file=sys.stderr)


def stored_pictures(index: Index, rows: Iterable[int], channels: int) -> list[np.ndarray]:
    """The pictures of some rows of an index as they lie in their records, uint8 [H, W, channels]."""
    pictures = []
    for row in rows:
        features = tf.train.Example.FromString(read_at(*index.place(row)).payload).features.feature
        encoded = np.frombuffer(features["image/encoded"].bytes_list.value[0], np.uint8)
        flag = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
        pictures.append(np.atleast_3d(cv2.imdecode(encoded, flag | cv2.IMREAD_IGNORE_ORIENTATION)))
    return pictures


def _shown(views: np.ndarray) -> np.ndarray:
    """float32 [N, H, W, C] of any range as uint8: black is the lowest value of all, white the highest."""
    low, high = views.min(), views.max()
    return ((views - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
