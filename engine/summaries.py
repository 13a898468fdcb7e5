"""Summaries that the graph computes: pictures, and the weights of each variable and of each block of the net.

TensorBoard sorts tags and opens the first groups: these come behind accuracy, loss and progress.
"""

from collections.abc import Iterable, Sequence

from channels import visible
from tfcompat import tf

# raw_ops below, since tf.summary's own functions make tags unique among the graph's names: conv1/weights_1.


def picture_summary(images: tf.Tensor) -> tf.Tensor:
    """A summary op of the first eight inputs of a batch."""
    return tf.raw_ops.ImageSummary(tag="training_inputs", tensor=visible(images), max_images=8)


def weight_summary(variables: Sequence[tf.Variable], norms_by: str, channels: int) -> tf.Tensor:
    """A summary op of the distribution of each variable, of the L2 norms of `groups`, and of the first layer's filters
    as a picture. channels are those of the net's inputs."""
    parts = [tf.raw_ops.HistogramSummary(tag=f"weight_histogram/{v.op.name}", values=v) for v in variables]
    squares = [tf.nn.l2_loss(v) for v in variables]
    for name, places in groups([v.op.name for v in variables], norms_by).items():
        norm = tf.sqrt(2.0 * tf.add_n([squares[place] for place in places]))
        parts.append(tf.raw_ops.ScalarSummary(tags=f"weight_norm/{name}", values=norm))
    kernels = [v for v in variables if v.shape.rank == 4 and v.shape[2] == channels and v.op.name.endswith("/weights")]
    if kernels:
        grid = visible(_filter_grid(kernels[0]))
        parts.append(tf.raw_ops.ImageSummary(tag=f"weight_filters/{kernels[0].op.name}", tensor=grid))
    return tf.summary.merge(parts)


def groups(names: Iterable[str], norms_by: str) -> dict[str, list[int]]:
    """The charts of norms, each with the places of its variables: one for each variable, or with 'block' for each block
    of the net, the part of the names below the net's own scope: block1, conv1, Mixed_3b."""
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        scope, _, below = name.partition("/")
        block = below.split("/")[0] if "/" in below else scope
        found.setdefault(name if norms_by == "variable" else block, []).append(place)
    return found


def _filter_grid(kernel: tf.Tensor, columns: int = 8) -> tf.Tensor:
    """The filters [H, W, C, N] of a first layer side by side as one picture, float32 [1, height, width, C]: each from
    its lowest weight, black, to its highest, with a black line between them, as large as 400 pixels allow."""
    height, width, channels, count = kernel.shape.as_list()
    low, high = (reduce(kernel, [0, 1, 2]) for reduce in (tf.reduce_min, tf.reduce_max))
    rows = -(-count // columns)
    lines = [[0, 1], [0, 1], [0, 0], [0, rows * columns - count]]
    filters = tf.pad((kernel - low) / tf.maximum(high - low, 1e-12), lines)
    filters = tf.reshape(filters, [height + 1, width + 1, channels, rows, columns])
    sides = rows * (height + 1), columns * (width + 1)
    grid = tf.reshape(tf.transpose(filters, [3, 0, 4, 1, 2]), [1, *sides, channels])
    scale = max(1, 400 // max(sides))
    return tf.repeat(tf.repeat(grid, scale, 1), scale, 2)
