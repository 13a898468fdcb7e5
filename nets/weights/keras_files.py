"""Keras files of every version: read into layers, written by Keras itself, and converted from and to checkpoints."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np

import nets
from checkpoints import (
    IMPORT,
    OBJECT_GRAPH,
    check_new,
    check_restorable,
    damage,
    foreign,
    prefix_of,
    shapes_of,
    write_checkpoint,
)
from errors import UserError
from files import atomic_directory
from nets.weights.array_checks import check_size
from nets.weights.keras_layers import PARTS, Layers, model_of, to_keras, to_slim
from nets.weights.restoring import head_width, may_be_fresh
from tfcompat import object_graph_key_mapping, tf

# For .npz and checkpoints, in which arrays have names but no order.
NAMED_ORDER = (
    "kernel",
    "depthwise_kernel",
    "pointwise_kernel",
    "bias",
    "gamma",
    "beta",
    "moving_mean",
    "moving_variance",
)
MOST_CONFIG_BYTES = 2**26  # of the config of a .keras file; that of NASNet-A large has 2 MB
RUN_STATE = {"optimizer", "metrics", "seed_generator"}  # groups of a Keras 3 file that hold no weights
FORMATS = "Keras's .h5, .weights.h5 or .keras, a checkpoint that Keras wrote, or an .npz of arrays named 'layer|kernel'"


def _names(attributes: h5py.AttributeManager, key: str) -> list[str]:
    """A list of names in HDF5 attributes; Keras splits a list of more than 64 kB into key0, key1 and so on."""
    keys = [key] if key in attributes else [f"{key}{i}" for i in range(len(attributes)) if f"{key}{i}" in attributes]
    names = [name for part in keys for name in attributes[part]]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


class _Arrays:
    """Reads arrays until they would fill the memory: links let a small file hold one array any number of times."""

    def __init__(self) -> None:
        self.size = 0

    def read(self, dataset: h5py.Dataset) -> np.ndarray:
        """The values of a data set. Raises ValueError where all that are read take more than MOST_BYTES."""
        self.size += dataset.nbytes
        check_size(self.size, "weights")
        return np.asarray(dataset)


def _twice(name: str) -> ValueError:
    remedy = "save the model to import alone (model.get_layer(NAME).save_weights(FILE))"
    return ValueError(f"it holds several models: two layers are called {name}; {remedy}")


def _read_keras_2(group: h5py.Group) -> Layers:
    layers, arrays = {}, _Arrays()
    for name in _names(group.attrs, "layer_names"):
        paths = _names(group[name].attrs, "weight_names")
        owners = [path.rpartition("/")[0].rpartition("/")[2] for path in paths]
        # A model inside the model is one layer here; the paths of its weights name their own layers. For a simple layer
        # the layer's name is more reliable: in old files the path is block1_conv1_W_1:0 or has another model's prefix.
        nested = len(set(owners)) > 1
        for path, owner in zip(paths, owners, strict=True):
            layers.setdefault(owner if nested else name, []).append(arrays.read(group[name][path]))
    return layers


def _read_keras_3(file: h5py.File) -> Layers:
    layers, read = {}, _Arrays()

    def visit(path: str, item: "h5py.Group | h5py.Dataset") -> None:
        *owner, last = path.split("/")
        if last != "vars" or not isinstance(item, h5py.Group) or RUN_STATE & set(owner):
            return
        # Files of tf_keras have no names, only numbered classes: layers/conv2d_1.
        name = str(item.attrs.get("name", "/".join(owner)))
        arrays = [read.read(item[key]) for key in sorted(item, key=lambda key: (len(key), key))]
        if arrays and name in layers:
            raise _twice(name)
        if arrays:
            layers[name] = arrays

    file.visititems(visit)
    return layers


def _read_hdf5(file: h5py.File) -> Layers:
    group = file.get("model_weights", file)  # Keras 2 whole-model files have this group
    return _read_keras_2(group) if _names(group.attrs, "layer_names") else _read_keras_3(file)


def _named(arrays: Iterable[tuple[str, np.ndarray]]) -> Layers:
    """Layers of arrays that are named 'layer|kernel', 'layer/kernel:0' or 'model/layer/kernel', in any order."""
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays:
        *owners, layer, part = ["", *name.removesuffix(":0").replace("|", "/").split("/")]
        if RUN_STATE & set(owners):
            continue
        # An array with another name has no place in the order: it is a layer of its own, which no net has.
        found = parts.setdefault(layer if part in NAMED_ORDER or part.isdigit() else f"{layer}/{part}", {})
        if part in found:
            raise ValueError(f"two arrays {part} of a layer {layer}")
        found[part] = array
    rank = {part: i for i, part in enumerate(NAMED_ORDER)}
    return {
        layer: [found[part] for part in sorted(found, key=lambda part: rank.get(part, len(rank)))]
        for layer, found in parts.items()
    }


def _read_npz(path: str) -> Layers:
    with np.load(path) as archive:
        check_size(sum(member.file_size for member in archive.zip.infolist()), "weights")
        return _named((key, np.asarray(archive[key])) for key in archive.files)  # bytes if it is not an array


def _read_zip(path: str) -> Layers:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if any(name.endswith(".npy") for name in names):
            return _read_npz(path)
        if "model.weights.h5" not in names:
            raise ValueError(f"it is {foreign(path)}")
        check_size(archive.getinfo("model.weights.h5").file_size, "weights")
        # Unpacked first: h5py seeks in it, and each seek backwards would unpack the member again from its start.
        with tempfile.TemporaryFile() as unpacked, archive.open("model.weights.h5") as member:
            shutil.copyfileobj(member, unpacked)
            with h5py.File(unpacked) as file:
                layers = _read_hdf5(file)
        given = {}
        if "config.json" in names:
            if archive.getinfo("config.json").file_size > MOST_CONFIG_BYTES:
                raise ValueError(f"its config.json is larger than {MOST_CONFIG_BYTES >> 20} MiB")
            try:
                given = dict(_names_of_paths(json.loads(archive.read("config.json"))["config"]))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise ValueError("its config.json is not one of Keras's") from None
    named = Counter(given.get(name, name) for name in layers)
    if twice := next((name for name, count in named.items() if count > 1), None):
        raise _twice(twice)
    return {given.get(name, name): arrays for name, arrays in layers.items()}


def _names_of_paths(config: dict, parent: str = "") -> Iterator[tuple[str, str]]:
    """The paths of a .keras file's layers in it, such as layers/conv2d_1, and their names.

    A path counts the layers of a class in the order in which the model's config lists them; tf_keras writes the names
    nowhere else. A model may be a layer of another.
    """
    kinds, count = {kind.replace("_", ""): kind for kind in PARTS}, Counter()
    for layer in config.get("layers", ()):
        class_name = layer["class_name"].lower()
        kind = kinds.get(class_name, class_name)
        path = f"{parent}layers/{kind}_{count[kind]}".removesuffix("_0")
        count[kind] += 1
        if class_name in kinds:
            yield path, "".join([layer["config"]["name"]])  # a TypeError where it is no text
        elif "layers" in layer["config"]:
            yield from _names_of_paths(layer["config"], f"{path}/")


def _read_object_based(prefix: str) -> Layers:
    """The layers in a checkpoint of TensorFlow 2, which stores beside each variable the name that Keras gave it."""
    if wrong := damage(prefix):
        raise ValueError(wrong)
    if OBJECT_GRAPH not in shapes_of(prefix):
        raise ValueError("its variables have names already: it is used directly, as in --init-from")
    reader = tf.train.NewCheckpointReader(prefix)
    return _named(
        (name, reader.get_tensor(key))
        for name, key in object_graph_key_mapping(prefix).items()
        if name.rpartition("/")[2] in NAMED_ORDER and not RUN_STATE & set(key.split("/"))
    )


def read_weights(path: "str | os.PathLike") -> Layers:
    """All weights in a file, without optimizer or metrics state: layer names to arrays in Keras's order.

    Reads Keras 2's .h5 (weights or whole model), Keras 3's .weights.h5 and .keras, .npz with Keras's variable names
    (`conv1|kernel`, `conv1/kernel:0`), and object-based checkpoints: a prefix, or the directory of a SavedModel. The
    content decides which format it is. A layer without a name in the file gets its path there as its name:
    layers/conv2d_1.

    Raises UserError if the file is missing, damaged, or has no weights.
    """
    path = os.fspath(path)
    is_checkpoint = os.path.isdir(path) or path.endswith(".index") or os.path.isfile(f"{path}.index")
    if not is_checkpoint and not os.path.isfile(path):
        raise UserError(
            f"{path}: no such file; give {FORMATS}; or a frozen graph (.pb), or PyTorch's .safetensors or .pth"
        )
    try:
        if is_checkpoint:
            layers = _read_object_based(prefix_of(path, "FILE"))
        elif h5py.is_hdf5(path):
            with h5py.File(path, locking=False) as file:  # NFS and Lustre may have no locks
                layers = _read_hdf5(file)
        elif zipfile.is_zipfile(path):
            layers = _read_zip(path)
        elif (kind := foreign(path)) and not kind.endswith(IMPORT):
            raise ValueError(f"it is {kind}")
        else:
            raise ValueError("it is damaged: get it again" if kind else "neither HDF5 nor a zip archive")
    except Exception as error:  # a damaged file makes h5py, zipfile and NumPy raise almost any error, even MemoryError
        raise UserError(f"{path}: cannot be read as weights ({error}); it must be {FORMATS}") from error
    if not layers or any(a.dtype.kind not in "fiu" or not a.ndim for arrays in layers.values() for a in arrays):
        raise UserError(f"{path}: has no layers of numbers as Keras saves them; it must be {FORMATS}")
    return layers


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
    """Writes the layers of to_keras as a .weights.h5 file for the Keras model of the net.

    The model has include_top=True if the head is among the layers, and as many classes as the head. An existing file
    is replaced when the new one is complete. Returns the Keras call that makes the model.

    Raises UserError for another suffix, or if Keras cannot write the file.
    """
    model = model_of(net_name)
    path = Path(path).absolute()
    if not path.name.endswith(".weights.h5"):
        raise UserError(f"{path}: export writes Keras's .weights.h5 files; choose a name that ends with .weights.h5")
    if path.is_dir():
        raise UserError(f"{path} is a directory; name a file")
    options = dict(model.options)
    options["include_top"] = (head := model.layers[-1].names[0]) in layers
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


def import_keras(path: Path, net_name: str, out: Path) -> dict[str, str]:
    """Imports a file that read_weights takes into the checkpoint OUT/model.ckpt-0 with TF-Slim's names.

    Makes the directory OUT, which may exist only if it is empty. Returns the arrays of the file that are not used, with
    the reason. Raises UserError if the file does not fit the net, or the directory holds files.
    """
    check_new(out)
    with atomic_directory(out) as partial:
        values, unused = to_slim(read_weights(path), net_name)
        write_checkpoint(values, partial / "model.ckpt-0")
    return unused


def export_keras(prefix: str, net_name: str, path: str) -> str:
    """Exports a checkpoint to PATH.weights.h5. Returns the Keras call that makes the model for it.

    Raises UserError if the checkpoint does not fit the net, Keras has no such net, or the file cannot be written.
    """
    stored, net = shapes_of(prefix), nets.find(net_name)
    half = [name for name in stored if name.startswith(net.new_scopes[0])]
    if half and head_width(stored, net) is None:
        raise UserError(f"{prefix}: of the head {net.new_scopes[0]} it has only {', '.join(half)}; export another one")
    wanted = net.variable_shapes(head_width(stored, net) or 1000)
    specs = {name: tf.TensorSpec(shape, tf.float32) for name, shape in wanted.items()}
    found, reader = (
        check_restorable(prefix, specs, may_be_fresh(stored, net), net.scope),
        tf.train.NewCheckpointReader(prefix),
    )
    return write_weights(to_keras({name: reader.get_tensor(name) for name in found.restored}, net_name), net_name, path)
