"""Converts a Keras file into a checkpoint, and a checkpoint into a Keras file."""

from glob import escape
from pathlib import Path

import nets
from checkpoints import check_restorable, shapes_of, write_checkpoint
from errors import UserError
from files import atomic_directory
from nets.weights.keras_layers import to_keras, to_slim
from nets.weights.keras_reading import read_weights
from nets.weights.keras_writing import write_weights
from nets.weights.restoring import head_width
from tfcompat import tf


def import_keras(path: Path, net_name: str, out: Path) -> dict[str, str]:
    """Imports a Keras file into the checkpoint OUT/model.ckpt-0 with TF-Slim's names.

    Args:
        path: file that keras_reading.read_weights takes.
        net_name: key of NETS.
        out: directory to make; it may exist only if it is empty.

    Returns:
        The arrays of the file that are not used, with the reason.

    Raises:
        UserError: the file does not fit the net, or the directory holds files.
    """
    if escape(str(out)) != str(out) or "\\" in str(out):
        raise UserError(f"--out {str(out)!r} contains one of * ? [ \\, which TensorFlow reads as wildcards: rename it")
    with atomic_directory(out) as partial:
        values, unused = to_slim(read_weights(path), net_name)
        write_checkpoint(values, partial / "model.ckpt-0")
    return unused


def export_keras(prefix: str, net_name: str, path: str) -> str:
    """Exports a checkpoint to PATH.weights.h5. Returns the Keras call that makes the model for it.

    Raises UserError if the checkpoint does not fit the net, Keras has no such net, or the file cannot be written.
    """
    stored, net = shapes_of(prefix), nets.find(net_name)
    wanted = net.variable_shapes(head_width(stored, net) or 1000)
    specs = {name: tf.TensorSpec(shape, tf.float32) for name, shape in wanted.items()}
    found, reader = check_restorable(prefix, specs, net.new_scopes, net.scope), tf.train.NewCheckpointReader(prefix)
    return write_weights(to_keras({name: reader.get_tensor(name) for name in found.restored}, net_name), net_name, path)
