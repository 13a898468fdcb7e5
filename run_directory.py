"""Run directories: their files, their lock, and the point where a run starts.

    config.json       the resolved options
    dataset.json      classes and statistics of the data, with pixel_stats.npz for small pictures
    model.ckpt-STEP.* checkpoints; best/ has the best one by validation
    metrics.jsonl     a line for each log and each validation
    events.*, val/    TensorBoard; curves.png

`prepare(config)` is the way from what the user asked for to a RunPlan: options are checked, defaults that depend on the
net are filled in, epochs become steps, and a resumed run is compared with its config.json.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import config as configuration
import nets
import own_code
from checkpoints import in_directory, newest_valid, step_of
from config import DURATIONS, MOST_STEPS, Config, check_warmup, flag
from engine.journal import Journal
from errors import UserError
from files import absolute, is_text, locked, moved_places
from nets import Net
from pipeline.dataset import Dataset, has_dataset
from pipeline.prepare import find_data, prepare_data
from pipeline.preprocess import Preprocessor, find_family
from pipeline.statistics import PIXEL_STATS
from pipeline.tfrecord import DATASET_JSON

CONFIG_JSON = "config.json"
FILES = (CONFIG_JSON, DATASET_JSON, PIXEL_STATS, "metrics.jsonl", "curves.png", "checkpoint", "best/checkpoint")
DIRECTORIES = ("best", "val")
RECORD_EVERY_STEPS = 10  # without --display-every-steps
# Options that may differ when a run is resumed: it may be longer and report otherwise. Places of files may differ, too;
# that the data are the same is checked by their dataset.json.
FREE_ON_RESUME = {
    *("total_steps", "display_every_steps", "validate_every_steps", "snapshot_every_steps", "keep_checkpoints"),
    *("source", "data", "on_error", "run_dir", "patience", "norms_by", "allow_code"),
}
OWN_CODE = ("net", "preprocessing")  # options whose file the run directory keeps a copy of


class RunPlan(NamedTuple):
    """A run that is ready to be built."""

    config: Config  # resolved, with durations in steps and the threads that the run was started with
    net: Net
    dataset: Dataset
    newest: str | None  # prefix of the checkpoint to resume from; None for a new run
    step: int  # of that checkpoint, or 0
    journal: Journal
    missed_validation: bool  # a signal ended the run before the validation after this step

    @property
    def directory(self) -> str:
        """The run directory."""
        return self.config.run.run_dir

    @property
    def preprocessor(self) -> Preprocessor:
        """From pictures to the net's inputs."""
        inputs, dataset = self.config.input, self.dataset
        return Preprocessor(inputs.preprocessing, inputs.image_size, dataset.channels, dataset.statistics)

    @property
    def outputs(self) -> int:
        """Number of the net's outputs."""
        return 1 if self.config.network.head == "sigmoid" else len(self.dataset.class_names)

    def save(self) -> None:
        """Writes what makes the run directory self-describing: the options, the data set, the user's own code."""
        configuration.save(self.config, os.path.join(self.directory, CONFIG_JSON))
        self.dataset.copy_description(self.directory)
        own_code.keep([self.config.flat()[key] for key in OWN_CODE], self.directory)

    @property
    def is_finished(self) -> bool:
        """Whether there are no steps left to train."""
        schedule, reporting = self.config.schedule, self.config.reporting
        ended = self.step >= schedule.total_steps or self.journal.should_stop(reporting.patience)
        return ended and not self.missed_validation and os.path.dirname(self.newest) == self.directory

    def is_due(self, step: int) -> bool:
        """Whether a validation follows a step."""
        return step == self.config.schedule.total_steps or step % self.config.reporting.validate_every_steps == 0

    def is_recorded(self, step: int) -> bool:
        """Whether a row of metrics.jsonl follows a step: never by time, so that a resumed run has the same rows."""
        return step % (self.config.reporting.display_every_steps or RECORD_EVERY_STEPS) == 0


def run_of(path: str) -> str | None:
    """The run directory that a path belongs to: itself, or one or two levels up (RUN/best/PREFIX). None for none."""
    path = os.path.abspath(path)
    for directory in (path, os.path.dirname(path), os.path.dirname(os.path.dirname(path))):
        if all(os.path.isfile(os.path.join(directory, name)) for name in (CONFIG_JSON, DATASET_JSON)):
            return directory
    return None


@contextlib.contextmanager
def exclusive(directory: str) -> Iterator[None]:
    """Creates a run directory and locks it: two trainings in one would delete each other's checkpoints.

    On exit, directories that it created are removed where they are empty. Raises UserError where the directory cannot
    be created, or another process has locked it.
    """
    path = Path(directory).absolute()
    made = [place for place in (path, *path.parents) if not place.exists()]

    def remove_made() -> None:
        with contextlib.suppress(OSError):  # not empty, or removed already
            for place in made:
                place.rmdir()

    with contextlib.ExitStack() as stack:
        stack.callback(remove_made)
        try:
            path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(path / ".lock"))
        except BlockingIOError:
            busy = f"another training is writing {directory}"
            raise UserError(f"{busy}; wait for it, stop it, or choose another --run-dir") from None
        except (OSError, ValueError) as error:
            raise UserError(f"--run-dir '{directory}' cannot be made ({error})") from None
        yield


def with_own_code(config: Config) -> Config:
    """The configuration that a user gave, with absolute names of their own code, whose files may then run.

    Raises UserError for a file that is missing, or not the code that the run directory was started with.
    """
    given, run = config.flat(), config.run
    values = {key: own_code.named(given[key], run.run_dir, run.allow_code) for key in OWN_CODE}
    return config.replace(dataset=own_code.named(given["dataset"]), **values)


def resolve(config: Config) -> Config:
    """Checks the options and fills in the defaults that depend on the net and the machine.

    Raises UserError for options that cannot be trained, and where the learning rate would rise.
    """
    configuration.check(config)
    net = nets.find(config.network.net)
    find_family(config.input.preprocessing or net.preprocessing)
    network, schedule, start = config.network, config.schedule, config.network.init_from
    is_file = start and (os.sep in start or os.path.exists(start) or os.path.exists(f"{start}.index"))
    adaptive = config.update.optimizer in ("adam", "adamw", "rmsprop")
    all_layers = start and not (network.train_only or network.freeze)
    adaptive_rate, plain_rate = (1e-4, 1e-3) if all_layers else (1e-3, net.learning_rate or 0.1)
    rate = schedule.learning_rate or (adaptive_rate if adaptive else plain_rate)
    if schedule.end_learning_rate > rate:
        raise UserError(f"--end-learning-rate {schedule.end_learning_rate} is above --learning-rate {rate}")
    automatic, updates = "none" if start else "trained", network.batch_norm_updates
    decay = config.regularization.weight_decay
    return config.replace(
        learning_rate=rate,
        batch_norm_updates=automatic if updates == "auto" else updates,
        data=absolute(config.input.data or os.path.join("data", own_code.attribute(config.input.dataset))),
        init_from=os.path.abspath(start) if is_file else start,
        image_size=config.input.image_size or net.image_size,
        preprocessing=config.input.preprocessing or net.preprocessing,
        weight_decay=net.weight_decay if decay is None else decay,
        compute_threads=config.run.compute_threads or os.cpu_count(),
    )


def in_steps(config: Config, examples: int) -> Config:
    """Converts all durations to steps, for a number of training pictures.

    Raises UserError where warm-up is as long as the training, and for durations that cannot be trained.
    """
    inputs = config.input
    if inputs.overfit_batches or inputs.train_examples:
        examples = min(examples, inputs.train_examples or inputs.overfit_batches * inputs.batch_size)

    def steps(epochs: float, whole: Callable = round) -> int:
        return max(1, whole(epochs * examples / inputs.batch_size)) if epochs else 0

    values, given = {}, config.flat()
    for name in DURATIONS:
        epochs = given[f"{name}_epochs"]
        if name == "decay_at" and epochs:
            values |= {"decay_at_steps": tuple(map(steps, epochs)), "decay_at_epochs": ()}
        elif name != "decay_at" and epochs is not None:
            # Rounded up, so that the last of several whole periods is the last step, and not the one before it.
            length = steps(epochs, math.ceil if "every" in name else round)
            if "every" in name:  # longer than any training: never, but at the end
                length = min(length, MOST_STEPS)
            values |= {f"{name}_steps": length, f"{name}_epochs": None}
    config = config.replace(**values)
    schedule = config.schedule
    longest = max(schedule.total_steps, schedule.warmup_steps, schedule.decay_steps or 0, *schedule.decay_at_steps)
    if longest > MOST_STEPS:
        raise UserError(f"a duration comes to {longest:,} steps; at most {MOST_STEPS:,} can be trained")
    check_warmup(schedule)
    if len(set(schedule.decay_at_steps)) < len(schedule.decay_at_steps):
        raise UserError(f"--decay-at-epochs falls on the steps {schedule.decay_at_steps}; they must differ")
    return config


def check_kinds(run: str) -> None:
    """Raises UserError where a name that a training writes to is taken by a directory, or by a file where a directory
    is needed. Else the training would fail when it writes there, up to hours later."""
    for names, kind, other in ((FILES, "file", os.path.isdir), (DIRECTORIES, "directory", os.path.isfile)):
        for path in (os.path.join(run, name) for name in names):
            if other(path):
                raise UserError(f"{path} must be a {kind}, but is none; remove it, or choose another --run-dir")


def load_config(run: str) -> Config:
    """The options of a run, from its directory; its data are found where the project was moved. Raises UserError."""
    config = configuration.load(os.path.join(run, CONFIG_JSON))
    data = config.input.data
    return config.replace(data=find_data(data, run)) if data else config


def resumed(stored: Config, asked: Config) -> Config:
    """The configuration of a resumed run: the new one, with the number of threads that the run was started with.

    Raises UserError where other options differ from those that the run was started with.
    """
    asked = asked.replace(compute_threads=stored.run.compute_threads)
    start = asked.network.init_from
    started_from = stored.network.init_from  # a file that may have been removed or moved since
    places = (started_from, *moved_places(started_from, asked.run.run_dir)) if started_from else ()
    if start and os.path.abspath(start) in places:
        asked = asked.replace(init_from=started_from)
    before, now = stored.flat(), asked.flat()
    for key in (*OWN_CODE, "dataset"):  # the files of a net and preprocessing are compared by content
        if own_code.is_own(now[key]) and own_code.short(before[key]) == own_code.short(now[key]):
            before[key] = now[key]
    changed = [key for key, value in before.items() if key not in FREE_ON_RESUME and value != now[key]]
    if changed:
        differences = "; ".join(f"{flag(key)} was {before[key]}, now {now[key]}" for key in changed)
        raise UserError(
            f"{asked.run.run_dir} holds a run with other settings: {differences}. "
            "Give the same settings to resume it, or another --run-dir to start a new run"
        )
    lengths, schedule = (before["total_steps"], now["total_steps"]), asked.schedule.schedule
    if lengths[0] != lengths[1] and schedule in ("cosine", "polynomial"):
        print(
            f"--total-steps was {lengths[0]}, now {lengths[1]}: the {schedule} schedule now ends at that step, so "
            "the learning rate jumps where training continues"
        )
    return asked


def prepare(config: Config) -> RunPlan:
    """The plan of a run, from resolved options and its run directory, in which nothing is changed.

    Data are made where they are missing. Raises UserError where the directory holds something other than this run, or
    where resuming would lose a part of it.
    """
    run = config.run.run_dir
    check_kinds(run)
    best = os.path.join(run, "best")
    newest = newest_valid(run, best)  # the best checkpoint is complete, too, and may have been saved last
    gone = has_dataset(run) and not has_dataset(config.input.data)  # a finished run does not need its data
    dataset = Dataset.load(run) if gone else prepare_data(config.input, run)
    made_as = dataset.description.get("name")
    if is_text(made_as):  # ready shards need no --dataset; TF-Slim's have no name
        config = config.replace(dataset=made_as)
    config = in_steps(config, dataset.size("train"))
    if os.path.isdir(run) and any(not name.startswith(".") for name in os.listdir(run)):  # hidden: by a killed save
        if not os.path.exists(os.path.join(run, CONFIG_JSON)):
            raise UserError(f"{run} is not empty and holds no run (no {CONFIG_JSON}); choose another --run-dir")
        config = resumed(configuration.load(os.path.join(run, CONFIG_JSON)), config)
    if newest and not os.path.exists(os.path.join(run, DATASET_JSON)):
        raise UserError(f"{run}/{DATASET_JSON} is missing; put that of the data there that the run was trained on")
    step = step_of(newest) if newest else 0
    journal = Journal(os.path.join(run, "metrics.jsonl"), step, config.reporting.best_metric)
    for _, name in in_directory(Path(best)):
        if not journal.has_validation(int(name.rpartition("-")[2])):
            lost = f"{run}/metrics.jsonl lacks the validation that {best}/{name} was chosen by"
            raise UserError(f"{lost}, so that a worse one might replace it; restore the file, or move {best} away")
    plan = RunPlan(config, nets.find(config.network.net), dataset, newest, step, journal, False)
    plan = plan._replace(missed_validation=bool(newest) and plan.is_due(step) and not journal.has_validation(step))
    if gone and not plan.is_finished:
        plan = plan._replace(dataset=prepare_data(config.input, run))
    if config.network.head == "sigmoid" and len(dataset.class_names) != 2:
        raise UserError(f"--head sigmoid is for two classes; {config.input.data} has {len(dataset.class_names)}")
    return plan
