"""Run directories: which one a path belongs to, how far a run is, and whether it is the one that is asked for."""

import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import config as configuration
from checkpoints import in_directory, newest_valid, step_of
from engine.journal import Journal
from errors import UserError
from pipeline.dataset import DATASET_JSON, has_dataset, load_dataset
from pipeline.prepare import checked_data, make_data

CONFIG_JSON = "config.json"


class Start(NamedTuple):
    """Where a run goes on, or begins."""

    config: configuration.Config  # durations in steps, and with the threads that the run was started with
    newest: str | None  # checkpoint to go on from; None for a run that begins
    step: int  # of it, or 0
    journal: Journal
    missed: bool  # a signal came before the validation after this step was done
    dataset: dict | None  # content of the data's dataset.json; None where the data are gone

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to do."""
        ended = self.step >= self.config.total_steps or self.journal.is_past_its_best(self.config.patience)
        return ended and not self.missed and os.path.dirname(self.newest) == self.config.run_dir


def run_of(path: str) -> str | None:
    """The run directory that a --ckpt PATH belongs to: itself, or one or two levels up (RUN/best/PREFIX)."""
    path = os.path.abspath(path)
    for directory in (path, os.path.dirname(path), os.path.dirname(os.path.dirname(path))):
        if all(os.path.isfile(os.path.join(directory, name)) for name in (CONFIG_JSON, DATASET_JSON)):
            return directory
    return None


def is_due(config: configuration.Config, step: int) -> bool:
    """Whether a step is followed by a validation."""
    return step == config.total_steps or step % config.validate_every_steps == 0


def prepared_data(config: configuration.Config) -> dict:
    """The content of dataset.json; the data are made where they are missing."""
    if not has_dataset(config.data):
        source = f" from {config.source}" if config.source else ""
        print(f"making {config.data}: {config.dataset}{source}", flush=True)
        make_data(config.dataset, config.data, config.source)
    return checked_data(config.dataset, config.data, config.source, config.run_dir)


def in_steps(config: configuration.Config, examples: int) -> configuration.Config:
    """The configuration with all durations in steps, for so many training pictures.

    Raises UserError where warm-up is as long as the training.
    """
    if config.overfit_batches or config.train_examples:
        examples = min(examples, config.train_examples or config.overfit_batches * config.batch_size)

    def steps(epochs: float, whole: Callable = round) -> int:
        return max(1, whole(epochs * examples / config.batch_size)) if epochs else 0

    values = {}
    for name in configuration.DURATIONS:
        epochs = getattr(config, f"{name}_epochs")
        if name == "decay_at" and epochs:
            values |= {"decay_at_steps": tuple(map(steps, epochs)), "decay_at_epochs": ()}
        elif name != "decay_at" and epochs is not None:
            # Rounded up, so that the last of several whole periods is the last step, and not the one before it.
            values |= {f"{name}_steps": steps(epochs, math.ceil if "every" in name else round), f"{name}_epochs": None}
    config = dataclasses.replace(config, **values)
    longest = max(config.total_steps, config.warmup_steps, config.decay_steps or 0, *config.decay_at_steps)
    if longest > configuration.MOST_STEPS:
        raise UserError(f"a duration comes to {longest:,} steps; at most {configuration.MOST_STEPS:,} can be trained")
    configuration.check_warmup(config)
    if len(set(config.decay_at_steps)) < len(config.decay_at_steps):
        raise UserError(f"--decay-at-epochs falls on the steps {config.decay_at_steps}; they must differ")
    return config


def start_of(config: configuration.Config) -> Start:
    """Looks at the run directory of a resolved configuration. Changes nothing in it.

    Raises UserError where it holds something else than this run, or what is left of the run would be lost.
    """
    run = config.run_dir
    best = os.path.join(run, "best")
    newest = newest_valid(run, best)  # the best one, too, is whole, and may have been saved last
    gone = has_dataset(run) and not has_dataset(config.data)  # of a finished run they may be
    described = load_dataset(run) if gone else prepared_data(config)
    config = in_steps(config, described["splits"].get("train", {}).get("examples", 0))
    if any(not name.startswith(".") for name in os.listdir(run)):  # a killed save may leave a hidden file
        if not os.path.exists(os.path.join(run, CONFIG_JSON)):
            raise UserError(f"{run} is not empty and holds no run (no {CONFIG_JSON}); choose another --run-dir")
        config = configuration.resumed(configuration.load(os.path.join(run, CONFIG_JSON)), config)
    if newest and not os.path.exists(os.path.join(run, DATASET_JSON)):
        raise UserError(f"{run}/{DATASET_JSON} is missing; put that of the data there that the run was trained on")
    step = step_of(newest) if newest else 0
    journal = Journal(os.path.join(run, "metrics.jsonl"), step, config.best_metric)
    for _, name in in_directory(Path(best)):
        if not journal.has_validation(int(name.rpartition("-")[2])):
            raise UserError(
                f"{run}/metrics.jsonl lacks the validation that {best}/{name} was chosen by, so that a worse one might "
                f"take its place; restore the file, or move {best} away"
            )
    missed = newest is not None and is_due(config, step) and not journal.has_validation(step)
    return Start(config, newest, step, journal, missed, None if gone else described)
