"""Weights from elsewhere: published checkpoints, Keras and PyTorch files, and frozen graphs, converted to and
from TF-Slim's variable names.

    prefix = fetch("vgg_16")                                  # or locate("vgg_16.ckpt")
    restorer(prefix, nets.find("vgg_16")).restore(session, prefix)

The same from the command line: python -m nets.weights.
"""

from checkpoints import write_checkpoint
from nets.weights.frozen_graphs import import_frozen
from nets.weights.keras_files import export_keras, import_keras
from nets.weights.published import fetch
from nets.weights.restoring import Restorer, absent_heads, head_width, input_channels, inspect, restorer
from nets.weights.torch_files import import_torch

__all__ = ["Restorer", "absent_heads", "export_keras", "fetch", "head_width", "import_frozen", "import_keras"]
__all__ += ["import_torch", "input_channels", "inspect", "restorer", "write_checkpoint"]
