"""Checkpoints that survive a crash, and finding them again.

TensorFlow's own Saver writes the `checkpoint` file and deletes old checkpoints before anything has reached the disk,
forgets older checkpoints after a restart, and restarts from step 0 where the `checkpoint` file is lost. Here a save is
data, fsync, `checkpoint` file, fsync, then pruning by what lies in the directory; and the newest checkpoint is the
newest that can be read to its last byte, whatever the `checkpoint` file says.
"""

import os
import re
import sys
from collections.abc import Iterable
from glob import escape
from pathlib import Path

from errors import UserError
from tfcompat import tf

NAME = "model.ckpt"
_PREFIX = re.compile(rf"({re.escape(NAME)}-(\d+))\.(index|data-\d{{5}}-of-\d{{5}}|meta)$")
_ORPHAN = re.compile(rf"{re.escape(NAME)}-\d+\..*tempstate\d+$")  # what a killed save leaves


class CheckpointDirectory:
    """Saves into a directory and keeps the newest few."""

    def __init__(self, directory: str, keep: int, saver: tf.train.Saver):
        self.directory, self.keep, self.saver = Path(directory).absolute(), keep, saver

    def save(self, session: tf.Session, step: int) -> None:
        """Writes model.ckpt-STEP durably, then names it in `checkpoint`, then removes what is too old."""
        self.directory.mkdir(parents=True, exist_ok=True)
        prefix = self.saver.save(session, str(self.directory / NAME), step, write_meta_graph=False, write_state=False)
        for path in self.directory.glob(escape(Path(prefix).name) + ".*"):
            _fsync(path)
        _fsync(self.directory)
        kept = [*(name for s, name in _checkpoints(self.directory) if s < step), Path(prefix).name][-self.keep :]
        # It turns names relative to an absolute directory into relative ones, and does so within the list it is given.
        tf.train.update_checkpoint_state(str(self.directory), kept[-1], list(kept))
        _fsync(self.directory / "checkpoint")
        _fsync(self.directory)
        for path in self.directory.iterdir():
            match = _PREFIX.match(path.name)
            if (match and int(match[2]) < step and match[1] not in kept) or _ORPHAN.match(path.name):
                path.unlink()


def newest_valid(directory: str) -> str | None:
    """The prefix of the newest checkpoint that can be read; None where the directory holds no checkpoint at all.

    Damaged ones are named on the way. Raises UserError where all are damaged: starting over would overwrite the run.
    """
    found = _checkpoints(Path(directory))
    for _, name in reversed(found):
        prefix = os.path.join(directory, name)
        damage = _damage(prefix)
        if damage is None:
            return prefix
        print(f"{prefix} cannot be read ({damage}); trying the one before", file=sys.stderr)
    if found:
        raise UserError(
            f"none of the {len(found)} checkpoints in {directory} can be read; "
            "restore them from a backup, or choose another --run-dir to start a new run"
        )
    return None


def locate(path: str) -> str:
    """What --ckpt PATH means: a run directory's newest valid checkpoint, a prefix, or a single V1 file.

    Raises UserError where PATH is none of these, or cannot be read.
    """
    if os.path.isdir(path):
        prefix = newest_valid(path)
        if prefix is None:
            raise UserError(f"--ckpt {path}: the directory holds no checkpoint ({NAME}-STEP.index)")
        return prefix
    prefix = re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path)
    if not (os.path.isfile(prefix) or os.path.isfile(prefix + ".index")):
        raise UserError(
            f"--ckpt {path} does not exist; give a run directory, a prefix such as runs/digits/{NAME}-1000, "
            "or a V1 file such as vgg_16.ckpt"
        )
    damage = _damage(prefix)
    if damage:
        raise UserError(f"--ckpt {path} cannot be read ({damage})")
    return prefix


def check_restorable(prefix: str, variables: Iterable[tf.Variable]) -> None:
    """Raises UserError that names the variables which the checkpoint lacks or holds in another shape."""
    stored = tf.train.NewCheckpointReader(prefix).get_variable_to_shape_map()
    problems = []
    for variable in variables:
        name, shape = variable.op.name, variable.shape.as_list()
        if name not in stored:
            problems.append(f"{name} is missing")
        elif stored[name] != shape:
            problems.append(f"{name} is {stored[name]}, the net needs {shape}")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(f"{prefix} does not fit the net: {'; '.join(problems[:3])}{more}")


def step_of(prefix: str) -> int | None:
    """The step a checkpoint was saved at: its global_step, else the number its name ends with, else None."""
    reader = tf.train.NewCheckpointReader(prefix)
    if reader.has_tensor("global_step"):
        return int(reader.get_tensor("global_step"))
    match = re.search(r"-(\d+)$", prefix)
    return int(match[1]) if match else None


def _checkpoints(directory: Path) -> list[tuple[int, str]]:
    """(step, name) of every checkpoint of which any file is left, oldest first."""
    if not directory.is_dir():
        return []
    matches = (_PREFIX.match(path.name) for path in directory.iterdir())
    return sorted({(int(match[2]), match[1]) for match in matches if match})


def _damage(prefix: str) -> str | None:
    """Reads every tensor, which checks every CRC. Returns what is wrong, or None."""
    try:
        reader = tf.train.NewCheckpointReader(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except Exception as error:  # DataLossError, ValueError, IndexError: the reader's binding translates some, not all
        return str(error).splitlines()[0][:200]
    return None


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
