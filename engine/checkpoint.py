"""Checkpoints that survive a crash.

TensorFlow's own Saver writes the `checkpoint` file and deletes old checkpoints before anything has reached the disk,
forgets older checkpoints after a restart, and restarts from step 0 where the `checkpoint` file is lost. Here a save is
data, fsync, `checkpoint` file, fsync, then pruning by what lies in the directory.
"""

import os
import re
from collections.abc import Iterable
from glob import escape
from pathlib import Path

from checkpoints import NAME, PREFIX, in_directory, shapes_of
from errors import UserError
from tfcompat import tf

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
        kept = [*(name for s, name in in_directory(self.directory) if s < step), Path(prefix).name][-self.keep :]
        # It turns names relative to an absolute directory into relative ones, and does so within the list it is given.
        tf.train.update_checkpoint_state(str(self.directory), kept[-1], list(kept))
        _fsync(self.directory / "checkpoint")
        _fsync(self.directory)
        for path in self.directory.iterdir():
            match = PREFIX.match(path.name)
            if (match and int(match[2]) < step and match[1] not in kept) or _ORPHAN.match(path.name):
                path.unlink()


def check_restorable(prefix: str, variables: Iterable[tf.Variable]) -> None:
    """Raises UserError that names the variables which the checkpoint lacks or holds in another shape."""
    stored = shapes_of(prefix)
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


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
