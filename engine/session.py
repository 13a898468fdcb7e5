"""The session: threads, determinism, and signals that end a training."""

import os

from errors import first_signal, handle_signals, restore_signals
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
    """Within a block, notes SIGTERM, SIGINT and SIGHUP, so that the loop can finish its step and save. A second one
    stops at once, but for SIGHUP. Signals that were ignored before (nohup), or in a thread other than the main one, are
    not handled."""

    def __init__(self) -> None:
        self.exit_code: int | None = None  # 143, 130 or 129 after a signal
        self.before: dict[int, object] = {}

    def __enter__(self) -> "StopSignal":
        self.before = handle_signals(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        restore_signals(self.before)

    def _note(self, number: int, frame: object) -> None:
        self.exit_code = 128 + number
        first_signal(self.before)
        os.write(2, b"\nstopping after this step; a second signal stops at once\n")  # print is not reentrant
