"""Lines on the terminal: how often they come, what they say, and the time that is left."""

import pytest

from config import Config
from engine import progress as module
from engine.progress import SAVES, VALIDATIONS, Progress


class Clock:
    """Replaces time: it moves only where it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", clock)
    monkeypatch.setattr(module.time, "perf_counter", clock)
    return clock


def trained(progress, clock, steps, seconds=1.0):
    for step in steps:
        clock.now += seconds
        progress.add({"loss": 1.0 / step, "top1": 0.5, "learning_rate": 0.1}, seconds)


def part(progress, clock, name, seconds):
    with progress.timed(name):
        clock.now += seconds


OPTIONS = {"total_steps": 1000, "batch_size": 10, "validate_every_steps": 300, "snapshot_every_steps": 100}


def test_the_time_left_includes_validations_and_saves(clock):
    progress = Progress(Config.of(**OPTIONS), 0, validation_examples=600)
    trained(progress, clock, [1], seconds=9.0)  # the first takes longer
    trained(progress, clock, range(2, 101))
    # 900 steps; validations after 300, 600, 900 and 1000, each of 60 batches at a third of a step.
    assert progress.seconds_left(100) == pytest.approx(900 + 4 * 20)
    part(progress, clock, SAVES, 2.0)
    assert progress.seconds_left(100) == pytest.approx(900 + 4 * 20 + 10 * 2)  # that of step 100 included
    part(progress, clock, VALIDATIONS, 50.0)
    assert progress.seconds_left(301) == pytest.approx(699 + 3 * 50 + 7 * 2)
    assert progress.seconds_left(1000) == pytest.approx(50 + 2)


def test_lines_come_by_time_or_as_asked(clock):
    by_time = Progress(Config.of(**OPTIONS), 0, 600)
    asked = Progress(Config.of(**OPTIONS, display_every_steps=3), 0, 600)
    due = {by_time: [], asked: []}
    for step in range(1, 13):
        clock.now += 2.0
        for progress, found in due.items():
            progress.add({"loss": 1.0, "top1": 0.5, "learning_rate": 0.1}, 2.0)
            if progress.is_due(step):
                found.append(step)
                progress.show(step)
    assert due == {by_time: [3, 6, 9, 12], asked: [3, 6, 9, 12]}
    trained(by_time, clock, range(13, 17), seconds=1.0)
    part(by_time, clock, VALIDATIONS, 60.0)
    assert not by_time.is_due(16)  # its own line has just been printed


def test_a_line_is_of_the_steps_since_the_last_one(clock, capsys):
    progress = Progress(Config.of(**OPTIONS), 0, 600)
    trained(progress, clock, [1, 2], seconds=0.5)
    progress.show(2)
    trained(progress, clock, [4], seconds=0.5)
    progress.show(3)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("step 2/1000: loss 0.7500, top-1 50.00%, learning rate 0.1, 20 images/s, 08:")
    assert second.startswith("step 3/1000: loss 0.2500")
    means = progress.unrecorded.take()
    assert (means.loss, means.images_per_second) == (pytest.approx(1.75 / 3), 20)
