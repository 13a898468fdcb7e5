"""The data of a run: made where they are missing, and checked against the options."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

from config import InputOptions
from errors import UserError
from pipeline.dataset import Dataset, Selection, has_dataset
from pipeline.tfrecord import DATASET_JSON


def prepare_data(options: InputOptions, run: str) -> Dataset:
    """Loads the data set of a run; where there is none, makes it.

    Raises UserError where the shards have no training pictures, are of another source than the options name, or are not
    the data that the run directory `run` was started with.
    """
    name, directory = options.dataset, options.data
    if not has_dataset(directory):
        source = f" from {options.source}" if options.source else ""
        print(f"making {directory}: {name}{source}", flush=True)
        make_data(name, directory, options.source)
    before = Dataset.load(run) if os.path.exists(os.path.join(run, DATASET_JSON)) else None
    dataset = Dataset.load(directory, before)
    if not dataset.size("train"):
        command = f"python eval.py --ckpt PATH --data {directory}"
        raise UserError(f"there are no training pictures in {directory}; it can only be evaluated: {command}")
    another = "name another directory with --data"
    made_as = dataset.description.get("name", name)
    if made_as != name:
        raise UserError(f"{directory} holds {made_as}, not {name}; give --dataset {made_as}, or {another}")
    source = options.source and os.path.realpath(options.source)
    made_from = dataset.description.get("source", source)  # TF-Slim's shards do not name their source
    if source and made_from != source:
        made_from = made_from or "data that need no --source"
        raise UserError(f"{directory} was made from {made_from}, not from {source}; {another}")
    if before and before.description != dataset.description:
        advice = "name that with --data, or start a new run with another --run-dir"
        raise UserError(f"{directory} is not the data that {run} was started with; {advice}")
    return dataset


def make_data(name: str, directory: str, source: str | None) -> None:
    """Converts a source in a process of its own, whose helpers then need not load TensorFlow.

    Exits with the exit code of that process where it fails, after it has printed the reason.
    """
    command = [sys.executable, "-m", "pipeline.convert", name, "--out", directory]
    if source:
        command += ["--source", os.path.abspath(source)]
    home = str(Path(__file__).resolve().parent.parent)
    paths = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    status = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, check=False).returncode
    if status:
        sys.exit(status if status > 0 else 128 - status)


def training_selection(dataset: Dataset, options: InputOptions, seed: int) -> Selection:
    """The records to train on."""
    examples = options.overfit_batches * options.batch_size if options.overfit_batches else options.train_examples
    return Selection(dataset, "train", options.on_error, examples, seed)


def validation_selection(dataset: Dataset, options: InputOptions, seed: int) -> Selection:
    """The records to validate on: the validation split, or with overfit_batches the training pictures."""
    if options.overfit_batches:
        return dataclasses.replace(training_selection(dataset, options, seed), intact=True)
    return Selection(dataset, "validation", options.on_error, intact=True)
