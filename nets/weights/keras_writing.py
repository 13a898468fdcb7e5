"""Writes layers of keras.applications as a .weights.h5 file, in a process with Keras."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from errors import UserError
from nets.weights.keras_models import model_of
from nets.weights.keras_reading import Layers

# In its own process, because tfcompat switches off the TensorFlow behaviour that Keras needs.
KERAS_PROGRAM = """
import json, sys
import numpy as np
import keras
arrays_path, path, application, options = sys.argv[1:]
model = getattr(keras.applications, application)(weights=None, **json.loads(options))
with np.load(arrays_path) as arrays:
    for layer in model.layers:
        if layer.weights:
            layer.set_weights([arrays[f"{layer.name}/{i}"] for i in range(len(layer.weights))])
model.save_weights(path)
"""


def write_weights(layers: Layers, net_name: str, path: "str | os.PathLike") -> str:
    """Writes the layers of keras_layers.to_keras as a .weights.h5 file for the Keras model of the net.

    The model has include_top=True if the head is among the layers, and as many classes as the head. An existing file
    is replaced when the new one is complete. Returns the Keras call that makes the model.

    Raises UserError for another suffix, or if Keras cannot write the file.
    """
    model = model_of(net_name)
    path = pathlib.Path(path).absolute()
    if not path.name.endswith(".weights.h5"):
        raise UserError(f"{path}: Keras reads weights only from names that end with .weights.h5; choose such a name")
    options = {} if model.width is None else {"alpha": model.width}
    options["include_top"] = (head := model.layers[-1].name) in layers
    if head in layers:
        options["classes"] = int(layers[head][-1].shape[-1])
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as directory:
            made, arrays = os.path.join(directory, "made.weights.h5"), os.path.join(directory, "arrays.npz")
            np.savez(arrays, **{f"{name}/{i}": a for name, parts in layers.items() for i, a in enumerate(parts)})
            # Its own KERAS_HOME: a user's keras.json may set channels first or half precision.
            settings = {"KERAS_HOME": directory, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
            command = [sys.executable, "-c", KERAS_PROGRAM, arrays, made, model.application, json.dumps(options)]
            done = subprocess.run(
                command, cwd=directory, env={**os.environ, **settings}, capture_output=True, text=True
            )
            if done.returncode:
                raise OSError((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1])
            os.replace(made, path)
    except OSError as error:
        raise UserError(f"{path}: Keras cannot write it ({error}); is there such a directory, and space?") from error
    arguments = ", ".join(["weights=None", *(f"{key}={value}" for key, value in options.items())])
    return f"keras.applications.{model.application}({arguments})"
