"""The session: threads, determinism, one training in a directory, and signals that ask it to end."""

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from errors import UserError
from tfcompat import tf


def make_deterministic(seed: int) -> None:
    """For the current graph: the same seed gives the same bits, for the same number of threads. Costs 0 to 4 %."""
    tf.set_random_seed(seed)
    tf.compat.v2.config.experimental.enable_op_determinism()


def session_config(compute_threads: int, precision: str = "fp32") -> tf.ConfigProto:
    """Both thread pools fixed: sums are split by thread, so another number of threads gives other last bits.

    precision 'bf16' lets TensorFlow rewrite convolutions and matrix products to bfloat16; variables stay float32.
    """
    config = tf.ConfigProto(
        intra_op_parallelism_threads=compute_threads,
        inter_op_parallelism_threads=compute_threads,
        allow_soft_placement=True,
    )
    if precision == "bf16":
        rewrites = config.graph_options.rewrite_options
        rewrites.auto_mixed_precision_onednn_bfloat16 = rewrites.ON
    return config


@contextlib.contextmanager
def exclusive(directory: str) -> Iterator[None]:
    """Makes the run directory and holds it: two trainings in one would delete each other's checkpoints. What is made
    for it and still empty in the end goes again.

    Raises UserError where it cannot be made, or another process holds it.
    """
    path = Path(directory).absolute()
    made = [place for place in (path, *path.parents) if not place.exists()]
    try:
        os.makedirs(directory, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY)
    except (OSError, ValueError) as error:
        raise UserError(f"--run-dir '{directory}' cannot be made ({error})") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(
            f"another training is writing {directory}; wait for it, stop it, or choose another --run-dir"
        ) from None
    try:
        yield
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):  # not empty, or removed already
            for place in made:
                place.rmdir()


class StopSignal:
    """Notes SIGTERM and SIGINT, so that the loop can finish its step and save. A second one stops at once."""

    def __init__(self) -> None:
        self.exit_code: int | None = None  # 143 or 130 once a signal came
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        self.exit_code = 128 + number
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)
        with contextlib.suppress(OSError):  # a terminal that is gone
            os.write(2, b"\nstopping after this step; a second signal stops at once\n")  # print is not reentrant
