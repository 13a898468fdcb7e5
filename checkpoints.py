"""Checkpoint files: find, read, validate, compare with a graph, save durably, prune; TensorFlow's V1 and V2 formats.

The newest checkpoint of a directory is the newest one that can be read completely, whatever its `checkpoint` file says.

TensorFlow's own Saver writes the `checkpoint` file and deletes old checkpoints before the data is on the disk, forgets
older checkpoints after a restart, and restarts from step 0 if the `checkpoint` file is lost. Here the order of a save
is: data, fsync, `checkpoint` file, fsync, then pruning by the files in the directory.
"""

import os
import re
import sys
import zipfile
from collections.abc import Mapping
from glob import escape, glob
from pathlib import Path
from typing import NamedTuple

import numpy as np

from errors import TrainingError, UserError
from files import fsync
from tfcompat import tf

NAME = "model.ckpt"
PREFIX = re.compile(rf"({re.escape(NAME)}-(\d+))\.(index|data-\d{{5}}-of-\d{{5}}|meta)$")

_ORPHAN = re.compile(rf"{re.escape(NAME)}-\d+\..*tempstate\d+$")  # left by a save that was killed

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"  # in checkpoints of TensorFlow 2: which variable belongs to which object

AVERAGE = "/ExponentialMovingAverage"  # ends the name of a variable's moving average, its EMA weights

Shapes = Mapping[str, list[int]]  # variable names to shapes


def newest_valid(
    directory: str, *others: str, advice: str = "choose another --run-dir to start a new run"
) -> str | None:
    """The prefix of the newest checkpoint that can be read in these directories; None if there is no checkpoint.

    Prints the damaged checkpoints that it skips. Raises UserError, which ends with `advice`, if all are damaged: to
    start over would overwrite the run.
    """
    found = [(step, place, name) for place in (directory, *others) for step, name in in_directory(Path(place))]
    for _, place, name in sorted(found, key=lambda entry: entry[0], reverse=True):
        prefix = os.path.join(place, name)
        wrong = damage(prefix)
        if wrong is None:
            return prefix
        print(f"{prefix} cannot be read ({wrong}); trying the one before", file=sys.stderr)
    if found:
        raise UserError(
            f"none of the {len(found)} checkpoints in {directory} can be read; restore them from a backup, or {advice}"
        )
    return None


def locate(path: str, flag: str = "--ckpt") -> str:
    """The checkpoint prefix for a path that an option names: as prefix_of, of a checkpoint that can be used directly.

    Raises UserError, which names the option `flag`, as prefix_of does; and if it cannot be read, is a file of another
    kind, or an object-based checkpoint of TensorFlow 2, whose variables have no names of their own.
    """
    prefix = prefix_of(path, flag)
    wrong = damage(prefix)
    if wrong:
        raise UserError(f"{flag} {path} cannot be read ({wrong})")
    if OBJECT_GRAPH in shapes_of(prefix):
        raise UserError(
            f"{flag} {path} is an object-based checkpoint of TensorFlow 2, as Keras and tf.train.Checkpoint write it; "
            f"convert it with python -m nets.weights import {prefix} --net NAME --out DIR"
        )
    return prefix


def _best_of(run: str) -> str:
    """Names the best checkpoint of a run, if it can be read, for an error about the others."""
    best = os.path.join(run, "best")
    return f", such as {best}" if any(not damage(os.path.join(best, n)) for _, n in in_directory(Path(best))) else ""


def prefix_of(path: str, flag: str) -> str:
    """The checkpoint prefix for a path: a run directory, whose newest valid checkpoint it is; another directory with a
    single checkpoint, such as a SavedModel; a prefix; or a V1 file.

    Raises UserError, which names the option `flag`, if the path is none of these.
    """
    if re.search(r"[*?\[\]\\]", os.path.abspath(path)):
        raise UserError(f"{flag} {path} contains one of * ? [ ] \\, which TensorFlow reads as wildcards: rename it")
    if os.path.basename(path) == "checkpoint" and os.path.isfile(path):
        path = os.path.dirname(path) or "."
    if os.path.isdir(path):
        return newest_valid(path, advice=f"name another one with {flag}{_best_of(path)}") or _only_one(path, flag)
    prefix = re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path)
    if os.path.isfile(prefix) or os.path.isfile(prefix + ".index"):
        return prefix
    if data := glob(f"{escape(prefix)}.data-*"):
        raise UserError(f"{flag} {path}: {data[0]} is there, but {prefix}.index is missing; copy both")
    steps = [name.removesuffix(".index") for name in sorted(glob(f"{escape(prefix)}-*.index"))]
    raise UserError(
        f"{flag} {path} does not exist; "
        + (f"did you mean {steps[-1]}? " if steps else "")
        + f"give a run directory, a prefix such as runs/digits/{NAME}-1000, or a V1 file such as vgg_16.ckpt"
    )


def _only_one(directory: str, flag: str) -> str:
    """The prefix of the only checkpoint in a directory that is no run: of slim's archives, Keras, or a SavedModel."""
    found = [path.removesuffix(".index") for path in glob(f"{escape(directory)}/*.index")]
    found += [path for path in glob(f"{escape(directory)}/*.ckpt") if os.path.isfile(path)]
    variables = os.path.join(directory, "variables", "variables")  # of a SavedModel
    found += [variables] if os.path.isfile(f"{variables}.index") else []
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{flag} {directory} holds several checkpoints: give one of {', '.join(sorted(found))}")
    if os.path.isfile(os.path.join(directory, "saved_model.pb")):
        raise UserError(f"{flag} {directory} is a SavedModel without variables: {SOURCE}")
    raise UserError(f"{flag} {directory}: the directory holds no checkpoint ({NAME}-STEP.index)")


def shapes_of(prefix: str) -> dict[str, list[int]]:
    """The name and shape of every tensor in a checkpoint, V1 or V2. Raises UserError if it cannot be read."""
    try:
        return dict(tf.train.NewCheckpointReader(prefix).get_variable_to_shape_map())
    except Exception as error:  # DataLossError, ValueError, NotFoundError: the binding does not translate them all
        raise UserError(f"{prefix} cannot be read as a checkpoint ({_first_line(error)})") from None


def averages(stored: Shapes, scope: str = "") -> list[str]:
    """The names of the variables under a scope whose moving averages a checkpoint holds."""
    return [name.removesuffix(AVERAGE) for name in stored if name.startswith(scope) and name.endswith(AVERAGE)]


def sources(stored: Shapes, ema: bool) -> dict[str, str]:
    """The names of variables, each with the name of its value in a checkpoint.

    With ema, that is the moving average where there is one, as in ExponentialMovingAverage.variables_to_restore.
    """
    own = {name: name for name in stored if not (ema and name.endswith(AVERAGE))}
    return own | ({name: f"{name}{AVERAGE}" for name in averages(stored)} if ema else {})


def step_of(prefix: str) -> int | None:
    """The step that a checkpoint was saved at: its global_step, else the number at the end of its name, else None."""
    reader = tf.train.NewCheckpointReader(prefix)
    if reader.get_variable_to_shape_map().get("global_step") == []:
        return int(reader.get_tensor("global_step"))
    match = re.search(r"-(\d+)$", prefix)
    return int(match[1]) if match else None


def in_directory(directory: Path) -> list[tuple[int, str]]:
    """(step, name) of every checkpoint with at least one file in the directory, oldest first."""
    if not directory.is_dir():
        return []
    matches = (PREFIX.match(path.name) for path in directory.iterdir())
    return sorted({(int(match[2]), match[1]) for match in matches if match})


def damage(prefix: str) -> str | None:
    """Reads every tensor, which checks every CRC. Returns the reason if one cannot be read, else None."""
    if os.path.isfile(prefix) and (kind := foreign(prefix)):
        return f"it is {kind}"
    try:
        reader = tf.train.NewCheckpointReader(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except Exception as error:  # DataLossError, ValueError, IndexError: the binding does not translate them all
        return _first_line(error)
    return None


IMPORT = "convert it to a checkpoint with python -m nets.weights import"
SOURCE = "it can only be run; give the checkpoint or the Keras file that it was made from"
ARRAYS = "python -m nets.weights import reads an .npz of its arrays, named ('conv1|kernel') and laid out as in Keras"
FROZEN = "a frozen graph"
PYTORCH = ("a PyTorch file", "a Python pickle, as PyTorch writes it")
SAFETENSORS = "a safetensors file"
_GRAPH = re.compile(rb"\n[\x80-\xff]*[\x00-\x7f]\n")  # the first bytes of a GraphDef: a node, its length, its name
UNPACK = "unpack it, and give the checkpoint in it"


def foreign(path: str) -> str | None:
    """The kind of a file that is no checkpoint but has weights of another format, and the way out; None if unknown."""
    with open(path, "rb") as file:
        start = file.read(512)
    if start.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    suffix, text = os.path.splitext(path)[1].lower(), start.lstrip().lower()
    kinds = (
        (not start, "empty; get it again"),
        (start.startswith(b"\x89HDF"), f"a Keras file; {IMPORT}"),
        (start.startswith(b"\x93NUMPY"), f"a single NumPy array; {ARRAYS}"),
        (start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")), f"a compressed file; {UNPACK}"),
        (start[257:262] == b"ustar", f"a tar archive; {UNPACK}"),
        (start[4:8] == b"TFL3", f"a TFLite model; {SOURCE}"),
        (suffix == ".onnx", f"an ONNX model; {SOURCE}"),
        (re.match(rb"\x80[\x02-\x05]", start), f"{PYTORCH[1]}; {IMPORT}"),
        (start[8:10] == b'{"', f"{SAFETENSORS}; {IMPORT}"),
        (text.startswith((b"<!doctype", b"<html", b"<?xml")), "a web page; the download failed: get the file again"),
        (text.startswith(b"version https://git-lfs"), "a pointer of Git LFS; run git lfs pull"),
        (
            os.path.basename(path) == "saved_model.pb" or (suffix == ".pb" and start.startswith(b"\x08\x01\x12")),
            "the graph of a SavedModel; give its directory",
        ),
        (suffix in (".pb", ".pbtxt") or _GRAPH.match(start), f"{FROZEN}; {IMPORT}"),
    )
    return next((kind for found, kind in kinds if found), None)


def _kind_of_zip(path: str) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        names = []
    if any(name.endswith("data.pkl") for name in names):
        return f"{PYTORCH[0]}; {IMPORT}"
    keras = "model.weights.h5" in names or any(name.endswith(".npy") for name in names)
    return f"a Keras or NumPy file; {IMPORT}" if keras or not names else f"a zip archive; {UNPACK}"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200]


class Comparison(NamedTuple):
    """The names of variables, by what happens to them when a checkpoint is restored into a graph."""

    restored: list[str]
    fresh: list[str]  # may keep their initial values: not in the checkpoint, or of another shape there
    missing: list[str]  # of the others: not in the checkpoint
    mismatched: list[str]  # of the others: of another shape in the checkpoint
    unused: list[str]  # in the checkpoint, but not in the graph


def compare(stored: Shapes, wanted: Shapes, may_be_fresh: tuple[str, ...] = ()) -> Comparison:
    """Compares the shapes in a checkpoint with those that a graph's variables want.

    may_be_fresh are beginnings of the names of variables that need not be restored.
    """
    result = Comparison([], [], [], [], [name for name in stored if name not in wanted])
    for name, shape in wanted.items():
        if stored.get(name) == shape:
            result.restored.append(name)
        elif name.startswith(may_be_fresh):
            result.fresh.append(name)
        else:
            (result.mismatched if name in stored else result.missing).append(name)
    return result


def check_restorable(
    prefix: str,
    variables: Mapping[str, "tf.Variable | tf.TensorSpec"],
    may_be_fresh: tuple[str, ...] = (),
    net: str = "the net",
) -> Comparison:
    """Compares a checkpoint with variables by their names in it, and checks that it can be restored into them.

    Raises UserError, which names the net, if nothing can be restored; if a variable is missing or has another shape,
    unless it may be fresh; or if a restored one has another type or values that are not finite, which a ReLU can turn
    into plausible outputs.
    """
    stored, reader, net = shapes_of(prefix), tf.train.NewCheckpointReader(prefix), net or "the net"
    wanted = {name: variable.shape.as_list() for name, variable in variables.items()}
    found, types = compare(stored, wanted, may_be_fresh), reader.get_variable_to_dtype_map()
    if not (found.restored or found.mismatched):
        scopes = ", ".join(sorted({name.split("/")[0] for name in stored})[:5])
        problems = [f"it has nothing of {net}; it holds the scopes {scopes}"]
    else:
        problems = [f"{name} is {stored[name]}, the net needs {wanted[name]}" for name in found.mismatched]
        problems += [f"{name} is missing" for name in found.missing]
    for name in found.restored:
        if types[name] != variables[name].dtype.base_dtype:
            problems.append(f"{name} is {types[name].name}; the net needs {variables[name].dtype.base_dtype.name}")
        elif not np.isfinite(reader.get_tensor(name)).all():
            problems.append(f"{name} is not finite")
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(
            f"{prefix} does not fit {net}: {'; '.join(problems[:3])}{more}. "
            f"python -m nets.weights inspect {prefix} shows what it holds and which net it fits"
        )
    return found


def check_new(out: "str | os.PathLike") -> None:
    """Raises UserError for the name of a directory that TensorFlow cannot write a checkpoint into."""
    if escape(str(out)) != str(out) or "\\" in str(out):
        raise UserError(f"--out {str(out)!r} contains one of * ? [ \\, which TensorFlow reads as wildcards: rename it")
    if os.path.realpath(out) == os.getcwd():
        raise UserError(f"--out {str(out)!r} is the current directory, which cannot be replaced: name a new one")


def write_checkpoint(values: Mapping[str, np.ndarray], prefix: Path) -> None:
    """Writes a V2 checkpoint of named arrays, and a `checkpoint` file beside it that names it."""
    with tf.Graph().as_default(), tf.Session() as session:
        tensors = {tf.placeholder(value.dtype, value.shape): value for value in values.values()}
        names, slices = list(values), [""] * len(values)
        save = tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=names, shape_and_slices=slices, tensors=list(tensors))
        session.run(save, tensors)
    tf.train.update_checkpoint_state(str(prefix.parent.absolute()), prefix.name)


class CheckpointDirectory:
    """Saves into a directory and keeps the newest few."""

    def __init__(self, directory: str, keep: int, saver: tf.train.Saver):
        self.directory, self.keep, self.saver = Path(directory).absolute(), keep, saver

    def save(self, session: tf.Session, step: int) -> None:
        """Writes model.ckpt-STEP durably, then names it in `checkpoint`, then deletes the oldest ones.

        Raises TrainingError if that fails, for example on a full disk; the earlier checkpoints are kept.
        """
        prefix, named = self.directory / f"{NAME}-{step}", False
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self.saver.save(session, str(self.directory / NAME), step, write_meta_graph=False, write_state=False)
            for path in self.directory.glob(f"{prefix.name}.*"):
                fsync(path)
            fsync(self.directory)
            named = True
            kept = [*(name for s, name in in_directory(self.directory) if s < step), prefix.name][-self.keep :]
            # A copy of the list: update_checkpoint_state changes it, and writes names relative to the directory.
            tf.train.update_checkpoint_state(str(self.directory), kept[-1], list(kept))
            fsync(self.directory / "checkpoint")
            fsync(self.directory)
        except (OSError, tf.errors.OpError) as error:
            if not named:
                for path in self.directory.glob(f"{prefix.name}.*"):  # incomplete files on a disk that may be full
                    path.unlink(missing_ok=True)
            lines = str(getattr(error, "message", None) or error.strerror).splitlines()
            reason = next(line for line in lines if line.strip() and not line.startswith(("Graph", "Detected")))
            raise TrainingError(
                f"step {step} cannot be saved in {self.directory} ({reason}); earlier checkpoints are kept. "
                "Remove the cause, then run the same command again: it resumes from the newest checkpoint"
            ) from error
        for path in self.directory.iterdir():
            match = PREFIX.match(path.name)
            if (match and int(match[2]) < step and match[1] not in kept) or _ORPHAN.match(path.name):
                path.unlink()
