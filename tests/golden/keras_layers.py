"""Writes keras_layers.json.gz: the layers with weights of keras.applications, by net: class, name and shapes of arrays.

    python tests/golden/keras_layers.py    in the order of model.layers; a test compares it with what Keras makes now

Runs without tfcompat, which switches off the TensorFlow behaviour that Keras needs.
"""

import gzip
import json
import pathlib
import sys

import keras

PATH = pathlib.Path(__file__).with_name("keras_layers.json.gz")


def layers_of(application: str, options: dict) -> list[tuple[str, str, list[list[int]]]]:
    """Class, name and shapes of the arrays of a model's layers with weights, for 10 classes."""
    keras.backend.clear_session()  # numbers layers from 0 again
    model = getattr(keras.applications, application)(weights=None, classes=10, **options)
    return [(type(x).__name__, x.name, [list(w.shape) for w in x.weights]) for x in model.layers if x.weights]


if __name__ == "__main__":
    made = {name: layers_of(*request) for name, request in json.loads(sys.argv[1]).items()}
    PATH.write_bytes(gzip.compress(json.dumps(made).encode(), mtime=0))
