"""Checks for values that are not finite, before they are saved or reported: a NaN in a checkpoint ends a run."""

from collections.abc import Mapping, Sequence

import numpy as np

from errors import TrainingError


def check_step(values: Mapping, trained: Sequence[str], step: int) -> None:
    """Raises TrainingError where the loss or a gradient of a step is not finite.

    Args:
        values: of the step: loss, learning_rate, and gradient_norms, one for each of `trained`.
        trained: names of the trained variables.
        step: number of the step.
    """
    wrong = [] if np.isfinite(values["loss"]) else [f"the loss is {values['loss']}"]
    finite = np.isfinite(values["gradient_norms"])
    if not finite.all():
        wrong.append(f"the gradient of {trained[int(np.argmin(finite))]} is not finite")
    if wrong:
        raise _diverged(" and ".join(wrong), step, values["learning_rate"])


def check_variables(finite: np.ndarray, names: Sequence[str], step: int, rate: float) -> None:
    """Raises TrainingError where a variable is not finite; `finite` has a bool for each of `names`."""
    if not finite.all():
        raise _diverged(f"{names[int(np.argmin(finite))]} is not finite", step, rate)


def _diverged(what: str, step: int, rate: float) -> TrainingError:
    return TrainingError(
        f"{what} at step {step}, learning rate {rate:.3g}; earlier checkpoints stay. Try a lower --learning-rate, "
        "more --warmup-steps, or gradients clipped by --clip-norm 1, with another --run-dir"
    )
