"""Reads weights from Keras files of every version into layers: names to arrays, in Keras's own order."""

import os
import shutil
import tempfile
import zipfile

import h5py
import numpy as np

from errors import UserError

Layers = dict[str, list[np.ndarray]]  # name of a Keras layer to its arrays in Keras's order

# For .npz, in which arrays have names but no order.
NPZ_ORDER = ("kernel", "depthwise_kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
RUN_STATE = {"optimizer", "metrics", "seed_generator"}  # groups of a Keras 3 file that hold no weights
FORMATS = "Keras's .h5, .weights.h5 or .keras, or an .npz of arrays named 'layer|kernel'"


def _names(attributes: h5py.AttributeManager, key: str) -> list[str]:
    """A list of names in HDF5 attributes; Keras splits a list of more than 64 kB into key0, key1 and so on."""
    keys = [key] if key in attributes else [f"{key}{i}" for i in range(len(attributes)) if f"{key}{i}" in attributes]
    names = [name for part in keys for name in attributes[part]]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _read_keras_2(group: h5py.Group) -> Layers:
    layers: Layers = {}
    for name in _names(group.attrs, "layer_names"):
        paths = _names(group[name].attrs, "weight_names")
        owners = [path.rpartition("/")[0].rpartition("/")[2] for path in paths]
        # A model inside the model is one layer here; the paths of its weights name their own layers. For a simple layer
        # the layer's name is more reliable: in old files the path is block1_conv1_W_1:0 or has another model's prefix.
        nested = len(set(owners)) > 1
        for path, owner in zip(paths, owners, strict=True):
            layers.setdefault(owner if nested else name, []).append(np.asarray(group[name][path]))
    return layers


def _read_keras_3(file: h5py.File) -> Layers:
    layers: Layers = {}

    def visit(path: str, item: "h5py.Group | h5py.Dataset") -> None:
        *owner, last = path.split("/")
        if last != "vars" or not isinstance(item, h5py.Group) or RUN_STATE & set(owner):
            return
        # Files of tf_keras have no names, only numbered classes: layers/conv2d_1. The second layer with a name, from
        # a model inside the model, gets its path as its name.
        path_name = "/".join(owner)
        name = str(item.attrs.get("name", path_name))
        arrays = [np.asarray(item[key]) for key in sorted(item, key=lambda key: (len(key), key))]
        if arrays:
            layers[path_name if name in layers else name] = arrays

    file.visititems(visit)
    return layers


def _read_hdf5(file: h5py.File) -> Layers:
    group = file.get("model_weights", file)  # Keras 2 whole-model files have this group
    return _read_keras_2(group) if _names(group.attrs, "layer_names") else _read_keras_3(file)


def _read_npz(path: str) -> Layers:
    parts: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path) as archive:
        for key in archive.files:
            *owners, layer, part = ["", *key.removesuffix(":0").replace("|", "/").split("/")]
            if RUN_STATE & set(owners):
                continue
            arrays = parts.setdefault(layer, {})
            if part in arrays:
                raise ValueError(f"two arrays {part} of a layer {layer}")
            arrays[part] = np.asarray(archive[key])  # bytes if it is not an array
    rank = {part: i for i, part in enumerate(NPZ_ORDER)}
    return {
        layer: [arrays[part] for part in sorted(arrays, key=lambda part: rank.get(part, len(rank)))]
        for layer, arrays in parts.items()
    }


def _read_zip(path: str) -> Layers:
    with zipfile.ZipFile(path) as archive:
        if "model.weights.h5" not in archive.namelist():
            return _read_npz(path)
        # Unpacked first: h5py seeks in it, and each seek backwards would unpack the member again from its start.
        with tempfile.TemporaryFile() as unpacked, archive.open("model.weights.h5") as member:
            shutil.copyfileobj(member, unpacked)
            with h5py.File(unpacked) as file:
                return _read_hdf5(file)


def read_weights(path: "str | os.PathLike") -> Layers:
    """All weights in a file, without optimizer or metrics state: layer names to arrays in Keras's order.

    Reads Keras 2's .h5 (weights or whole model), Keras 3's .weights.h5 and .keras, and .npz with Keras's variable
    names (`conv1|kernel`, `conv1/kernel:0`). The content decides which format it is. A layer without a name in the file
    gets its path there as its name: layers/conv2d_1.

    Raises UserError if the file is missing, damaged, or has no weights.
    """
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file; give a file with weights: {FORMATS}")
    try:
        if h5py.is_hdf5(path):
            with h5py.File(path) as file:
                layers = _read_hdf5(file)
        elif zipfile.is_zipfile(path):
            layers = _read_zip(path)
        else:
            raise ValueError("neither HDF5 nor a zip archive")
    except Exception as error:  # a damaged file makes h5py, zipfile and NumPy raise almost any error, even MemoryError
        raise UserError(f"{path}: cannot be read as weights ({error}); it must be {FORMATS}") from error
    if not layers or any(a.dtype.kind not in "fiu" or not a.ndim for arrays in layers.values() for a in arrays):
        raise UserError(f"{path}: has no layers of numbers as Keras saves them; it must be {FORMATS}")
    return layers
