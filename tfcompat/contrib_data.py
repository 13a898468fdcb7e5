"""Functions of tf.contrib.data that tf.data.experimental does not have, for Dataset.apply."""

from collections.abc import Callable

from tfcompat import tf

__all__ = ["batch_and_drop_remainder", "padded_batch_and_drop_remainder", "sloppy_interleave"]

Transformation = Callable[[tf.data.Dataset], tf.data.Dataset]


def batch_and_drop_remainder(batch_size: int) -> Transformation:
    """Batches of equal size; a smaller last one is left out."""
    return lambda dataset: dataset.batch(batch_size, drop_remainder=True)


def padded_batch_and_drop_remainder(
    batch_size: int, padded_shapes: object, padding_values: object = None
) -> Transformation:
    """Padded batches of equal size; a smaller last one is left out."""
    return lambda dataset: dataset.padded_batch(batch_size, padded_shapes, padding_values, drop_remainder=True)


def sloppy_interleave(map_func: Callable, cycle_length: int, block_length: int = 1) -> Transformation:
    """Interleaves data sets, in the order in which their elements are ready."""
    return tf.data.experimental.parallel_interleave(map_func, cycle_length, block_length, sloppy=True)
