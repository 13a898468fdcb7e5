"""PyTorch's state dicts, from .safetensors or from .pth files, as checkpoints with TF-Slim's names."""

import argparse
import importlib
import math
import os
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

import nets
from checkpoints import PYTORCH, SAFETENSORS, check_new, foreign, write_checkpoint
from errors import UserError
from files import MOST_BYTES, atomic_directory, check_unpacked
from nets.weights.array_checks import as_float32, check_size, some
from nets.weights.torch_layers import MODELS, PARTS, Layer, Model, model_of

Arrays = dict[str, np.ndarray]

# Keys of training checkpoints that hold a state dict; of several the first is used, as by timm's loader.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
COUNTERS = ("num_batches_tracked", "n_averaged")  # of batch norm without momentum, and of torch's AveragedModel
OLDEST = (2, 6)  # before it, torch.load(weights_only=True) could be made to run code (CVE-2025-32434)
PREPROCESSING = (
    "torchvision's weights expect --preprocessing torchvision, in eval.py, predict.py and train.py; timm's mostly too"
)


def is_state_dict(path: str) -> bool:
    """Whether a file is one of PyTorch's or a safetensors file, by its content."""
    return os.path.isfile(path) and (foreign(path) or "").startswith((*PYTORCH, SAFETENSORS))


def import_torch(path: "str | os.PathLike", net_name: str, out: "str | os.PathLike") -> list[str]:
    """Imports a state dict of torchvision's or timm's into the checkpoint OUT/model.ckpt-0 with TF-Slim's names.

    Makes the directory OUT, which may exist only if it is empty. Returns lines about which of several state dicts is
    used, what was converted, and arrays that are not used. Raises UserError if the net's architecture is not that of
    PyTorch's, the file is damaged or does not fit the net, a package that reads it is missing, or the directory holds
    files.
    """
    check_new(out)
    model_of(net_name)
    with atomic_directory(out) as partial:
        arrays, lines = read_state_dict(os.fspath(path))
        values, unused = to_slim(arrays, net_name)
        write_checkpoint(values, Path(partial) / "model.ckpt-0")
    return [*lines, *(f"not used: {name}: {net_name} has no such layer" for name in unused)]


def read_state_dict(path: str) -> tuple[Arrays, list[str]]:
    """The arrays in a file by PyTorch's names, all floats as float32; and lines that say what was chosen or converted.

    Nothing in the file is run. Raises UserError if the file is damaged, larger than MOST_BYTES or no state dict, or a
    package is missing.
    """
    safe = (foreign(path) or "").startswith(SAFETENSORS)
    module = _package("safetensors", path) if safe else _package("torch", path)
    try:
        arrays, lines = _read_safetensors(path, module) if safe else _read_pickle(path, module)
    except Exception as error:  # a damaged file makes the readers raise almost any error, even MemoryError
        reason, remedy = (str(error).splitlines() or [repr(error)])[0][:200], "get it again"
        if called := re.search(r"GLOBAL ([\w.]+)", str(error)):  # of torch's UnpicklingError
            reason, remedy = f"it would run {called[1]}", "save the weights alone: torch.save(model.state_dict(), FILE)"
        raise UserError(f"{path}: cannot be read as a state dict ({reason}); {remedy}") from error
    types = sorted({str(array.dtype) for array in arrays.values()} & {"float16", "bfloat16", "float64"})
    lines += [f"converted from {' and '.join(types)} to float32"] if types else []
    with np.errstate(over="ignore"):  # numbers that are not finite are refused later
        floats = {name: array.astype(np.float32) for name, array in arrays.items() if _is_float(array)}
    return {**arrays, **floats}, lines


def _is_float(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def _package(name: str, path: str) -> ModuleType:
    """The package that reads a file. Raises UserError, which says how to do without it, if it is missing or too old."""
    try:
        module = importlib.import_module(name)
    except ImportError:
        if name == "safetensors":
            raise UserError(f"{path}: to read it, pip install safetensors (requirements-torch.txt)") from None
        save = f"s.save_file(torch.load({path!r}, map_location='cpu', weights_only=True), 'FILE.safetensors')"
        raise UserError(
            f"{path} is a PyTorch file, which only PyTorch reads safely: pip install torch, or convert it where "
            f'PyTorch is installed, with python -c "import torch, safetensors.torch as s; {save}"'
        ) from None
    if name == "torch" and tuple(map(int, re.findall(r"\d+", module.__version__)[:2])) < OLDEST:
        raise UserError(
            f"PyTorch {module.__version__} can be made to run code by a file that it reads (CVE-2025-32434): "
            "pip install 'torch>=2.6', or give a .safetensors file"
        )
    return module


def _check_shapes(shapes: Iterable[Iterable[int]]) -> None:
    """Raises ValueError for arrays that would fill the memory as float32: a small file can hold views of any shape."""
    check_size(4 * sum(map(math.prod, shapes)), "arrays")


def _read_safetensors(path: str, safetensors: ModuleType) -> tuple[Arrays, list[str]]:
    import ml_dtypes  # noqa: F401 – with TensorFlow; makes bfloat16 known to NumPy

    with safetensors.safe_open(path, framework="np") as file:
        names = list(file.keys())
        _check_shapes(file.get_slice(name).get_shape() for name in names)
        return {name: file.get_tensor(name) for name in names}, []


def _read_pickle(path: str, torch: ModuleType) -> tuple[Arrays, list[str]]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            check_unpacked(archive)
    elif os.path.getsize(path) > MOST_BYTES:
        raise ValueError(f"larger than {MOST_BYTES >> 30} GiB")
    # timm's training checkpoints hold their arguments; a Namespace does nothing when it is made.
    with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on kinds of files and arrays that are refused anyway
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    found, lines = choose(loaded)
    tensors = {
        name: tensor for name, tensor in found.items() if isinstance(name, str) and isinstance(tensor, torch.Tensor)
    }
    if not tensors:
        raise ValueError("it holds no arrays with names")
    _check_shapes(tensor.shape for tensor in tensors.values())
    short = sorted({str(t.dtype).removeprefix("torch.") for t in tensors.values() if t.dtype == torch.bfloat16})
    lines += [f"converted from {name} to float32" for name in short]  # NumPy has none: converted here
    return {
        name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
        for name, tensor in tensors.items()
    }, lines


def choose(loaded: object) -> tuple[Mapping, list[str]]:
    """The state dict in what a file holds, and a line that says which, if it is not alone.

    Raises ValueError if there is none.
    """
    if not isinstance(loaded, Mapping):
        raise ValueError(f"it holds a {type(loaded).__name__}, and no dict of arrays")
    held = [key for key in WRAPPERS if isinstance(loaded.get(key), Mapping) and loaded[key]]
    if not held:
        return loaded, []
    others = f"; {', '.join(held[1:])} are not" if held[1:] else ""
    found, lines = choose(loaded[held[0]])
    return found, [f"the weights under {held[0]} are used{others}", *lines]


class Use(NamedTuple):
    """An array of a file, and the variable of our net that it becomes."""

    name: str  # in the file
    variable: str
    kernel: list[int] | None  # [O, I, H, W] of a convolution or dense layer, which is transposed; None of a vector


def to_slim(arrays: Mapping[str, np.ndarray], net_name: str) -> tuple[Arrays, list[str]]:
    """Our variables from arrays with PyTorch's names: convolutions [O, I, H, W] and dense layers [O, I].

    Returns variable names to float32 arrays of the variables' shapes, without the head's if the file has no head; and
    the names that are not used. Raises UserError as `matched`, and for values that are no floats or not finite.
    """
    uses, unused = matched({name: list(array.shape) for name, array in arrays.items()}, net_name)
    values = {}
    for name, variable, kernel in uses:
        array = arrays[name]
        array = as_float32(array, f"{name} of the file", variable)
        # A dense layer flattens channels first; ours is stored as a convolution, whose channels are last.
        values[variable] = np.ascontiguousarray(array.reshape(kernel).transpose(2, 3, 1, 0)) if kernel else array
    return values, unused


def matched(held: Mapping[str, list[int]], net_name: str) -> tuple[list[Use], list[str]]:
    """The arrays of a file, of which only the shapes are needed, with our variables; and the names not used.

    Pictures may have any number of channels. Raises UserError for the weights of another net, and for shapes that do
    not fit the net's variables.
    """
    model, net = model_of(net_name), nets.find(net_name)
    names = _names(held, model)
    head = names.get(f"{model.layers[-1].name}.weight")
    shapes = net.variable_shapes(max([1, *held[head][:1]]) if head else 1000)
    needed = {}  # names in PyTorch, with the layers and variables
    for layer in _layers_in(names, model):
        for theirs, ours in PARTS[layer.kind].items():
            if (variable := f"{net.prefix}{layer.scope}/{ours}") in shapes:  # convolutions may have no biases
                needed[f"{layer.name}.{theirs}"] = layer, variable
    _check_names(names, needed, net_name)
    uses = []
    for name, (layer, variable) in needed.items():
        there, shape = held[names[name]], list(shapes[variable])
        if layer == model.layers[0] and len(there) == len(shape) == 4:
            shape[2] = max(1, there[1])  # pictures of other channels
        kernel = [shape[3], shape[2], *shape[:2]] if len(shape) == 4 else None
        allowed = [kernel or shape]
        if kernel and layer.kind == "dense":
            allowed.append([kernel[0], math.prod(kernel[1:])])
        if there not in allowed:
            raise UserError(
                f"{names[name]} of the file is {there}; {variable} {shape} needs {' or '.join(map(str, allowed))}: "
                "give weights of the same net, or leave out the layers of its head"
            )
        uses.append(Use(names[name], variable, kernel))
    return uses, [original for name, original in names.items() if name not in needed]


def _names(arrays: Iterable[str], model: Model) -> dict[str, str]:
    """Names in torchvision's model, with those in the file, which wrappers such as DataParallel make longer."""
    names = {}
    for original in arrays:
        name = re.sub(r"^((module|_orig_mod|model)\.)+", "", original)
        for pattern, replacement in model.renamed:
            name = re.sub(pattern, replacement, name)
        if name in names:
            raise UserError(f"the file has {name} twice, as {names[name]} and as {original}")
        if name.rpartition(".")[2] not in COUNTERS:
            names[name] = original
    return names


def _layers_in(names: Iterable[str], model: Model) -> list[Layer]:
    """The layers that a file must have: all but those of the head after the last one that is there."""
    held = {name.rpartition(".")[0] for name in names}
    last = max((i for i, layer in enumerate(model.layers) if layer.name in held), default=-1)
    return [layer for i, layer in enumerate(model.layers) if not layer.in_head or i <= last]


def _check_names(names: Mapping[str, str], needed: Iterable[str], net_name: str) -> None:
    """Raises UserError if names are missing, or there are more in the same modules: a deeper net has all of a net's."""
    modules = {name.partition(".")[0] for name in needed}
    missing = [name for name in needed if name not in names]
    more = [names[name] for name in names if name not in needed and name.partition(".")[0] in modules]
    if not missing and not more:
        return
    sides = [f"it lacks {some(missing, 3)}"] if missing else []
    others = [original for name, original in names.items() if name not in needed]
    sides += [f"it also has {some(more, 3)}"] if more else [f"it has {some(others, 3)}"] if others else []
    fitting = [name for name in MODELS if name != net_name and _is_of(names, MODELS[name])]
    remedy = f"; it looks like {' or '.join(fitting)}" if fitting else ""
    raise UserError(f"these are not the weights of {net_name}: {', and '.join(sides)}{remedy}")


def _is_of(names: Iterable[str], model: Model) -> bool:
    """Whether names are those of a model, apart from its head."""
    trunk = {layer.name for layer in model.layers if not layer.in_head}
    modules = {name.partition(".")[0] for name in trunk}
    return trunk == {name.rpartition(".")[0] for name in names if name.partition(".")[0] in modules}
