"""What a training shows on the terminal: a line every few seconds, or a bar, with the time that is left."""

import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

from tqdm import tqdm

from config import Config

LINE_EVERY_SECONDS = 5
RECENT = 50  # durations of a part that count for the time left
STEPS, VALIDATIONS, SAVES = "steps", "validations", "saves"
FORWARD_SHARE = 1 / 3  # of a training step: the forward pass, until a validation has been timed


class Window:
    """Means over some steps of a training."""

    def __init__(self, batch_size: int):
        self.batch_size, self.values, self.seconds = batch_size, [], 0.0

    def add(self, values: Mapping, seconds: float) -> None:
        """Adds the values of a step, and its duration."""
        self.values.append(values)
        self.seconds += seconds

    def take(self) -> "Means":
        """The means over the steps since the last call."""
        values, seconds = self.values, self.seconds
        self.values, self.seconds = [], 0.0
        loss, top1 = (sum(float(each[key]) for each in values) / len(values) for key in ("loss", "top1"))
        return Means(loss, top1, len(values) * self.batch_size / seconds, values[-1])


class Means(NamedTuple):
    """Loss, accuracy and speed over some steps."""

    loss: float
    top1: float
    images_per_second: float
    last: Mapping  # values of the last step


class Progress:
    """Times the parts of a training, and shows how far it is."""

    def __init__(self, config: Config, step: int, validation_examples: int):
        """For a run that continues from `step`; config is resolved, validation_examples are in the split."""
        self.reporting, self.total_steps = config.reporting, config.schedule.total_steps
        self.batches = validation_examples / config.input.batch_size  # of a validation
        self.unshown, self.unrecorded = Window(config.input.batch_size), Window(config.input.batch_size)
        self.durations = {part: deque(maxlen=RECENT) for part in (STEPS, VALIDATIONS, SAVES)}
        self.shown = time.monotonic()
        self.bar = tqdm(
            total=self.total_steps,
            initial=step,
            disable=not sys.stderr.isatty(),
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} steps [{elapsed}{postfix}]",  # without tqdm's own time left
        )

    def add(self, values: Mapping, seconds: float) -> None:
        """Adds the values of a step, and its duration."""
        self.unshown.add(values, seconds)
        self.unrecorded.add(values, seconds)
        self.durations[STEPS].append(seconds)
        self.bar.update()

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Times a block: one of the VALIDATIONS or SAVES."""
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        self.durations[part].append(seconds)
        self.shown += seconds

    def is_due(self, step: int) -> bool:
        """Whether a line follows a step: as often as --display-every-steps asks, else by time."""
        if self.reporting.display_every_steps:
            return step % self.reporting.display_every_steps == 0
        return time.monotonic() - self.shown >= LINE_EVERY_SECONDS

    def show(self, step: int) -> None:
        """Prints a line on the steps since the last one, or changes the text of the bar."""
        means, self.shown = self.unshown.take(), time.monotonic()
        speed, left = f"{means.images_per_second:,.0f} images/s", tqdm.format_interval(self.seconds_left(step))
        if not self.bar.disable:
            self.bar.set_postfix_str(f"{left} left, loss {means.loss:.4f}, top-1 {means.top1:.1%}, {speed}")
            return
        print(
            f"step {step}/{self.total_steps}: loss {means.loss:.4f}, top-1 {means.top1:.2%}, "
            f"learning rate {means.last['learning_rate']:.3g}, {speed}, {left} left",
            flush=True,
        )

    def seconds_left(self, step: int) -> float:
        """The time from a step to the end of the training: the steps after it, and the validations and saves from it
        on. The first save is expected to take no time."""
        one_step = median(self.durations[STEPS])  # the first takes seconds longer
        one_validation = median(self.durations[VALIDATIONS] or [self.batches * one_step * FORWARD_SHARE])
        one_save = median(self.durations[SAVES] or [0.0])
        validations = _count(step, self.total_steps, self.reporting.validate_every_steps)
        saves = _count(step, self.total_steps, self.reporting.snapshot_every_steps)
        return (self.total_steps - step) * one_step + validations * one_validation + saves * one_save

    def close(self) -> None:
        """Ends the bar."""
        self.bar.close()


def _count(first: int, last: int, every: int) -> int:
    """How many of the steps from `first` to `last` are multiples of `every`, or the last."""
    return last // every - (first - 1) // every + (last % every > 0)
