"""Defaults, presets, the command line, validation, and what lies in config.json."""

import json
import os
import re
from typing import get_type_hints

import pytest

import config
from classifier import Classifier
from config import TOPIC_OF, Config
from errors import UserError
from eval import EvalOptions
from export import ExportOptions
from nets import NETS
from pipeline.preprocess import FAMILIES
from predict import PredictOptions
from presets import PRESETS, parse_command_line
from run_directory import in_steps, resolve, resumed


def test_defaults_then_preset_then_command_line():
    assert parse_command_line([]) == PRESETS["digits"]
    assert parse_command_line(["mnist_alexnet"]) == PRESETS["mnist_alexnet"]
    asked = parse_command_line(["mnist_alexnet", "--batch-size", "7", "--optimizer", "rmsprop"])
    assert asked == PRESETS["mnist_alexnet"].replace(batch_size=7, optimizer="rmsprop")
    assert asked.schedule.learning_rate == 1e-3  # of the preset
    assert asked.update.momentum == Config().update.momentum  # of neither


def test_a_key_without_a_preset_changes_the_default_one():
    assert parse_command_line(["--seed", "3"]) == PRESETS["digits"].replace(seed=3)


def test_a_key_is_written_with_dashes_or_underscores():
    arguments = ["--decay_at_steps", "5", "7", "--learning_rate=0.5"]
    asked = parse_command_line(arguments)
    assert (asked.schedule.decay_at_steps, asked.schedule.learning_rate) == ((5, 7), 0.5)
    assert asked == parse_command_line([a.replace("_", "-") for a in arguments])


def test_an_unknown_preset_names_the_nearest_and_all():
    with pytest.raises(UserError, match=r"mnist_alexnt.*did you mean mnist_alexnet.*digits.* mnist_alexnet"):
        parse_command_line(["mnist_alexnt"])


def test_a_preset_after_the_options_is_pointed_out():
    with pytest.raises(UserError, match="preset folder must be the first word"):
        parse_command_line(["--source", "pictures", "folder"])
    assert parse_command_line(["--data", "folder"]).input.data == "folder"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lerning-rate", "0.1"], "--learning-rate"),  # the nearest
        (["--optimizer", "adagrad"], "momentum"),  # what there is
        (["--batch-size", "many"], "--batch-size"),
        (["digits", "mnist_alexnet"], "mnist_alexnet"),
    ],
)
def test_a_mistake_on_the_command_line_exits_with_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        parse_command_line(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_help_lists_presets_and_keys(capsys):
    with pytest.raises(SystemExit) as exit_:
        parse_command_line(["--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    for word in *PRESETS, *(f"--{key.replace('_', '-')}" for key in TOPIC_OF):
        assert re.search(rf"(?<![\w-]){word}(?![\w-])", text), word


AT_LEAST_ONE = (
    *("train_examples", "image_size", "batch_size", "total_steps", "decay_steps", "keep_checkpoints"),
    *("display_every_steps", "validate_every_steps", "snapshot_every_steps", "patience"),
)
AT_LEAST_ZERO = ("weight_decay", "momentum", "end_learning_rate", "warmup_steps", "compute_threads", "seed")
NAN, INFINITE = float("nan"), float("inf")
BAD_VALUES = [
    *((key, value) for key in AT_LEAST_ONE for value in (0, -1)),
    *((key, -1) for key in AT_LEAST_ZERO),
    *((key, value) for key in ("adam_beta1", "adam_beta2", "rmsprop_decay") for value in (-0.1, 1.0, NAN)),
    *((key, value) for key in ("learning_rate", "decay_rate", "optimizer_epsilon") for value in (0.0, -1.0, NAN)),
    *((key, NAN) for key in ("weight_decay", "momentum", "end_learning_rate")),
    *(("clip_norm", 1e39), ("decay_rate", 1.5), ("decay_at_steps", (2**31,)), ("total_epochs", 1e308)),
    *(("learning_rate", INFINITE), ("momentum", INFINITE), ("weight_decay", INFINITE), ("decay_rate", INFINITE)),
    ("seed", 2**31),
    *(("decay_at_steps", value) for value in ((7, 5), (5, 5), (0, 5), (-1,))),
    *(("decay_at_epochs", value) for value in ((7, 5), (0.0,), (NAN,), (INFINITE,))),
    *(("warmup_steps", value) for value in (1000, 1001)),  # total_steps is 1000
    *((key, value) for key in ("label_smoothing", "ema_decay") for value in (-0.1, 1.0, NAN)),
    *((key, value) for key in ("clip_norm", "total_epochs", "decay_epochs") for value in (0.0, -1.0, NAN, INFINITE)),
    *(("warmup_epochs", value) for value in (-1.0, NAN)),
    *(("overfit_batches", value) for value in (0, -1)),
]


@pytest.mark.parametrize(("key", "value"), BAD_VALUES)
def test_a_bad_value_is_named_with_its_flag(key, value):
    with pytest.raises(UserError) as error:
        resolve(Config.of(**{key: value}))
    assert re.search(rf"--{key.replace('_', '-')}\b.*{re.escape(str(value))}", str(error.value))


@pytest.mark.parametrize(("schedule", "needs"), [("step", "--decay-at-steps"), ("exponential", "--decay-steps")])
def test_a_schedule_names_what_it_needs(schedule, needs):
    with pytest.raises(UserError, match=f"--schedule {schedule} needs {needs}"):
        resolve(Config.of(schedule=schedule))
    key, value = {"step": ("decay_at_steps", (500,)), "exponential": ("decay_steps", 500)}[schedule]
    resolve(Config.of(schedule=schedule, **{key: value}))
    with pytest.raises(UserError, match=f"{needs} belongs to --schedule {schedule}, but the schedule is constant"):
        resolve(Config.of(schedule="constant", **{key: value}))


@pytest.mark.parametrize(
    ("key", "value", "nearest", "known"),
    [("net", "vgg16", "vgg_16", NETS), ("preprocessing", "cifr", "cifar", FAMILIES)],
)
def test_an_unknown_name_gets_the_nearest_and_all(key, value, nearest, known):
    with pytest.raises(UserError) as error:
        resolve(Config.of(**{key: value}))
    assert all(word in str(error.value) for word in (f"unknown {key} '{value}'", f"did you mean {nearest}?", *known))


def test_the_extremes_that_are_allowed():
    extremes = dict.fromkeys(AT_LEAST_ONE, 1) | dict.fromkeys(AT_LEAST_ZERO, 0)
    resolve(Config.of(**extremes, adam_beta1=0.0, schedule="exponential"))
    resolve(Config.of(end_learning_rate=0.1, warmup_steps=999, seed=2**31 - 1))


OPEN = {
    *("overfit_batches", "clip_norm", "ema_decay", "patience", "total_epochs", "warmup_epochs", "decay_epochs"),
    *("validate_every_epochs", "snapshot_every_epochs", "display_every_steps"),
}


def test_resolve_leaves_nothing_open_but_what_means_all_or_none():
    resolved = resolve(Config.of(dataset="mnist", net="vgg_16"))
    still_open = {key for key, value in resolved.flat().items() if value is None}
    assert still_open == {"source", "train_examples", "decay_steps", "init_from", "adapt_channels", *OPEN}
    net = NETS["vgg_16"]
    assert (resolved.input.image_size, resolved.input.preprocessing, resolved.regularization.weight_decay) == (
        net.image_size, net.preprocessing, net.weight_decay,
    )  # fmt: skip
    assert resolved.input.data == os.path.join(os.getcwd(), "data", "mnist")
    assert resolved.run.compute_threads == os.cpu_count()


def test_resolve_keeps_what_was_asked():
    asked = Config.of(
        data="/some/where", image_size=9, preprocessing="lenet", weight_decay=0.0, compute_threads=3, train_examples=5,
        learning_rate=0.5, batch_norm_updates="all",
    )  # fmt: skip
    assert resolve(asked) == asked


@pytest.mark.parametrize(
    ("settings", "rate", "updates"),
    [
        ({}, 0.1, "trained"),
        ({"net": "vgg_16"}, 0.01, "trained"),
        ({"net": "vgg_16", "optimizer": "adamw"}, 1e-3, "trained"),
        ({"init_from": "vgg_16", "net": "vgg_16"}, 1e-3, "none"),
        ({"init_from": "vgg_16", "optimizer": "adam"}, 1e-4, "none"),
        ({"init_from": "vgg_16", "net": "vgg_16", "train_only": ("fc8",)}, 0.01, "none"),
        ({"init_from": "vgg_16", "freeze": ("conv1",), "optimizer": "rmsprop"}, 1e-3, "none"),
        ({"init_from": "vgg_16", "learning_rate": 0.5, "batch_norm_updates": "all"}, 0.5, "all"),
    ],
)
def test_the_rate_and_batch_norm_follow_from_what_is_trained(settings, rate, updates):
    resolved = resolve(Config.of(**settings))
    assert (resolved.schedule.learning_rate, resolved.network.batch_norm_updates) == (rate, updates)


def test_the_rate_does_not_rise():
    with pytest.raises(UserError, match=r"--end-learning-rate 0.2 is above --learning-rate 0.1"):
        resolve(Config.of(end_learning_rate=0.2))
    resolve(Config.of(end_learning_rate=0.1))


def test_save_and_load(tmp_path):
    path = tmp_path / "config.json"
    saved = Config.of(decay_at_steps=(5, 7), weight_decay=1e-4, train_examples=None, schedule="step", source="/déjà/vu")
    config.save(saved, str(path))
    assert config.load(str(path)) == saved
    assert isinstance(config.load(str(path)).schedule.decay_at_steps, tuple)
    assert os.listdir(tmp_path) == ["config.json"]
    assert set(json.loads(path.read_text())) == set(TOPIC_OF)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "missing"),
        (b'{"batch_size": 64', "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b'{"batch_size": 64, "bacth_size": 32}', "bacth_size"),
        (b"[1, 2]", ""),
        (b"3", ""),
        (b"null", ""),
    ],
)
def test_what_is_no_configuration_is_refused_by_its_path(content, message, tmp_path):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"{re.escape(str(path))}.*{message}"):
        config.load(str(path))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("train_only", 5), ("train_only", None), ("compute_threads", "two"), ("batch_size", [3]), ("seed", 0.5)),
        *(("net", ["x"]), ("preprocessing", {}), ("precision", "zz"), ("head", 3), ("decay_at_steps", ["a"])),
    ],
)
def test_a_value_of_another_type_is_named(key, value, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**Config().flat(), key: value}))
    with pytest.raises(UserError, match=f"{re.escape(str(path))}: {key} is "):
        config.load(str(path))


def test_a_run_from_before_there_was_a_choice(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"net": "vgg_16", "learning_rate": 0.5}))
    assert config.load(str(path)) == Config.of(net="vgg_16", learning_rate=0.5, batch_norm_updates="trained")


OTHER_VALUES = {
    "init_from": "vgg_16", "adapt_channels": "mean", "on_error": "skip",
    "dataset": "mnist", "train_examples": 5, "net": "vgg_16", "image_size": 9, "preprocessing": "unit",
    "weight_decay": 0.5, "batch_size": 9, "optimizer": "adam", "momentum": 0.5, "adam_beta1": 0.5, "adam_beta2": 0.5,
    "rmsprop_decay": 0.5, "optimizer_epsilon": 0.5, "learning_rate": 0.5, "schedule": "step", "warmup_steps": 9,
    "decay_at_steps": (9,), "decay_steps": 9, "decay_rate": 0.5, "end_learning_rate": 0.05, "seed": 9,
    "total_steps": 9, "display_every_steps": 9, "validate_every_steps": 9, "snapshot_every_steps": 9,
    "keep_checkpoints": 9, "source": "/other", "data": "/other", "run_dir": "/other", "compute_threads": 9,
    "overfit_batches": 9, "train_only": ("fc8",), "freeze": ("fc8",), "batch_norm_updates": "all",
    "head": "sigmoid", "decay_biases": True, "label_smoothing": 0.5, "nesterov": True, "clip_norm": 9.0,
    "ema_decay": 0.5, "ema": False, "precision": "bf16", "polynomial_power": 2.0, "best_metric": "loss", "patience": 9,
    "total_epochs": 9.0, "warmup_epochs": 9.0, "decay_at_epochs": (9.0,), "decay_epochs": 9.0,
    "validate_every_epochs": 9.0, "snapshot_every_epochs": 9.0, "dry_run": True, "norms_by": "variable",
    "allow_code": True, "accumulate_steps": 2,
}  # fmt: skip
FREE = {
    "total_steps", "display_every_steps", "validate_every_steps", "snapshot_every_steps", "keep_checkpoints",
    "source", "data", "on_error", "run_dir", "patience", "norms_by", "allow_code",
}  # fmt: skip


@pytest.mark.parametrize("key", list(TOPIC_OF))
def test_a_resumed_run_may_differ_only_where_that_is_free(key):
    stored = Config.of(compute_threads=4)
    asked = stored.replace(**{key: OTHER_VALUES[key]})
    if key == "compute_threads":  # the sums are split by thread
        assert resumed(stored, asked) == stored
    elif key in FREE:
        assert resumed(stored, asked) == asked
    else:
        flag = "--" + key.replace("_", "-")
        expected = f"{flag} was {stored.flat()[key]}, now {OTHER_VALUES[key]}"
        with pytest.raises(UserError, match=re.escape(expected)) as error:
            resumed(stored, asked)
        assert str(error.value).count(" was ") == 1
        assert stored.run.run_dir in str(error.value)


def test_all_differences_are_named_at_once():
    with pytest.raises(UserError, match=r"--batch-size was .*--net was .*--seed was "):
        resumed(Config(), Config.of(net="vgg_16", batch_size=1, seed=1, total_steps=5))


def test_another_net_brings_its_own_pictures():
    assert parse_command_line(["folder", "--net", "vgg_16"]).input.image_size is None
    assert parse_command_line(["folder", "--net=vgg_16", "--image-size", "96"]).input.image_size == 96
    assert parse_command_line(["folder"]).input.image_size == 64
    resolved = resolve(parse_command_line(["folder", "--net", "vgg_16"]))
    assert (resolved.input.image_size, resolved.input.preprocessing) == (224, "vgg")
    assert resolved.regularization.weight_decay == 5e-4


def test_the_presets_own_net_keeps_its_pictures_when_it_is_named():
    assert parse_command_line(["digits", "--net", "preact_resnet_20"]) == PRESETS["digits"]
    assert parse_command_line(["cifar10_preact20", "--schedule", "step"]) == PRESETS["cifar10_preact20"]
    other = parse_command_line(["digits", "--net", "preact_resnet_56", "--image-size", "8"])
    assert (other.input.image_size, other.input.preprocessing) == (8, None)  # given; dropped


def test_epochs_become_steps_once():
    asked = Config.of(
        batch_size=64,
        total_epochs=30,
        warmup_epochs=0.5,
        schedule="step",
        decay_at_epochs=(10, 20.5),
        validate_every_epochs=1,
        snapshot_every_epochs=0.001,
    )
    resolve(asked)
    steps = in_steps(asked, 1259)
    assert (steps.schedule.total_steps, steps.schedule.warmup_steps) == (590, 10)
    assert steps.schedule.decay_at_steps == (197, 403)
    assert (steps.reporting.validate_every_steps, steps.reporting.snapshot_every_steps) == (20, 1)
    two = in_steps(Config.of(total_epochs=6, validate_every_epochs=2), 1259)  # 118 and 39.3
    assert (two.schedule.total_steps, two.reporting.validate_every_steps) == (118, 40)
    assert in_steps(steps, 77) == steps  # and not again
    assert {steps.flat()[f"{name}_epochs"] or None for name in config.DURATIONS} == {None}
    half = asked.replace(train_examples=630)
    assert in_steps(half, 1259).schedule.total_steps == round(30 * 630 / 64)
    assert in_steps(asked.replace(overfit_batches=2), 1259).schedule.total_steps == 60
    with pytest.raises(UserError, match=r"--warmup-steps is 20 .* below the 20 steps"):
        in_steps(Config.of(total_epochs=1, warmup_epochs=1), 1259)
    with pytest.raises(UserError, match="falls on the steps"):
        in_steps(Config.of(schedule="step", decay_at_epochs=(1, 1.001)), 1259)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("decay_at_steps", (1, "x")), ("decay_at_steps", (1, None)), ("train_only", ("logits", 3))),
        *(("total_steps", True), ("learning_rate", True), ("seed", False)),
    ],
)
def test_every_element_has_the_type_and_a_bool_is_no_number(key, value):
    with pytest.raises(UserError, match=f"--{key.replace('_', '-')} is .*which it cannot be"):
        resolve(Config.of(**{key: value}, schedule="step"))


def test_steps_replace_a_preset_in_epochs():
    asked = PRESETS["flowers_alexnet"].replace(total_steps=20, warmup_steps=2)
    assert in_steps(asked, 1100).schedule.total_steps == 20
    never = in_steps(Config.of(validate_every_epochs=1e9, snapshot_every_epochs=1e9), 1259)
    resolve(never)  # what is stored can be read again
    assert never.reporting.validate_every_steps == never.reporting.snapshot_every_steps == config.MOST_STEPS


def test_a_duration_is_given_in_one_unit():
    with pytest.raises(UserError, match="--total-steps and --total-epochs are the same duration"):
        parse_command_line(["--total-steps", "5", "--total_epochs=3"])
    assert parse_command_line(["--total-epochs", "3"]).schedule.total_epochs == 3
    with pytest.raises(UserError, match="a duration comes to 19,671,875,000 steps; at most"):
        in_steps(Config.of(total_epochs=1e9), 1259)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_only": ("a",), "freeze": ("b",)}, "--train-only and --freeze"),
        ({"batch_norm_updates": "none"}, "needs moving averages from a checkpoint; add --init-from"),
        ({"best_metric": "ema_loss"}, "--best-metric ema_loss needs --ema-decay"),
        ({"overfit_batches": 1, "train_examples": 5}, "--overfit-batches and --train-examples"),
        (
            {"nesterov": True, "optimizer": "adam"},
            "--nesterov belongs to --optimizer momentum, but the optimizer is adam",
        ),
        ({"end_learning_rate": 0.01, "schedule": "step", "decay_at_steps": (5,)}, "cosine or polynomial"),
    ],
)
def test_settings_that_do_not_go_together(settings, message):
    with pytest.raises(UserError, match=message):
        resolve(Config.of(**settings))


def places(record):
    hints = get_type_hints(record, include_extras=True)
    return {key for key, hint in hints.items() if config.PLACE in getattr(hint, "__metadata__", ())}


def test_every_option_that_is_a_path_takes_a_tilde(monkeypatch):
    """Which the shell leaves in --out=~/data, and a directory called ~ would be made."""
    monkeypatch.setenv("HOME", "/home/me")
    found = set().union(*map(places, [*config.TOPICS.values(), EvalOptions, PredictOptions, ExportOptions]))
    assert found == {
        *("source", "data", "init_from", "run_dir", "ckpt"),
        *("per_image", "confusion", "mistakes", "csv", "sheet", "explain", "out"),
    }
    asked = parse_command_line(["folder", "--data=~/data", "--run-dir=~/runs/a", "--init-from", "~/b", "--source", "~"])
    paths = [asked.flat()[key] for key in ("data", "run_dir", "init_from", "source")]
    assert paths == ["/home/me/data", "/home/me/runs/a", "/home/me/b", "/home/me"]
    assert Config.of(data="~/data").input.data == "/home/me/data"
    assert ExportOptions("~/run", format="onnx", out="~/out").out == "/home/me/out"
    with pytest.raises(UserError, match="--ckpt /home/me/run does not exist"):
        Classifier.load("~/run")
