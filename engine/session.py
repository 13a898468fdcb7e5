"""The session: threads, determinism, and signals that end a training."""

import contextlib
import os
import signal
import threading

from tfcompat import tf


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


class StopSignal:
    """Within a block, notes SIGTERM and SIGINT, so that the loop can finish its step and save. A second one stops at
    once. In a thread other than the main one signals are not handled."""

    def __init__(self) -> None:
        self.exit_code: int | None = None  # 143 or 130 after a signal
        self.before: dict[int, object] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.exit_code = 128 + number
        for each in self.before:
            signal.signal(each, signal.SIG_DFL)
        with contextlib.suppress(OSError):  # the terminal was closed
            os.write(2, b"\nstopping after this step; a second signal stops at once\n")  # print is not reentrant
