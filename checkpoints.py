"""Checkpoint files: finding, reading, comparing with a graph, saving durably, pruning; both of TensorFlow's forms.

The newest checkpoint of a directory is the newest that can be read to its last byte, whatever the `checkpoint` file
says.

TensorFlow's own Saver writes the `checkpoint` file and deletes old checkpoints before anything has reached the disk,
forgets older checkpoints after a restart, and restarts from step 0 where the `checkpoint` file is lost. Here a save is
data, fsync, `checkpoint` file, fsync, then pruning by the files in the directory.
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from errors import TrainingError, UserError
from files import fsync
from tfcompat import tf

NAME = "model.ckpt"
PREFIX = re.compile(rf"({re.escape(NAME)}-(\d+))\.(index|data-\d{{5}}-of-\d{{5}}|meta)$")

_ORPHAN = re.compile(rf"{re.escape(NAME)}-\d+\..*tempstate\d+$")  # what a killed save leaves


def newest_valid(directory: str, *others: str) -> str | None:
    """The prefix of the newest checkpoint that can be read, in a directory or in others that are looked at as well;
    None where there is no checkpoint at all.

    Damaged ones are named on the way. Raises UserError where all are damaged: starting over would overwrite the run.
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
            f"none of the {len(found)} checkpoints in {directory} can be read; "
            "restore them from a backup, or choose another --run-dir to start a new run"
        )
    return None


def locate(path: str, flag: str = "--ckpt") -> str:
    """What --ckpt PATH, or another flag, means: a run directory's newest valid checkpoint, a prefix, or a V1 file.

    Raises UserError where PATH is none of these, or cannot be read.
    """
    if re.search(r"[*?\[\]\\]", os.path.abspath(path)):
        raise UserError(f"{flag} {path} holds one of * ? [ ] \\; TensorFlow takes those for wildcards: rename it")
    if os.path.isdir(path):
        prefix = newest_valid(path)
        if prefix is None:
            raise UserError(f"{flag} {path}: the directory holds no checkpoint ({NAME}-STEP.index)")
        return prefix
    prefix = re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path)
    if not (os.path.isfile(prefix) or os.path.isfile(prefix + ".index")):
        raise UserError(
            f"{flag} {path} does not exist; give a run directory, a prefix such as runs/digits/{NAME}-1000, "
            "or a V1 file such as vgg_16.ckpt"
        )
    wrong = damage(prefix)
    if wrong:
        raise UserError(f"{flag} {path} cannot be read ({wrong})")
    return prefix


def shapes_of(prefix: str) -> dict[str, list[int]]:
    """Name to shape of all that a checkpoint holds, V1 or V2.

    Raises UserError where it cannot be read.
    """
    try:
        return dict(tf.train.NewCheckpointReader(prefix).get_variable_to_shape_map())
    except (
        Exception
    ) as error:  # DataLossError, ValueError, NotFoundError: the reader's binding translates some, not all
        raise UserError(f"{prefix} cannot be read as a checkpoint ({str(error).splitlines()[0][:200]})") from None


def step_of(prefix: str) -> int | None:
    """The step a checkpoint was saved at: its global_step, else the number its name ends with, else None."""
    reader = tf.train.NewCheckpointReader(prefix)
    if reader.get_variable_to_shape_map().get("global_step") == []:
        return int(reader.get_tensor("global_step"))
    match = re.search(r"-(\d+)$", prefix)
    return int(match[1]) if match else None


def in_directory(directory: Path) -> list[tuple[int, str]]:
    """(step, name) of every checkpoint of which any file is left, oldest first."""
    if not directory.is_dir():
        return []
    matches = (PREFIX.match(path.name) for path in directory.iterdir())
    return sorted({(int(match[2]), match[1]) for match in matches if match})


def damage(prefix: str) -> str | None:
    """Reads every tensor, which checks every CRC. Returns what is wrong, or None."""
    if os.path.isfile(prefix):
        with open(prefix, "rb") as file:
            start = file.read(4)
        if start in (b"\x89HDF", b"PK\x03\x04"):
            return "it is a file of Keras's or NumPy's; python -m nets.weights import makes a checkpoint of it"
    try:
        reader = tf.train.NewCheckpointReader(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except Exception as error:  # DataLossError, ValueError, IndexError: the reader's binding translates some, not all
        return str(error).splitlines()[0][:200]
    return None


class CheckpointDirectory:
    """Saves into a directory and keeps the newest few."""

    def __init__(self, directory: str, keep: int, saver: tf.train.Saver):
        self.directory, self.keep, self.saver = Path(directory).absolute(), keep, saver

    def save(self, session: tf.Session, step: int) -> None:
        """Writes model.ckpt-STEP durably, then names it in `checkpoint`, then removes what is too old.

        Raises TrainingError where that fails, as on a full disk: what was saved before is still there.
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
            # It makes names relative to an absolute directory, and does so within the list it is given.
            tf.train.update_checkpoint_state(str(self.directory), kept[-1], list(kept))
            fsync(self.directory / "checkpoint")
            fsync(self.directory)
        except (OSError, tf.errors.OpError) as error:
            if not named:
                for path in self.directory.glob(f"{prefix.name}.*"):  # half written, it takes the room that is short
                    path.unlink(missing_ok=True)
            lines = str(getattr(error, "message", None) or error.strerror).splitlines()
            reason = next(line for line in lines if line.strip() and not line.startswith(("Graph", "Detected")))
            raise TrainingError(
                f"step {step} cannot be saved in {self.directory} ({reason}); what was saved before is still there. "
                "Once that is mended, the same command goes on from it"
            ) from error
        for path in self.directory.iterdir():
            match = PREFIX.match(path.name)
            if (match and int(match[2]) < step and match[1] not in kept) or _ORPHAN.match(path.name):
                path.unlink()


def check_restorable(prefix: str, variables: Mapping[str, tf.Variable]) -> None:
    """Raises UserError that names the variables, given by their names in the checkpoint, which it lacks, holds in
    another shape or type, or with values that are not finite: a relu may make of those what looks like a result."""
    stored, reader = shapes_of(prefix), tf.train.NewCheckpointReader(prefix)
    types, problems = reader.get_variable_to_dtype_map(), []
    for name, variable in variables.items():
        shape = variable.shape.as_list()
        if name not in stored:
            problems.append(f"{name} is missing")
        elif stored[name] != shape:
            problems.append(f"{name} is {stored[name]}, the net needs {shape}")
        elif types[name] != variable.dtype:
            problems.append(f"{name} is {types[name].name}, the net needs {variable.dtype.name}")
        elif not np.isfinite(reader.get_tensor(name)).all():
            problems.append(f"{name} is not finite")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(f"{prefix} does not fit the net: {'; '.join(problems[:3])}{more}")
