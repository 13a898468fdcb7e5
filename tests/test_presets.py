"""Every preset names what exists, and trains."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

import train as training
from config import Config
from errors import UserError
from nets import NETS
from nets.weights import write_checkpoint
from nets.weights.published import PUBLISHED
from pipeline.convert import SOURCES, convert
from presets import PRESETS, parse_command_line
from run_directory import in_steps, prepare, resolve
from tfcompat import tf
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
    network, net = preset.network, NETS[preset.network.net]
    assert preset.input.dataset in SOURCES
    assert resolve(preset).input.image_size >= net.smallest_size
    if network.init_from:
        assert NETS[PUBLISHED[network.init_from].net].scope == net.scope
    for scope in (*network.train_only, *network.freeze):
        assert any(variable.startswith(f"{net.scope}/{scope}/") for variable in net.variable_shapes(5))


@pytest.mark.parametrize("name", PRESETS)
def test_it_validates_and_saves_before_its_end(name):
    """With as many training pictures as the whole of its data set has, too."""
    preset, pictures = PRESETS[name], 25_000 if name.startswith("catsdogs") else 3_000
    resolved = in_steps(resolve(preset), pictures)
    assert resolved.reporting.validate_every_steps < resolved.schedule.total_steps
    assert resolved.reporting.snapshot_every_steps < resolved.schedule.total_steps


def test_they_lie_apart():
    assert len({preset.run.run_dir for preset in PRESETS.values()}) == len(PRESETS)
    places = {(resolve(preset).input.data, preset.input.dataset) for preset in PRESETS.values()}
    sources = {("cats_dogs" if name.startswith("catsdogs") else PRESETS[name].input.dataset) for name in PRESETS}
    assert len({place for place, _ in places}) == len(places) == len(sources)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Shards of two classes of small pictures."""
    directory = tmp_path_factory.mktemp("data")
    convert("folder", str(directory / "shards"), str(picture_folder(directory / "pictures")))
    return str(directory / "shards")


def test_each_builds_with_a_tiny_net(pictures, tmp_path):
    """Optimizer, schedule, head and preprocessing of each; what several share is built once."""
    keys = ("optimizer", "momentum", "schedule", "decay_at_steps", "head", "preprocessing")
    small = {"dataset": "folder", "data": pictures, "net": "tiny", "image_size": 16, "batch_size": 4}
    small["run_dir"] = str(tmp_path / "run")
    for preset in {Config.of(**small, **{key: p.flat()[key] for key in keys}) for p in PRESETS.values()}:
        model = training.build(prepare(resolve(preset)))
        with model.graph.as_default():
            widths = [v.shape[-1] for v in tf.global_variables() if v.op.name == "tiny/logits/biases"]
        assert widths == [1 if preset.network.head == "sigmoid" else 2]


def test_another_schedule_drops_the_moments_of_the_presets_own():
    asked = parse_command_line(["cifar10_preact20", "--schedule", "cosine", "--total-epochs", "15"])
    resolve(asked)
    schedule = asked.schedule
    assert (schedule.decay_at_steps, schedule.schedule, schedule.total_epochs) == ((), "cosine", 15)
    assert parse_command_line(["cifar10_preact20"]).schedule.decay_at_steps == (32000, 48000)


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
    init = PRESETS[name].network.init_from
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
