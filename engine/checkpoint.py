"""Checkpoints that survive a crash.

TensorFlow's own Saver writes the `checkpoint` file and deletes old checkpoints before anything has reached the disk,
forgets older checkpoints after a restart, and restarts from step 0 where the `checkpoint` file is lost. Here a save is
data, fsync, `checkpoint` file, fsync, then pruning by what lies in the directory.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from checkpoints import NAME, PREFIX, in_directory, shapes_of
from errors import TrainingError, UserError
from files import fsync
from tfcompat import tf

_ORPHAN = re.compile(rf"{re.escape(NAME)}-\d+\..*tempstate\d+$")  # what a killed save leaves


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
