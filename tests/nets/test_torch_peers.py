"""torchvision's and timm's weights in our nets: equal logits on equal pictures, from .safetensors and .pth.

    SLIMGRAPH_TORCH_PYTHON=/path/to/python pytest tests/nets/test_torch_peers.py -m slow

names an interpreter with torch, torchvision, timm and safetensors (pip install them into an environment of its own).
"""

import functools
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from nets import NETS
from nets.weights.torch_files import import_torch
from tfcompat import tf

PYTHON = os.environ.get("SLIMGRAPH_TORCH_PYTHON", sys.executable)
ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(__file__).with_name("torch_models.py")
# torch is imported into the process of TensorFlow, behind whose own packages it is looked for.
IMPORT = """
import runpy, sys
sys.path.append(sys.argv.pop(1))
runpy.run_module("nets.weights", run_name="__main__", alter_sys=True)
"""
OTHERS = """
import argparse, os, sys, torch
os.chdir(sys.argv[1])
state = torch.load("weights.pth", weights_only=True)["state_dict"]
averaged = {**state, "module.fc.bias": torch.arange(10.0)}
training = {"args": argparse.Namespace(lr=0.1), "state_dict": state, "state_dict_ema": averaged, "optimizer": {}}
torch.save(training, "timm.pth.tar")
torch.save(torch.zeros(1), "tensor.pth")
torch.save({"conv1.weight": torch.zeros(1).expand(2**30)}, "bomb.pth")
torch.save(state, "old.pth", _use_new_zipfile_serialization=False)
class Evil:
    def __reduce__(self):
        return os.mkdir, ("made",)
torch.save({"a": Evil()}, "evil.pth")
torch.save({"a": Evil()}, "old_evil.pth", _use_new_zipfile_serialization=False)
"""


@functools.cache
def place_of_torch():
    """Where the interpreter has torch; skips the test if it or the others are not there."""
    program = (
        "import torch, torchvision, timm, safetensors, os; print(os.path.dirname(os.path.dirname(torch.__file__)))"
    )
    done = subprocess.run([PYTHON, "-c", program], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{PYTHON} has no torch, torchvision, timm and safetensors; set SLIMGRAPH_TORCH_PYTHON")
    return done.stdout.strip()


def built(directory, net, is_training, pictures):
    """Our logits of the imported checkpoint, for pictures [N, 3, H, W]."""
    with tf.Graph().as_default(), tf.Session() as session:
        logits, _ = NETS[net].build(tf.constant(pictures.transpose(0, 2, 3, 1)), 10, is_training, 0.0)
        tf.train.Saver(tf.global_variables()).restore(session, f"{directory}/model.ckpt-0")
        return session.run(logits)


def assert_equal(ours, theirs):
    assert theirs.std(0).max() > 1e-3 * np.abs(theirs).max()  # the pictures differ
    difference = np.abs(ours - theirs).max() / np.abs(theirs).max()
    print(f"largest difference {difference:.1e} of the largest logit")
    assert difference < 1e-4


MODELS = [
    ("torchvision", "resnet18", "resnet_v1_18", 96),
    ("timm", "resnet18", "resnet_v1_18", 97),
    ("torchvision", "resnet34", "resnet_v1_34", 96),
    ("timm", "resnet34", "resnet_v1_34", 96),
    ("timm", "resnetv2_18", "resnet_v2_18", 97),
    ("timm", "resnetv2_34", "resnet_v2_34", 96),
    ("torchvision", "densenet121", "densenet_121", 96),
    ("timm", "densenet121", "densenet_121", 96),
    ("torchvision", "vgg11", "vgg_11", 224),
    ("timm", "vgg11", "vgg_11", 224),
    ("torchvision", "vgg16", "vgg_16", 224),
]


@pytest.mark.slow
@pytest.mark.parametrize(("library", "model", "net", "size"), MODELS, ids=[f"{m[0]}-{m[1]}" for m in MODELS])
def test_logits_equal(tmp_path, library, model, net, size):
    place_of_torch()
    is_vgg = net.startswith("vgg")
    pictures = np.random.default_rng(1).normal(0, 1, (2 if is_vgg else 4, 3, size, size)).astype(np.float32)
    np.save(tmp_path / "pictures.npy", pictures)
    half = ["half"] if library == "timm" and not is_vgg else []
    subprocess.run([PYTHON, PROGRAM, tmp_path, library, model, *half], check=True, timeout=300)
    lines = import_torch(tmp_path / "weights.safetensors", net, tmp_path / "imported")
    assert lines == (["converted from bfloat16 to float32"] if half else [])
    assert_equal(built(tmp_path / "imported", net, False, pictures), np.load(tmp_path / "evaluation.npy"))
    if not is_vgg:
        assert_equal(built(tmp_path / "imported", net, True, pictures), np.load(tmp_path / "training.npy"))
    remove_files(tmp_path)


@pytest.mark.slow
def test_files_of_pytorch(tmp_path):
    place = place_of_torch()
    np.save(tmp_path / "pictures.npy", np.zeros((2, 3, 64, 64), np.float32))
    subprocess.run([PYTHON, PROGRAM, tmp_path, "torchvision", "resnet18"], check=True, timeout=300)
    subprocess.run([PYTHON, "-c", OTHERS, tmp_path], check=True, timeout=300)

    def imported(name):
        options = ["import", tmp_path / name, "--net", "resnet_v1_18", "--out", tmp_path / f"{name}.out"]
        command = [sys.executable, "-c", IMPORT, place, *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        return done.returncode, done.stdout or done.stderr.splitlines()[-1]

    import_torch(tmp_path / "weights.safetensors", "resnet_v1_18", tmp_path / "safetensors.out")
    expected = every_value(tmp_path / "safetensors.out")
    averaged = expected | {"resnet_v1_18/logits/biases": np.arange(10)}
    for name, line, values in (
        ("weights.pth", "the weights under state_dict are used\n", expected),
        ("old.pth", "", expected),
        ("timm.pth.tar", "the weights under state_dict_ema are used; state_dict are not\n", averaged),
    ):
        code, output = imported(name)
        assert (code, output.partition(f"{tmp_path}")[0]) == (0, line), output
        found = every_value(tmp_path / f"{name}.out")
        assert found.keys() == values.keys()
        assert [variable for variable in found if not np.array_equal(found[variable], values[variable])] == []
    for name, message in (
        ("tensor.pth", "it holds a Tensor, and no dict of arrays"),
        ("bomb.pth", "its arrays take 4.0 GiB; at most 2 GiB are read"),
        ("evil.pth", "it would run posix.mkdir); save the weights alone"),
        ("old_evil.pth", "it would run posix.mkdir); save the weights alone"),
    ):
        code, output = imported(name)
        assert code == 2, output
        assert message in output
        assert not (tmp_path / f"{name}.out").exists()
    assert not list(ROOT.glob("made"))
    remove_files(tmp_path)


def every_value(directory):
    reader = tf.train.NewCheckpointReader(f"{directory}/model.ckpt-0")
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def remove_files(directory):
    """Removes large files: pytest keeps the directories of its last three runs."""
    for path in directory.rglob("*"):
        if path.is_file():
            path.unlink()
