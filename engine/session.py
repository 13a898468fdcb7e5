"""The session: threads, determinism, and signals that ask it to end."""

import os
import signal

from tfcompat import tf


def make_deterministic(seed: int) -> None:
    """For the current graph: the same seed gives the same bits, for the same number of threads. Costs 0 to 4 %."""
    tf.set_random_seed(seed)
    tf.compat.v2.config.experimental.enable_op_determinism()


def session_config(compute_threads: int) -> tf.ConfigProto:
    """Both thread pools fixed: sums are split by thread, so another number of threads gives other last bits."""
    return tf.ConfigProto(
        intra_op_parallelism_threads=compute_threads,
        inter_op_parallelism_threads=compute_threads,
        allow_soft_placement=True,
    )


class StopSignal:
    """Notes SIGTERM and SIGINT, so that the loop can finish its step and save. A second one stops at once."""

    def __init__(self) -> None:
        self.exit_code: int | None = None  # 143 or 130 once a signal came
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        self.exit_code = 128 + number
        os.write(2, b"\nstopping after this step; a second signal stops at once\n")  # print is not reentrant
        signal.signal(number, signal.SIG_DFL)
