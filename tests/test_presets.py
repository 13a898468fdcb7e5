"""Every preset names what exists, and trains."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

import config
import train as training
from errors import UserError
from nets import NETS
from nets.weights import write_checkpoint
from nets.weights.published import PUBLISHED
from pipeline.convert import convert
from pipeline.convert.sources import SOURCES
from pipeline.dataset import load_dataset
from pipeline.preprocess import PREPROCESSINGS
from presets import PRESETS, parse_command_line
from run_directory import in_steps
from tiny_net import picture_folder

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared/data"
RAW = {
    **{"mnist_alexnet": "mnist", "signs_resnet50": "signs", "preact_elu": "cifar10"},
    **{name: name.split("_")[0] for name in PRESETS if name.startswith(("flowers", "cifar10"))},
    **{name: "cats_dogs" for name in PRESETS if name.startswith("catsdogs")},
}


@pytest.mark.parametrize("name", PRESETS)
def test_it_names_what_exists(name):
    preset = PRESETS[name]
    config.validate(preset, NETS, PREPROCESSINGS)
    assert preset.dataset in SOURCES
    resolved = config.resolve(preset, NETS)
    assert resolved.image_size >= NETS[preset.net].smallest_size
    if preset.init_from:
        assert NETS[PUBLISHED[preset.init_from].net].scope == NETS[preset.net].scope
    for scope in (*preset.train_only, *preset.freeze):
        names = NETS[preset.net].variable_shapes(5)
        assert any(variable.startswith(f"{NETS[preset.net].scope}/{scope}/") for variable in names)


@pytest.mark.parametrize("name", PRESETS)
def test_it_validates_and_saves_before_its_end(name):
    """With as many training pictures as the whole of its data set has, too."""
    preset, pictures = PRESETS[name], 25_000 if name.startswith("catsdogs") else 3_000
    resolved = in_steps(config.resolve(preset, NETS), pictures)
    assert resolved.validate_every_steps < resolved.total_steps
    assert resolved.snapshot_every_steps < resolved.total_steps


def test_they_lie_apart():
    assert len({preset.run_dir for preset in PRESETS.values()}) == len(PRESETS)
    places = {(config.resolve(preset, NETS).data, preset.dataset) for preset in PRESETS.values()}
    sources = {("cats_dogs" if name.startswith("catsdogs") else PRESETS[name].dataset) for name in PRESETS}
    assert len({place for place, _ in places}) == len(places) == len(sources)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Shards of two classes of small pictures."""
    directory = tmp_path_factory.mktemp("data")
    convert("folder", str(directory / "shards"), str(picture_folder(directory / "pictures")))
    return str(directory / "shards")


def test_each_builds_with_a_tiny_net(pictures):
    """Optimizer, schedule, head and preprocessing of each; what several share is built once."""
    keys = ("optimizer", "momentum", "schedule", "decay_at_steps", "head", "preprocessing")
    small = {"dataset": "folder", "data": pictures, "net": "tiny", "image_size": 16, "batch_size": 4}
    dataset = load_dataset(pictures)
    for preset in {config.Config(**small, **{key: getattr(p, key) for key in keys}) for p in PRESETS.values()}:
        model = training.build(config.resolve(preset, NETS), dataset)
        assert [v.shape[-1] for v in model.variables if v.op.name == "tiny/logits/biases"] == [
            1 if preset.head == "sigmoid" else 2
        ]


def test_another_schedule_drops_the_moments_of_the_presets_own():
    asked = parse_command_line(["cifar10_preact20", "--schedule", "cosine", "--total-epochs", "15"])
    config.validate(asked, NETS, PREPROCESSINGS)
    assert (asked.decay_at_steps, asked.schedule, asked.total_epochs) == ((), "cosine", 15)
    assert parse_command_line(["cifar10_preact20"]).decay_at_steps == (32000, 48000)


@pytest.mark.parametrize("key", ["source", "data", "run-dir"])
def test_a_directory_without_a_name_is_not_the_default(key):
    with pytest.raises(UserError, match=f"--{key} '' names no directory") as caught:
        parse_command_line(["mnist_alexnet", f"--{key}", ""])
    assert caught.value.exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", RAW)
def test_a_dry_run_on_the_real_data(name, tmp_path):
    source = DATA / RAW[name]
    if not source.is_dir():
        pytest.skip(f"{source} is missing")
    command = [sys.executable, "train.py", name, "--source", str(source), "--data", str(tmp_path / "data")]
    command += ["--dry-run", "--precision", "bf16"]
    init = PRESETS[name].init_from
    if init:
        prefix = tmp_path / "weights/model.ckpt-0"
        random_weights(init, prefix)
        command += ["--init-from", str(prefix)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "nothing is left behind" in done.stdout


def random_weights(name, prefix):
    """A checkpoint of the shapes that the published one has, with random values."""
    net, rng = NETS[PUBLISHED[name].net], np.random.default_rng(0)
    prefix.parent.mkdir()
    shapes = net.variable_shapes(1000 + net.label_offset)
    values = {n: rng.normal(0, 0.01, s).astype(np.float32) for n, s in shapes.items()}
    # a variance is not negative
    write_checkpoint({n: np.abs(v) if n.endswith("moving_variance") else v for n, v in values.items()}, prefix)
