"""The configuration of a run: one flat, typed, frozen record; its cross-field checks; JSON.

presets.py has the recipes and the command line. Neither knows of TensorFlow, so `--help` answers at once.
"""

import dataclasses
import json
import math
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal, get_type_hints

import docstring_parser  # which tyro brings, as it does typeguard
import tyro
from typeguard import TypeCheckError, check_type

from errors import UserError, unknown
from files import atomic_write

# Optional values; their help says what stands in where none is given.
_Directory, _Name, _Weights, _Count, _Factor, _Epochs = (
    Annotated[kind | None, tyro.conf.arg(metavar=metavar, help_behavior_hint="")]
    for kind, metavar in (
        *((str, "DIR"), (str, "NAME"), (str, "CKPT"), (int, "N"), (float, "FLOAT"), (float, "EPOCHS")),
    )
)
_Scopes = Annotated[tuple[str, ...], tyro.conf.arg(metavar="SCOPE …", help_behavior_hint="")]


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains an image classifier and leaves checkpoints, TensorBoard summaries and curves in its run directory."""

    dataset: str = "digits"
    """Where the pictures come from: digits, mnist, fashion_mnist, cifar10, signs, flowers, folder (class folders of
    your own pictures) or csv (a table of them). imagenet can only be evaluated."""
    source: _Directory = None
    """Raw files already on disk, for making the shards. mnist, fashion_mnist, cifar10 and flowers are downloaded
    without it."""
    data: _Directory = None
    """Directory of TFRecord shards and their dataset.json; made when it is missing. Default: data/DATASET."""
    train_examples: _Count = None
    """Train on the first N of the shuffled training split only. Default: all."""
    overfit_batches: _Count = None
    """To debug a recipe: train on N batches of pictures without augmentation and validate on the same; the loss must go
    to zero."""
    on_error: Literal["stop", "skip"] = "stop"
    """A corrupt record stops the run and is named, or another one stands in for it, the same each time."""

    net: str = "preact_resnet_20"
    """Name in the registry nets.NETS; a wrong name lists them."""
    init_from: _Weights = None
    """Start from these weights, fresh only where the classes differ: a checkpoint, a run directory, or a name that
    python -m nets.weights fetch knows, such as vgg_16."""
    train_only: _Scopes = ()
    """Train these parts of the net alone, such as fc8 or Logits."""
    freeze: _Scopes = ()
    """Leave these parts of the net as they are."""
    batch_norm_updates: Literal["auto", "trained", "all", "none"] = "auto"
    """Which batch norm layers normalise by the batch and go on averaging: those of the parts that are trained, all, or
    none. The others keep to the averages they have. auto: none with --init-from, else trained."""
    head: Literal["softmax", "sigmoid"] = "softmax"
    """One output for each class, or for two classes a single sigmoid unit."""
    image_size: _Count = None
    """Height and width of the pictures that the net sees. Default: the net's own."""
    preprocessing: _Name = None
    """How pictures become numbers: alexnet, cifar, digits, flip, inception, inception_crop, keras_affine, lenet,
    min_max, none, standardize, unit or vgg. Default: the net's own."""
    weight_decay: _Factor = None
    """Factor of the L2 loss on kernels, as slim.l2_regularizer takes it; of adamw, of its own decay. Default: the
    net's own."""
    decay_biases: bool = False
    """Weight decay covers biases and batch norm's gamma and beta as well."""
    label_smoothing: float = 0.0
    """Share of the label's probability that the training loss spreads over all classes."""

    batch_size: int = 64
    """Pictures per step."""
    total_steps: int = 1000
    """Train until this step. May be raised when a run is resumed."""
    total_epochs: _Epochs = None
    """The same, in passes over the training pictures; so are the other durations in epochs."""
    optimizer: Literal["sgd", "momentum", "adam", "adamw", "rmsprop"] = "momentum"
    """Update rule."""
    momentum: float = 0.9
    """Of momentum and RMSProp."""
    nesterov: bool = False
    """Of momentum: Nesterov's."""
    adam_beta1: float = 0.9
    """Decay of Adam's first moment."""
    adam_beta2: float = 0.999
    """Decay of Adam's second moment."""
    rmsprop_decay: float = 0.9
    """Decay of RMSProp's mean square."""
    optimizer_epsilon: float = 1e-8
    """Added to the denominator of Adam and RMSProp."""
    clip_norm: _Factor = None
    """Scale gradients down together where their norm is above this."""
    ema_decay: _Factor = None
    """Keep an exponential moving average of the weights, such as 0.999, and validate it too."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 lets convolutions and matrix products compute in bfloat16; variables stay float32."""

    learning_rate: _Factor = None
    """Highest rate: what warm-up ends at and the schedule starts from. Default: the net's own, 0.1 with batch norm and
    0.01 without; 0.001 for adam, adamw and rmsprop; to fine-tune all layers, 0.001 and 0.0001."""
    schedule: Literal["constant", "step", "exponential", "polynomial", "cosine"] = "cosine"
    """Shape of the rate after warm-up. Polynomial and cosine end with --end-learning-rate at --total-steps."""
    warmup_steps: int = 0
    """Steps of linear increase to --learning-rate."""
    warmup_epochs: _Epochs = None
    """The same in epochs."""
    decay_at_steps: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N …", help_behavior_hint="")] = ()
    """Step schedule: the rate is multiplied by --decay-rate at each of these steps."""
    decay_at_epochs: Annotated[tuple[float, ...], tyro.conf.arg(metavar="EPOCH …", help_behavior_hint="")] = ()
    """The same in epochs."""
    decay_steps: _Count = None
    """Exponential schedule: the rate is multiplied by --decay-rate over this many steps."""
    decay_epochs: _Epochs = None
    """The same in epochs."""
    decay_rate: float = 0.1
    """Factor of the step and exponential schedules."""
    end_learning_rate: float = 0.0
    """Where the cosine and polynomial schedules end."""
    polynomial_power: float = 1.0
    """Of the polynomial schedule; 1 is a straight line."""

    display_every_steps: int = 10
    """Log loss, accuracy, rate and speed."""
    validate_every_steps: int = 200
    """Evaluate the validation split, keep the best checkpoint, and write pictures, norms and curves.png."""
    validate_every_epochs: _Epochs = None
    """The same in epochs."""
    best_metric: Literal["top1", "loss", "ema_top1", "ema_loss"] = "top1"
    """What the best checkpoint is chosen by, and --patience counts by, on the validation split."""
    patience: _Count = None
    """Stop early after this many validations without a better one."""
    snapshot_every_steps: int = 200
    """Save a checkpoint; training resumes from the newest."""
    snapshot_every_epochs: _Epochs = None
    """The same in epochs."""
    keep_checkpoints: int = 3
    """How many of the newest checkpoints stay, beside the best one."""

    seed: int = 0
    """Of the weights, the order, the augmentation and dropout."""
    compute_threads: int = 0
    """Threads of the session. 0 takes all cores; a resumed run takes the number it was started with."""
    run_dir: str = "runs/digits"
    """Checkpoints, events, metrics.jsonl and curves.png. The same command resumes what it holds."""
    dry_run: bool = False
    """Build everything, run two steps, one validation and one save, and leave nothing behind."""


for _field in docstring_parser.parse_from_object(Config).params:  # tyro would keep the line breaks of this file
    _help = tyro.conf.arg(help=" ".join(_field.description.split()))
    Config.__annotations__[_field.arg_name] = Annotated[Config.__annotations__[_field.arg_name], _help]

# A resumed run may be longer and report otherwise. Where files lie is no setting of the run either: that the data are
# the same is checked by their dataset.json.
FREE_ON_RESUME = {
    *("total_steps", "display_every_steps", "validate_every_steps", "snapshot_every_steps", "keep_checkpoints"),
    *("source", "data", "on_error", "run_dir", "patience"),
}
DURATIONS = ("total", "warmup", "decay_at", "decay", "validate_every", "snapshot_every")  # in _steps or in _epochs
AT_LEAST_ONE = (
    *(
        "train_examples",
        "overfit_batches",
        "patience",
        "image_size",
        "batch_size",
        "total_steps",
        "decay_steps",
        "keep_checkpoints",
    ),
    *("display_every_steps", "validate_every_steps", "snapshot_every_steps"),
)
AT_LEAST_ZERO = ("weight_decay", "end_learning_rate", "warmup_steps", "warmup_epochs", "compute_threads", "seed")
MOST_STEPS = 2**31 - 1
AT_MOST = {
    **dict.fromkeys(("seed", "total_steps", "warmup_steps", "decay_steps", "train_examples"), MOST_STEPS),
    **{"image_size": 4096, "batch_size": 65536, "compute_threads": 1024, "decay_rate": 1.0},
    **dict.fromkeys(("learning_rate", "weight_decay", "optimizer_epsilon", "clip_norm"), 1e30),
    **dict.fromkeys(("total_epochs", "warmup_epochs", "decay_epochs"), 1e9),
}
ABOVE_ZERO = (
    *("learning_rate", "decay_rate", "optimizer_epsilon", "clip_norm", "polynomial_power"),
    *("total_epochs", "decay_epochs", "validate_every_epochs", "snapshot_every_epochs"),
)
BETWEEN_ZERO_AND_ONE = ("momentum", "adam_beta1", "adam_beta2", "rmsprop_decay", "label_smoothing", "ema_decay")
BELONGS_TO = (  # key, the key it depends on, and the values of that under which it means something
    ("decay_at_steps", "schedule", ("step",)),
    ("decay_at_epochs", "schedule", ("step",)),
    ("decay_steps", "schedule", ("exponential",)),
    ("decay_epochs", "schedule", ("exponential",)),
    ("end_learning_rate", "schedule", ("cosine", "polynomial")),
    ("nesterov", "optimizer", ("momentum",)),
)


def validate(config: Config, nets: Mapping[str, object], preprocessings: Collection[str]) -> None:
    """Raises UserError for a value or a combination of values that cannot be trained, before anything is built."""
    if config.init_from == "":
        raise UserError("--init-from '' names nothing; leave it out to start from fresh variables")
    if config.net not in nets:
        raise unknown("net", config.net, nets)
    if config.preprocessing is not None and config.preprocessing not in preprocessings:
        raise unknown("preprocessing", config.preprocessing, preprocessings)
    for keys, lowest in ((AT_LEAST_ONE, 1), (AT_LEAST_ZERO, 0)):
        for key in keys:
            value = getattr(config, key)
            if value is not None and not lowest <= value < math.inf:
                raise UserError(f"{flag(key)} is {value}; it must be at least {lowest}, and finite")
    for key in BETWEEN_ZERO_AND_ONE:
        if not 0 <= (getattr(config, key) or 0) < 1:
            raise UserError(f"{flag(key)} is {getattr(config, key)}; it must be at least 0 and below 1")
    for key in ABOVE_ZERO:
        if getattr(config, key) is not None and not 0 < getattr(config, key) < math.inf:
            raise UserError(f"{flag(key)} is {getattr(config, key)}; it must be above 0, and finite")
    for key, highest in AT_MOST.items():
        if (getattr(config, key) or 0) > highest:
            raise UserError(f"{flag(key)} is {getattr(config, key)}; it must be at most {highest}")
    if re.search(r"[*?\[\]\\\x00-\x1f]", os.path.abspath(config.run_dir)):
        raise UserError(f"--run-dir {config.run_dir!r} holds one of * ? [ ] \\; TensorFlow takes those for wildcards")
    for key in ("run_dir", "data"):
        if any("\ud800" <= character <= "\udfff" for character in getattr(config, key) or ""):
            raise UserError(f"{flag(key)} {getattr(config, key)!r} is no name in UTF-8, which TensorFlow asks for")
    if config.schedule == "step" and not (config.decay_at_steps or config.decay_at_epochs):
        raise UserError(
            "--schedule step needs --decay-at-steps, such as --decay-at-steps 500 750, or --decay-at-epochs"
        )
    for unit in ("steps", "epochs"):
        at = getattr(config, f"decay_at_{unit}")
        if list(at) != sorted(set(at)) or not all(0 < moment <= MOST_STEPS for moment in at):
            raise UserError(f"--decay-at-{unit} is {at}; {unit} must rise, be above 0 and at most {MOST_STEPS}")
    if config.schedule == "exponential" and config.decay_steps is None and config.decay_epochs is None:
        raise UserError("--schedule exponential needs --decay-steps, such as --decay-steps 500, or --decay-epochs")
    for key, other, values in BELONGS_TO:
        if getattr(config, key) and getattr(config, other) not in values:
            belongs = f"{flag(other)} {' or '.join(values)}"
            raise UserError(f"{flag(key)} belongs to {belongs}, but the {other} is {getattr(config, other)}")
    if config.total_epochs is None and config.warmup_epochs is None:  # else once the epochs are known in steps
        check_warmup(config)
    if config.train_only and config.freeze:
        raise UserError("--train-only and --freeze say the same from two sides; give one of them")
    if config.batch_norm_updates == "none" and not config.init_from:
        raise UserError("--batch-norm-updates none keeps to averages that only --init-from brings")
    if config.best_metric.startswith("ema") and not config.ema_decay:
        raise UserError(f"--best-metric {config.best_metric} needs --ema-decay, such as --ema-decay 0.999")
    if config.overfit_batches and config.train_examples:
        raise UserError("--overfit-batches and --train-examples both say how many pictures; give one of them")


def check_warmup(config: Config) -> None:
    """Raises UserError where warm-up is as long as the training."""
    if config.warmup_steps >= config.total_steps:
        raise UserError(
            f"--warmup-steps is {config.warmup_steps}, as such or by --warmup-epochs; it must be below the "
            f"{config.total_steps} steps of the training"
        )


def resolve(config: Config, nets: Mapping[str, object]) -> Config:
    """Fills in what follows from the net and the machine, so that config.json leaves nothing open.

    Raises UserError where the learning rate would rise.
    """
    net, start = nets[config.net], config.init_from
    is_file = start and (os.sep in start or os.path.exists(start) or os.path.exists(f"{start}.index"))
    adaptive, whole = config.optimizer in ("adam", "adamw", "rmsprop"), not (config.train_only or config.freeze)
    adaptive_rate, plain_rate = (1e-4, 1e-3) if start and whole else (1e-3, net.learning_rate)
    rate = config.learning_rate or (adaptive_rate if adaptive else plain_rate)
    if config.end_learning_rate > rate:
        raise UserError(f"--end-learning-rate {config.end_learning_rate} is above --learning-rate {rate}")
    automatic = "none" if start else "trained"
    return dataclasses.replace(
        config,
        learning_rate=rate,
        batch_norm_updates=automatic if config.batch_norm_updates == "auto" else config.batch_norm_updates,
        data=os.path.abspath(config.data or os.path.join("data", config.dataset)),
        init_from=os.path.abspath(start) if is_file else start,
        image_size=config.image_size or net.image_size,
        preprocessing=config.preprocessing or net.preprocessing,
        weight_decay=net.weight_decay if config.weight_decay is None else config.weight_decay,
        compute_threads=config.compute_threads or os.cpu_count(),
    )


def resumed(stored: Config, asked: Config) -> Config:
    """The configuration of a run that goes on: what was asked, with the threads it was started with.

    Raises UserError where the rest differs from what the run was started with.
    """
    asked = dataclasses.replace(asked, compute_threads=stored.compute_threads)
    if asked.init_from and os.path.abspath(asked.init_from) == stored.init_from:  # a file that may be gone by now
        asked = dataclasses.replace(asked, init_from=stored.init_from)
    differences = [
        f"{flag(field.name)} was {getattr(stored, field.name)}, now {getattr(asked, field.name)}"
        for field in dataclasses.fields(Config)
        if field.name not in FREE_ON_RESUME and getattr(stored, field.name) != getattr(asked, field.name)
    ]
    if differences:
        raise UserError(
            f"{asked.run_dir} holds a run with other settings: {'; '.join(differences)}. "
            "Give the same settings to resume it, or another --run-dir to start a new run"
        )
    return asked


def save(config: Config, path: str) -> None:
    """Writes the configuration as JSON. A reader never finds half a file."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")


def load(path: str) -> Config:
    """Reads what `save` wrote. Raises UserError where the file is missing or is no configuration of this version."""
    try:
        values = json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing: its directory is not a run") from None
    except (ValueError, RecursionError) as error:  # no JSON, or not even text
        raise UserError(f"{path} is not JSON ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} is no configuration: it holds no JSON object")
    unknown_keys = set(values) - {field.name for field in dataclasses.fields(Config)}
    if unknown_keys:
        raise UserError(f"{path} has keys that this version does not know: {sorted(unknown_keys)}")
    values = {"batch_norm_updates": "trained", **values}  # of a run from before there was a choice
    hints = get_type_hints(Config)
    for key, value in values.items():
        values[key] = tuple(value) if isinstance(value, list) else value
        try:
            check_type(values[key], hints[key])
        except TypeCheckError:
            raise UserError(f"{path}: {key} is {str(value)[:80]!r}, which it cannot be; mend or restore it") from None
    return Config(**values)


def flag(key: str) -> str:
    """A key as the command line has it."""
    return "--" + key.replace("_", "-")
