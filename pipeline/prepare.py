"""The data of a run: made where they are missing, and checked against the options."""

import contextlib
import dataclasses
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

import own_code
from config import InputOptions
from errors import UserError
from files import is_remote, moved_places
from pipeline import listing, tfds_directory
from pipeline.dataset import Dataset, Selection, has_dataset, why_none
from pipeline.tfrecord import DATASET_JSON


def prepare_data(options: InputOptions, run: str) -> Dataset:
    """Loads the data set of a run; where there is none, makes it.

    Raises UserError where the shards have no training pictures, are of another source than the options name, or are not
    the data that the run directory `run` was started with.
    """
    name, directory = options.dataset, options.data
    if not has_dataset(directory):
        if is_remote(directory) or tfds_directory.parents_mistake(directory):
            raise UserError(why_none(directory))
        source = f" from {options.source}" if options.source else ""
        print(f"making {directory}: {name}{source}", flush=True)
        make_data(name, directory, options.source)
    before = Dataset.load(run) if os.path.exists(os.path.join(run, DATASET_JSON)) else None
    dataset = Dataset.load(directory, before)
    if not before and (left_out := dataset.description.get("left_out")):
        print(f"note: {directory} has other splits, too, which are left out: {', '.join(left_out)}")
    if not dataset.size("train"):
        command = f"python eval.py --ckpt PATH --data {directory}"
        raise UserError(f"there are no training pictures in {directory}; it can only be evaluated: {command}")
    check_source(dataset, options, resumes=before is not None)
    if before and (other := difference(before, dataset)):
        advice = "name that with --data, or start a new run with another --run-dir"
        raise UserError(f"{directory} is not the data that {run} was started with: {other}; {advice}")
    return dataset


def check_source(dataset: Dataset, options: InputOptions, resumes: bool) -> None:
    """Compares shards with the source that they were made from, where that is still there.

    Raises UserError where the options name another source, or one that has changed. A run that resumes goes on with
    its shards, as does one whose options name no source: then a change is printed. The files count, not their place.
    """
    asked = own_code.attribute(options.dataset)
    made_as = dataset.description.get("name", asked)
    made_from = dataset.description.get("source", options.source)  # TF-Slim's shards do not name their source
    place, another = options.source or made_from, "name another directory with --data"
    if not options.source and made_as != asked:
        print(
            f"note: {dataset.directory} holds {made_as}, not {asked}; the other options are the preset's: pictures of "
            f"{options.image_size} px, preprocessing {options.preprocessing}. Name a preset as the first word, such as "
            f"python train.py folder --data {shlex.quote(options.data)}, or give these options"
        )
    if options.source and made_as != asked:
        raise UserError(
            f"{dataset.directory} holds {made_as}, not {asked}; give --dataset {made_as}, leave --source out "
            f"to train on what is there, or {another}"
        )
    is_same_place = not options.source or made_from == options.source or _is_moved(made_from, options)
    try:
        before = listing.load(dataset.directory)
    except UserError as damaged:
        if options.source and not (resumes and is_same_place):
            raise UserError(
                f"{damaged}; convert the data again, leave --source out to train on what is there, or {another}"
            ) from None
        print(f"note: {damaged}; this run uses the shards as they are")
        return
    if before is None or not os.path.exists(place):
        if not is_same_place:
            made_from = made_from or "data that need no --source"
            raise UserError(
                f"{dataset.directory} was made from {made_from}, not from {os.path.realpath(place)}; "
                f"leave --source out to train on what is there, or {another}"
            )
        return
    try:
        reader = dataset.description.get("reader", made_as)
        now = listing.list_source(options.dataset if own_code.is_own(options.dataset) else reader, Path(place))
    except UserError:
        if options.source:
            raise
        return  # the shards may be all that this user can read
    remake = f"rm -r {shlex.quote(dataset.directory)} && {_command(dataset, place, dataset.directory)}"
    if changes := listing.differences(before, now, reader):
        changed = f"{dataset.directory} was made from {made_from}; {place} has changed since: {changes}"
        if options.source and not (resumes and is_same_place):
            raise UserError(f"{changed}. To train on them: {remake}. To train on what was there: leave --source out")
        elsewhere = _command(dataset, place, f"{dataset.directory}_2")  # a run needs the data that it was started with
        print(f"note: {changed}. This run does not use them; for a new run with another --run-dir: {elsewhere}")
    elif is_same_place and listing.written_anew(before, now):
        print(f"note: {place} has files of the same names and sizes, all written since {dataset.directory} was made")


def _is_moved(made_from: str | None, options: InputOptions) -> bool:
    """Whether the source that the options name is the one that shards were made from, there or moved with them."""
    source = os.path.realpath(options.source)
    return bool(made_from) and source in (made_from, *moved_places(made_from, os.path.realpath(options.data)))


def _command(dataset: Dataset, source: str, out: str) -> str:
    """The command line that makes a data set anew from a source."""
    from pipeline.convert import command  # with the readers of all sources

    options = dataset.description.get("options", {})
    reader = dataset.description.get("reader", dataset.description["name"])
    return shlex.join(command(reader, source, out, options))


def difference(one: Dataset, other: Dataset) -> str | None:
    """How two data sets differ in what they hold, not in its place or division into shards; None for not at all."""
    for name in ("class_names", "channels", "short_side", "sample_range"):
        if getattr(one, name) != getattr(other, name):
            return f"its {name.replace('_', ' ')} differ"
    for split in dict.fromkeys([*one.splits, *other.splits]):
        if one.size(split) != other.size(split):
            return f"its {split} split has {other.size(split):,} pictures, not {one.size(split):,}"
        parts = [dataset.description["splits"].get(split, {}) for dataset in (one, other)]
        keys = set.intersection(*map(set, parts)) - {"shards"}  # data of an earlier version have no sha256
        if any(parts[0][key] != parts[1][key] for key in keys):
            return f"its {split} split has other records"
    for statistic in ("mean", "deviation"):
        values = [getattr(dataset.statistics, statistic) for dataset in (one, other)]
        if not all(value is None for value in values) and not (
            all(value is not None for value in values) and np.allclose(*values, rtol=1e-9)
        ):
            return "the statistics of its pixels differ"
    return None


def find_data(directory: str, run: str) -> str:
    """The directory of a run's data; where it is gone, its place in a project that was moved together with the run."""
    if is_remote(directory) or has_dataset(directory):
        return directory
    trained_on = Dataset.load(run)
    for place in filter(has_dataset, moved_places(directory, run)):
        with contextlib.suppress(UserError):
            found = Dataset.load(place)
            shards = [os.path.join(place, shard.file) for split in found.splits.values() for shard in split.shards]
            if all(map(os.path.exists, shards)) and not difference(trained_on, found):
                return place
    return directory


def make_data(name: str, directory: str, source: str | None) -> None:
    """Converts a source in a process of its own, whose helpers then need not load TensorFlow.

    Exits with the exit code of that process where it fails, after it has printed the reason. A signal to this process
    ends that one, too, which removes its partial output.
    """
    command = [sys.executable, "-m", "pipeline.convert", name, "--out", directory]
    if source:
        command += ["--source", os.path.abspath(source)]
    home = str(Path(__file__).resolve().parent.parent)
    paths = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}) as process:
        try:
            status = process.wait()
        except BaseException:  # subprocess.run would kill it
            process.terminate()
            raise
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
