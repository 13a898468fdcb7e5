"""`pip install .` installs tfcompat, what it needs, and the command tfcompat; nothing else of this project."""

import email
import pathlib
import re
import subprocess
import sys
import sysconfig
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
OLD_SCRIPT = """\
import numpy as np
import tensorflow as tf
slim = tf.contrib.slim
tf.set_random_seed(1)
images = tf.constant(np.random.RandomState(0).rand(8, 8, 8, 1), tf.float32)
with slim.arg_scope([slim.conv2d], normalizer_fn=slim.batch_norm, normalizer_params={'is_training': True}):
    net = slim.flatten(slim.repeat(images, 2, slim.conv2d, 4, [3, 3], scope='conv'))
logits = slim.fully_connected(net, 2, activation_fn=None)
loss = tf.losses.sparse_softmax_cross_entropy([0, 1] * 4, logits)
train_op = slim.learning.create_train_op(loss, tf.train.MomentumOptimizer(0.1, 0.9))
with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for step in range(20):
        value = session.run(train_op)
print(sorted(v.op.name for v in slim.get_model_variables())[0], value < 0.1)
"""


PRINTED = "conv/conv_1/BatchNorm/beta True\n"


def run(*command, cwd):
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", *(f"tfcompat/{path.name}" for path in (ROOT / "tfcompat").glob("*.py"))):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", out, source, cwd=out)
    (made,) = out.glob("*.whl")
    return made


def test_the_wheel_holds_tfcompat_alone_and_names_its_requirements(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("METADATA"))
    own = {path.name for path in (ROOT / "tfcompat").glob("*.py")}
    assert {name for name in names if ".dist-info/" not in name} == {f"tfcompat/{name}" for name in own}
    needed = email.message_from_string(metadata).get_all("Requires-Dist")
    assert {re.split("[=>]", line)[0] for line in needed} == {"tensorflow", "tf-slim", "tf-keras", "numpy", "pooch"}
    pinned = (ROOT / "requirements.txt").read_text()
    assert all(line in pinned for line in needed if "==" in line)  # both install the same
    assert wheel.stat().st_size < 100_000


def in_new_environment(wheel, tmp_path, *, packages):
    """What the old script prints, run by the installed command from a directory that has only the script."""
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv/bin/python"
    if packages == "of this environment":
        site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
        pathlib.Path(site, "more.pth").write_text(sysconfig.get_path("purelib") + "\n")
    options = [] if packages == "its own" else ["--no-deps"]
    run(python, "-m", "pip", "install", "--quiet", *options, wheel, cwd=tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/old.py").write_text(OLD_SCRIPT)
    return run(tmp_path / "venv/bin/tfcompat", "old.py", cwd=tmp_path / "elsewhere")


def test_the_installed_command_runs_an_old_script(wheel, tmp_path):
    assert in_new_environment(wheel, tmp_path, packages="of this environment") == PRINTED


@pytest.mark.slow
def test_the_wheel_brings_all_that_an_old_script_needs(wheel, tmp_path):
    assert in_new_environment(wheel, tmp_path, packages="its own") == PRINTED
