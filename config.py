"""The configuration of a run: one record of options for each topic, with the type, range and help on each field.

    config = Config.of(dataset="folder", source="my_pictures", total_steps=500)
    config.schedule.total_steps, config.input.batch_size

Option names are unique over all topics: on the command line they are flags without a prefix, in config.json flat keys.
presets.py has the recipes and the command line. Neither imports TensorFlow, so `--help` answers at once.
"""

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import tyro
from annotated_types import Interval

from errors import UserError, unknown
from files import atomic_write, is_text
from option_records import DATA_PLACE, PLACE, SIZE, check_values, checked_size, flag, help_page, optional, options
from sizes import PictureSize, as_size

MOST_STEPS = 2**31 - 1
AT_LEAST_ONE, POSITIVE = Interval(ge=1, le=MOST_STEPS), Interval(gt=0, le=1e30)
EPOCHS, FRACTION = Interval(gt=0, le=1e9), Interval(ge=0, lt=1)


@options
class InputOptions:
    """Pictures and batches."""

    dataset: str = "digits"
    """Where the pictures come from: digits, mnist, fashion_mnist, cifar10, cifar100, signs, flowers, folder (class
    folders of your own pictures, or an archive), csv (a table of them), webdataset or parquet; or your own source,
    FILE.py:NAME. imagenet can only be evaluated. Ready shards in --data need no name."""
    source: Annotated[str | None, PLACE, optional("DIR")] = None
    """Raw files that are on disk already, for making the shards. Without it, mnist, fashion_mnist, CIFAR and flowers
    are downloaded."""
    data: Annotated[str | None, DATA_PLACE, optional("DIR")] = None
    """Directory of TFRecord shards and their dataset.json; made where it is missing. Or one of TF-Slim or TensorFlow
    Datasets. May be a remote place, such as gs://bucket/shards. Default: data/DATASET."""
    batch_size: Annotated[int, Interval(ge=1, le=65536)] = 64
    """Pictures per step."""
    image_size: Annotated[PictureSize | None, Interval(ge=1, le=4096), SIZE, optional("N|HxW")] = None
    """Height and width of the net's input in pixels, such as 224 or 224x320. Default: the net's own."""
    preprocessing: Annotated[str | None, optional("NAME")] = None
    """Preprocessing family: alexnet, cifar, digits, flip, inception, inception_crop, keras_affine, lenet, min_max,
    none, standardize, torchvision, unit or vgg; or your own, FILE.py:NAME. Default: the net's own."""
    train_examples: Annotated[int | None, AT_LEAST_ONE, optional("N")] = None
    """Train on the first N pictures of the shuffled training split only. Default: all."""
    overfit_batches: Annotated[int | None, AT_LEAST_ONE, optional("N")] = None
    """To debug a recipe: train on N batches of pictures without augmentation and validate on the same pictures; the
    loss must approach zero."""
    on_error: Literal["stop", "skip"] = "stop"
    """At a corrupt record: stop with an error that names it, or replace it by another record, the same each time."""


@options
class NetworkOptions:
    """The net, its initial weights, and the parts that are trained."""

    net: str = "preact_resnet_20"
    """The net, such as vgg_16 or mobilenet_v1; docs/nets.md lists them. Or your own, FILE.py:NAME;
    docs/your-own.md."""
    init_from: Annotated[str | None, PLACE, optional("CKPT")] = None
    """Initial weights: a checkpoint, a run directory, or a name that python -m nets.weights fetch knows, such as
    vgg_16. The head starts fresh where the classes differ. Default: fresh variables."""
    ema: bool = True
    """Start from the EMA weights of --init-from, where it has any and is no run, as TF-Slim's MobileNet v2. --no-ema:
    from the raw weights, as always from a run."""
    adapt_channels: Annotated[Literal["mean", "zeros"] | None, optional("{mean,zeros}")] = None
    """For pictures with other channels than --init-from has weights for. mean: each channel of the first convolution
    gets the mean weight, scaled so that the response to grey stays; zeros: the first three channels are RGB and keep
    their weights, those of all others start at zero. Default: an error."""
    train_only: Annotated[tuple[str, ...], optional("SCOPE …")] = ()
    """Train only these parts of the net, such as fc8 or Logits."""
    freeze: Annotated[tuple[str, ...], optional("SCOPE …")] = ()
    """Do not train these parts of the net."""
    batch_norm_updates: Literal["auto", "trained", "all", "none"] = "auto"
    """Batch norm layers that use and average the statistics of the batch: those of the trained parts, all, or none. The
    others use their moving averages unchanged. auto: none with --init-from, else trained."""
    head: Literal["softmax", "sigmoid"] = "softmax"
    """One output for each class, or for two classes a single sigmoid unit."""


@options
class ScheduleOptions:
    """Length of the training and learning rate."""

    total_steps: Annotated[int, AT_LEAST_ONE] = 1000
    """Train until this step. May be raised when a run is resumed."""
    total_epochs: Annotated[float | None, EPOCHS, optional("EPOCHS")] = None
    """Length in epochs instead; one epoch is all training pictures once."""
    learning_rate: Annotated[float | None, POSITIVE, optional("FLOAT")] = None
    """Highest rate, at the end of warm-up and the start of the schedule. Default for sgd and momentum: 0.1 for nets
    with batch norm, 0.01 for others, 0.001 to fine-tune all layers; for adam, adamw and rmsprop: 0.001, and 0.0001 to
    fine-tune all layers."""
    schedule: Literal["constant", "step", "exponential", "polynomial", "cosine"] = "cosine"
    """Learning rate after warm-up. polynomial and cosine reach --end-learning-rate at --total-steps."""
    warmup_steps: Annotated[int, Interval(ge=0, le=MOST_STEPS)] = 0
    """Steps of linear increase to --learning-rate."""
    warmup_epochs: Annotated[float | None, Interval(ge=0, le=1e9), optional("EPOCHS")] = None
    """The same in epochs."""
    end_learning_rate: Annotated[float, Interval(ge=0, le=1e30)] = 0.0
    """Final rate of the cosine and polynomial schedules."""
    decay_at_steps: Annotated[tuple[int, ...], AT_LEAST_ONE, optional("N …")] = ()
    """Step schedule: the rate is multiplied by --decay-rate at each of these steps."""
    decay_at_epochs: Annotated[tuple[float, ...], EPOCHS, optional("EPOCH …")] = ()
    """The same in epochs."""
    decay_steps: Annotated[int | None, AT_LEAST_ONE, optional("N")] = None
    """Exponential schedule: the rate is multiplied by --decay-rate over this many steps."""
    decay_epochs: Annotated[float | None, EPOCHS, optional("EPOCHS")] = None
    """The same in epochs."""
    decay_rate: Annotated[float, Interval(gt=0, le=1)] = 0.1
    """Factor of the step and exponential schedules."""
    polynomial_power: Annotated[float, POSITIVE] = 1.0
    """Exponent of the polynomial schedule; 1 is a straight line."""


@options
class UpdateOptions:
    """Update rule."""

    optimizer: Literal["sgd", "momentum", "adam", "adamw", "rmsprop"] = "momentum"
    """Update rule."""
    momentum: Annotated[float, FRACTION] = 0.9
    """For momentum and rmsprop."""
    nesterov: bool = False
    """For momentum: Nesterov's form."""
    adam_beta1: Annotated[float, FRACTION] = 0.9
    """Decay of Adam's first moment."""
    adam_beta2: Annotated[float, FRACTION] = 0.999
    """Decay of Adam's second moment."""
    rmsprop_decay: Annotated[float, FRACTION] = 0.9
    """Decay of RMSProp's mean square."""
    optimizer_epsilon: Annotated[float, POSITIVE] = 1e-8
    """Added to the denominator of Adam and RMSProp."""
    clip_norm: Annotated[float | None, POSITIVE, optional("FLOAT")] = None
    """Scale all gradients down where their global norm is above this. Default: no clipping."""
    accumulate_steps: Annotated[int, AT_LEAST_ONE] = 1
    """Parts of each batch: they run one after another, and their gradients are added up for one update. A batch then
    needs the memory of one part. Batch norm normalizes each part by itself."""
    ema_decay: Annotated[float | None, FRACTION, optional("FLOAT")] = None
    """Keep an exponential moving average of the weights (EMA) with this decay, such as 0.999, and validate it too.
    Default: none."""


@options
class RegularizationOptions:
    """Regularization."""

    weight_decay: Annotated[float | None, Interval(ge=0, le=1e30), optional("FLOAT")] = None
    """Factor of the L2 loss on kernels, as in slim.l2_regularizer; for adamw, of its decoupled decay. Default: that of
    the net."""
    decay_biases: bool = False
    """Weight decay includes biases and batch norm's gamma and beta."""
    label_smoothing: Annotated[float, FRACTION] = 0.0
    """Share of the label's probability that the training loss spreads over all classes."""


@options
class ReportingOptions:
    """Logs, validation and checkpoints."""

    display_every_steps: Annotated[int | None, AT_LEAST_ONE, optional("N")] = None
    """Print and record loss, accuracy, learning rate and speed. Default: they are recorded every 10 steps and printed
    every 5 seconds."""
    validate_every_steps: Annotated[int, AT_LEAST_ONE] = 200
    """Evaluate the validation split, keep the best checkpoint, and write pictures, norms and curves.png."""
    validate_every_epochs: Annotated[float | None, EPOCHS, optional("EPOCHS")] = None
    """The same in epochs."""
    snapshot_every_steps: Annotated[int, AT_LEAST_ONE] = 200
    """Save a checkpoint; training resumes from the newest one."""
    snapshot_every_epochs: Annotated[float | None, EPOCHS, optional("EPOCHS")] = None
    """The same in epochs."""
    keep_checkpoints: Annotated[int, AT_LEAST_ONE] = 3
    """Number of newest checkpoints to keep, beside the best one."""
    best_metric: Literal["top1", "loss", "ema_top1", "ema_loss"] = "top1"
    """Validation metric that selects the best checkpoint, and that --patience counts by."""
    patience: Annotated[int | None, AT_LEAST_ONE, optional("N")] = None
    """Stop early after this many validations without a better one. Default: never."""
    norms_by: Literal["block", "variable"] = "block"
    """Charts of gradient and weight norms in TensorBoard: one for each block of the net, or for each variable."""


@options
class RunOptions:
    """The run and the machine."""

    run_dir: Annotated[str, PLACE] = "runs/digits"
    """Directory for checkpoints, events, metrics.jsonl and curves.png. The same command resumes the run in it."""
    seed: Annotated[int, Interval(ge=0, le=MOST_STEPS)] = 0
    """Random seed of weights, order, augmentation and dropout."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 computes convolutions and matrix products in bfloat16; variables stay float32."""
    compute_threads: Annotated[int, Interval(ge=0, le=1024)] = 0
    """Threads of the session. 0: one for each core; a resumed run keeps the number it was started with."""
    allow_code: bool = False
    """Where the file of your own net or preprocessing is gone or has changed, resume with the copy in the run
    directory. Read it first, if the directory is not yours."""
    dry_run: bool = False
    """Build everything, run two steps, one validation and one save, and leave nothing behind."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains an image classifier and writes checkpoints, TensorBoard summaries and curves into a run directory."""

    input: InputOptions = dataclasses.field(default_factory=InputOptions)
    network: NetworkOptions = dataclasses.field(default_factory=NetworkOptions)
    schedule: ScheduleOptions = dataclasses.field(default_factory=ScheduleOptions)
    update: UpdateOptions = dataclasses.field(default_factory=UpdateOptions)
    regularization: RegularizationOptions = dataclasses.field(default_factory=RegularizationOptions)
    reporting: ReportingOptions = dataclasses.field(default_factory=ReportingOptions)
    run: RunOptions = dataclasses.field(default_factory=RunOptions)

    @classmethod
    def of(cls, **values: Any) -> "Config":
        """The defaults with some options changed, by their flat names. Raises UserError for an unknown name."""
        return cls().replace(**values)

    def replace(self, **values: Any) -> "Config":
        """A copy with some options changed, by their flat names. Raises UserError for an unknown name."""
        for name in DURATIONS:  # a duration that is given in steps replaces one in epochs
            if f"{name}_steps" in values:
                values.setdefault(f"{name}_epochs", () if name == "decay_at" else None)
        if "image_size" in values:
            values["image_size"] = checked_size(values["image_size"])
        changed: dict[str, dict] = {}
        for key, value in values.items():
            if key not in TOPIC_OF:
                raise unknown("option", key, TOPIC_OF)
            changed.setdefault(TOPIC_OF[key], {})[key] = value
        topics = {topic: dataclasses.replace(getattr(self, topic), **new) for topic, new in changed.items()}
        return dataclasses.replace(self, **topics)

    def flat(self) -> dict[str, Any]:
        """All options by their names."""
        return {key: getattr(getattr(self, topic), key) for key, topic in TOPIC_OF.items()}


@options
class CheckpointOptions:
    """The checkpoint."""

    ckpt: Annotated[str, PLACE, tyro.conf.arg(metavar="PATH")]
    """Run directory, checkpoint prefix, or a single file of the V1 format."""
    ema: bool = False
    """Use the EMA weights, of a run with --ema-decay."""
    no_ema: bool = False
    """Use the raw weights of a checkpoint without run directory. Default: its EMA weights, where it has any."""
    net: Annotated[str | None, optional("NAME")] = None
    """For a checkpoint without run directory: the net, such as vgg_16; docs/nets.md lists them."""
    image_size: Annotated[PictureSize | None, Interval(ge=1, le=4096), SIZE, optional("N|HxW")] = None
    """Height and width of the net's input in pixels, such as 224 or 224x320. Default: of the run, or the net's own."""
    preprocessing: Annotated[str | None, optional("NAME")] = None
    """For a checkpoint without run directory: preprocessing family. Default: the net's own."""
    allow_code: bool = False
    """Run the copy of your own net or preprocessing that the run directory holds. Read it first, if the directory is
    not yours."""


TOPICS = {field.name: field.type for field in dataclasses.fields(Config)}
TOPIC_OF = {field.name: topic for topic, record in TOPICS.items() for field in dataclasses.fields(record)}
HINTS = {key: hint for record in TOPICS.values() for key, hint in get_type_hints(record, include_extras=True).items()}

DURATIONS = ("total", "warmup", "decay_at", "decay", "validate_every", "snapshot_every")  # in _steps or in _epochs
BELONGS_TO = (  # key, the key it depends on, and the values of that key for which it has a meaning
    ("decay_at_steps", "schedule", ("step",)),
    ("decay_at_epochs", "schedule", ("step",)),
    ("decay_steps", "schedule", ("exponential",)),
    ("decay_epochs", "schedule", ("exponential",)),
    ("end_learning_rate", "schedule", ("cosine", "polynomial")),
    ("nesterov", "optimizer", ("momentum",)),
)


def parse(record: type, program: str, about: str, args: list[str]) -> Any:
    """The options of a command, an instance of `record`. Exits with 0 after --help, with 2 on a mistake.

    Raises UserError for a value that is out of its range.
    """
    values = tyro.cli(tyro.conf.FlagCreatePairsOff[record], args=args, prog=program, description=help_page(about))
    check_values(vars(values), get_type_hints(record, include_extras=True))
    return values


def check(config: Config) -> None:
    """Raises UserError for a value or a combination of values that cannot be trained."""
    values = config.flat()
    check_values(values, HINTS)
    check_paths(config)
    network, schedule, inputs = config.network, config.schedule, config.input
    if schedule.schedule == "step" and not (schedule.decay_at_steps or schedule.decay_at_epochs):
        raise UserError("--schedule step needs --decay-at-steps, such as 500 750, or --decay-at-epochs")
    for key in ("decay_at_steps", "decay_at_epochs"):
        if list(values[key]) != sorted(set(values[key])):
            raise UserError(f"{flag(key)} is {values[key]}; each must be above the one before")
    if schedule.schedule == "exponential" and schedule.decay_steps is None and schedule.decay_epochs is None:
        raise UserError("--schedule exponential needs --decay-steps, such as 500, or --decay-epochs")
    for key, other, allowed in BELONGS_TO:
        if values[key] and values[other] not in allowed:
            belongs = f"{flag(other)} {' or '.join(allowed)}"
            raise UserError(f"{flag(key)} belongs to {belongs}, but the {other} is {values[other]}")
    if schedule.total_epochs is None and schedule.warmup_epochs is None:  # else once the epochs are known in steps
        check_warmup(schedule)
    if network.train_only and network.freeze:
        raise UserError("--train-only and --freeze exclude each other; give one of them")
    if network.adapt_channels and not network.init_from:
        raise UserError(f"--adapt-channels {network.adapt_channels} needs weights to adapt; add --init-from")
    if network.batch_norm_updates == "none" and not network.init_from:
        raise UserError("--batch-norm-updates none needs moving averages from a checkpoint; add --init-from")
    if config.reporting.best_metric.startswith("ema") and not config.update.ema_decay:
        raise UserError(f"--best-metric {config.reporting.best_metric} needs --ema-decay, such as --ema-decay 0.999")
    if inputs.batch_size % config.update.accumulate_steps:
        parts = config.update.accumulate_steps
        raise UserError(
            f"--accumulate-steps {parts} cannot divide a batch of {inputs.batch_size} into equal parts; give a divisor "
            "of --batch-size"
        )
    if inputs.overfit_batches and inputs.train_examples:
        raise UserError("--overfit-batches and --train-examples both set the number of pictures; give one of them")


def check_paths(config: Config) -> None:
    """Raises UserError for names of files that cannot be used."""
    if config.network.init_from == "":
        raise UserError("--init-from '' names nothing; leave it out to start from fresh variables")
    run_dir = config.run.run_dir
    if re.search(r"[*?\[\]\\\x00-\x1f]", os.path.abspath(run_dir)):
        raise UserError(f"--run-dir {run_dir!r} holds one of * ? [ ] \\; TensorFlow takes those for wildcards")
    for key, path in (("run_dir", run_dir), ("data", config.input.data)):
        if path is not None and not is_text(path):
            raise UserError(f"{flag(key)} {path!r} is no name in UTF-8, which TensorFlow needs")


def check_warmup(schedule: ScheduleOptions) -> None:
    """Raises UserError where warm-up is as long as the training."""
    if schedule.warmup_steps >= schedule.total_steps:
        warmup = f"--warmup-steps is {schedule.warmup_steps} (your own, the preset's, or by --warmup-epochs)"
        raise UserError(f"{warmup}; it must be below the {schedule.total_steps} steps of the training")


def save(config: Config, path: str) -> None:
    """Writes the configuration as JSON, atomically."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(config.flat(), indent=2) + "\n")


def load(path: str) -> Config:
    """Reads a file that `save` wrote. Raises UserError where it is missing or is no configuration of this version."""
    try:
        values = json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing: its directory is not a run") from None
    except (ValueError, RecursionError) as error:  # no JSON, or no text
        raise UserError(f"{path} is not JSON ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} is no configuration: it holds no JSON object")
    unknown_keys = set(values) - set(TOPIC_OF)
    if unknown_keys:
        raise UserError(f"{path} has keys that this version does not know: {sorted(unknown_keys)}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    try:
        values |= {"image_size": as_size(values["image_size"])} if "image_size" in values else {}
    except ValueError as error:
        raise UserError(f"mend or restore {path}: image_size is {str(values['image_size'])[:80]!r}; {error}") from None
    check_values(values, HINTS, lambda key: f"mend or restore {path}: {key}")
    # Runs from before that option have no such key.
    return Config.of(**{"batch_norm_updates": "trained", **values})
