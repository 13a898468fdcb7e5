"""The data of a run: made where they are missing, and checked to be those that are meant."""

import os
import subprocess
import sys
from pathlib import Path

from errors import UserError
from pipeline.dataset import DATASET_JSON, load_dataset


def make_data(name: str, directory: str, source: str | None) -> None:
    """Converts a source in a process of its own, whose helpers then need not load TensorFlow. Exits where that fails:
    the reason is told."""
    command = [sys.executable, "-m", "pipeline.convert", name, "--out", directory]
    if source:
        command += ["--source", os.path.abspath(source)]
    home = str(Path(__file__).resolve().parent.parent)
    paths = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    status = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, check=False).returncode
    if status:
        sys.exit(status if status > 0 else 128 - status)


def checked_data(name: str, directory: str, source: str | None, run: str) -> dict:
    """The content of dataset.json.

    Args:
        name: of the source that is asked for.
        directory: of the shards.
        source: raw files that are asked for; None for any.
        run: directory of the run that trains on them.

    Raises:
        UserError: where the shards are for evaluation alone, of another source than asked for, or not those that the
            run was started with.
    """
    dataset = load_dataset(directory)
    if not dataset["splits"].get("train", {}).get("examples"):
        raise UserError(
            f"there are no training pictures in {directory}; it can only be evaluated: "
            f"python eval.py --ckpt PATH --data {directory}"
        )
    if dataset.get("name", name) != name:
        raise UserError(
            f"{directory} holds {dataset['name']}, not {name}; give --dataset {dataset['name']}, or name another "
            "directory with --data"
        )
    source = source and os.path.realpath(source)
    if source and dataset.get("source", source) != source:  # others' shards do not say
        made_from = dataset["source"] or "what needs no --source"
        raise UserError(f"{directory} was made from {made_from}, not from {source}; name another directory with --data")
    if os.path.exists(os.path.join(run, DATASET_JSON)) and load_dataset(run) != dataset:
        raise UserError(
            f"{directory} is not the data that {run} was started with; "
            "name that with --data, or start a new run with another --run-dir"
        )
    return dataset
