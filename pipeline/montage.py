"""Sheets of labelled pictures: samples of a data set as stored or as augmented for training, mistakes, predictions."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from channels import visible
from errors import UserError
from files import output_file
from pipeline.dataset import Dataset
from pipeline.index import InvalidExample
from pipeline.pictures import decode
from pipeline.preprocess import Preprocessor
from tfcompat import tf

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS, ROWS = 8, 5
WIDTH, HEIGHT, SIDE = 1.9, 2.1, 1.6  # of a tile and of a picture's longer side, in inches
FONT_SIZE = 8
SHEETS = 10  # at most, for a stream of pictures
SEED = 0


def draw(path: str, dataset: Dataset, split: str | None = None, preprocessor: Preprocessor | None = None) -> None:
    """Writes a sheet of samples of a split as PNG, to a `path` that the caller has checked with files.check_output.

    split=None takes train, or the first split with records. With a preprocessor, each row is a picture, then training's
    inputs made of it; without, the pictures are a random choice, as they are stored.

    Raises UserError for a full disk or a split without records.
    """
    split = split or next(name for name in dataset.splits if dataset.size(name))
    index = dataset.index(split, "skip").intact()
    wanted = ROWS if preprocessor else ROWS * COLUMNS
    rows = np.random.default_rng(SEED).permutation(len(index.offsets))[:wanted]
    tiles, names = [], dataset.class_names
    with tf.Graph().as_default():
        encoded, key = tf.placeholder(tf.string, []), tf.placeholder(tf.int32, [2])
        stored = decode(encoded, dataset.channels)
        view = preprocessor.train(preprocessor.picture(encoded), key) if preprocessor else None
        with tf.Session() as session:
            for row in rows:
                with contextlib.suppress(InvalidExample, tf.errors.OpError):  # pipeline.check reports it
                    example = index.example(row)
                    pixels = session.run(stored, {encoded: example.encoded})
                    title = names[example.label] if 0 <= example.label < len(names) else f"label {example.label}"
                    tiles.append((pixels, title))
                    if preprocessor:
                        feeds = ({encoded: example.encoded, key: [row, i]} for i in range(COLUMNS - 1))
                        views = visible(np.stack([session.run(view, feed) for feed in feeds]))
                        low, high = (
                            views.min(),
                            views.max(),
                        )  # of all views: the lowest becomes black, the highest white
                        scaled = ((views - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
                        tiles += [(pixels, "") for pixels in scaled]
    if not tiles:
        raise UserError(f"no picture of the {split} split can be drawn")
    with output_file("--montage", path) as partial:
        sheet(tiles).savefig(partial, dpi=100)


def sheet(tiles: list[tuple[np.ndarray, str]], columns: int = COLUMNS) -> "Figure":
    """A matplotlib Figure of pictures, uint8 [H, W, C], each under its title of one or two lines, row by row.

    Of pictures that are neither grey nor RGB it shows channels.visible.
    The middle of a line that is wider than its picture is left out.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    from fonts import lettering

    rows = -(-len(tiles) // columns)
    figure = Figure(figsize=(columns * WIDTH, rows * HEIGHT))
    # All in one axes: one for each picture takes five times as long, at every validation.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    titles = lettering([title for _, title in tiles])
    for i, ((pixels, _), title) in enumerate(zip(tiles, titles.texts, strict=True)):
        half = np.array(pixels.shape[:2]) * (SIDE / 2 / max(pixels.shape[:2]))
        center = np.array([i // columns * HEIGHT + HEIGHT - SIDE / 2 - 0.1, (i % columns + 0.5) * WIDTH])
        (top, left), (bottom, right) = center - half, center + half
        shown = np.squeeze(visible(pixels), 2) if pixels.shape[2] < 3 else visible(pixels)
        axes.imshow(shown, cmap="gray", vmin=0, vmax=255, extent=(left, right, bottom, top))
        # Otherwise a white picture has no border.
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="0.6", linewidth=0.5))
        fitted = "\n".join(titles.fit(line, FONT_SIZE, 72 * (WIDTH - 0.1)) for line in title.split("\n"))
        style = {"fontsize": FONT_SIZE, "fontfamily": titles.families, "parse_math": False}
        axes.text(center[1], top - 0.05, fitted, ha="center", va="bottom", **style)
    axes.set(xlim=(0, columns * WIDTH), ylim=(rows * HEIGHT, 0), aspect="auto")
    return figure


def sheet_names(path: str) -> list[Path]:
    """The files that `sheets` writes: path, path_2 and so on."""
    return [Path(path), *(Path(path).with_stem(f"{Path(path).stem}_{i}") for i in range(2, SHEETS + 1))]


@contextlib.contextmanager
def sheets(flag: str, path: str) -> Iterator[Callable[[np.ndarray, str], None]]:
    """Yields a function that adds a picture, uint8 [H, W, C], with its title to a sheet of 40.

    Full sheets are written as PNG, the first to `path`, which the option `flag` named, the others to path_2 and so on;
    the last one when the block ends. After ten sheets pictures are only counted, and their number is printed.
    Raises UserError where a file cannot be written.
    """
    tiles, names, left = [], sheet_names(path), 0

    def write() -> None:
        with output_file(flag, names.pop(0)) as partial:
            sheet(tiles, min(COLUMNS, len(tiles))).savefig(partial, dpi=100)
        tiles.clear()

    def add(pixels: np.ndarray, title: str) -> None:
        nonlocal left
        if not names:
            left += 1
            return
        tiles.append((pixels, title))
        if len(tiles) == COLUMNS * ROWS:
            write()

    yield add
    if tiles:
        write()
    if left:
        print(f"{flag}: {SHEETS} sheets are drawn; {left:,} pictures are on none", file=sys.stderr)
