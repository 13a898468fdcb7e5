"""TensorBoard: scalars of train and validation under the same names, pictures, weights, settings, figures, graph."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tensorboard.plugins.text.summary import text_pb

from errors import UserError
from tfcompat import tf

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# raw_ops below, since tf.summary's own functions make tags unique among the graph's names: conv1/weights_1.


def add_scalars(writer: tf.summary.FileWriter, step: int, values: Mapping[str, float]) -> None:
    """Writes scalars by tag; TensorBoard groups them by the part before the slash."""
    tags = [tf.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    writer.add_summary(tf.Summary(value=tags), step)
    writer.flush()


def add_table(writer: tf.summary.FileWriter, tag: str, rows: Mapping[str, object]) -> None:
    """Writes names and values as a table among TensorBoard's texts."""
    table = "\n".join(["| setting | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
    writer.add_summary(text_pb(tag, table).SerializeToString(), 0)


def add_figure(writer: tf.summary.FileWriter, step: int, tag: str, figure: "Figure") -> None:
    """Writes a matplotlib figure as a picture."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100)
    width, height = (int(side) for side in figure.get_size_inches() * 100)
    image = tf.Summary.Image(encoded_image_string=png.getvalue(), height=height, width=width, colorspace=4)
    writer.add_summary(tf.Summary(value=[tf.Summary.Value(tag=tag, image=image)]), step)


def pictures(images: tf.Tensor) -> tf.Tensor:
    """A summary op of the first eight inputs of a batch."""
    return tf.raw_ops.ImageSummary(tag="pictures", tensor=images, max_images=8)


def weights(variables: Sequence[tf.Variable]) -> tf.Tensor:
    """A summary op of the distribution of every variable under its name, of its norm, and of the first layer's filters
    as a picture."""
    parts = [tf.raw_ops.HistogramSummary(tag=v.op.name, values=v) for v in variables]
    parts += [tf.raw_ops.ScalarSummary(tags=f"weight_norm/{v.op.name}", values=tf.norm(v)) for v in variables]
    kernels = [v for v in variables if v.shape.rank == 4 and v.shape[2] in (1, 3) and v.op.name.endswith("/weights")]
    if kernels:
        grid = tf.raw_ops.ImageSummary(tag=f"filters/{kernels[0].op.name}", tensor=filter_grid(kernels[0]))
        parts.append(grid)
    return tf.summary.merge(parts)


def filter_grid(kernel: tf.Tensor, columns: int = 8) -> tf.Tensor:
    """The filters [H, W, C, N] of a first layer side by side as one picture, float32 [1, height, width, C]: each from
    its lowest weight, black, to its highest, with a black line between them, as large as 400 pixels allow."""
    height, width, channels, count = kernel.shape.as_list()
    low, high = (reduce(kernel, [0, 1, 2]) for reduce in (tf.reduce_min, tf.reduce_max))
    rows = -(-count // columns)
    filters = tf.pad(
        (kernel - low) / tf.maximum(high - low, 1e-12), [[0, 1], [0, 1], [0, 0], [0, rows * columns - count]]
    )
    filters = tf.reshape(filters, [height + 1, width + 1, channels, rows, columns])
    sides = rows * (height + 1), columns * (width + 1)
    grid = tf.reshape(tf.transpose(filters, [3, 0, 4, 1, 2]), [1, *sides, channels])
    scale = max(1, 400 // max(sides))
    return tf.repeat(tf.repeat(grid, scale, 1), scale, 2)


def open_writer(directory: str, step: int, graph: tf.Graph | None = None) -> tf.summary.FileWriter:
    """A writer for a run that continues from `step`: TensorBoard then hides later events of a killed run."""
    try:
        writer = tf.summary.FileWriter(directory, graph)
    except tf.errors.OpError as error:
        raise UserError(f"{directory} cannot be written ({error.message})") from None
    writer.add_session_log(tf.SessionLog(status=tf.SessionLog.START), step + 1)
    return writer
