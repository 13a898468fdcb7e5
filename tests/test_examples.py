"""The examples run with the commands in their pages, and print the figures in the pages."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor

from errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/residual-learning.md").read_text()


def run(script, directory, *arguments, timeout=60):
    command = [sys.executable, str(ROOT / "examples" / script), *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=timeout)


def is_picture(path):
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size < 80_000


def test_boosting_prints_the_table_of_the_page(tmp_path):
    done = run("residual_boosting.py", tmp_path)
    assert done.returncode == 0, done.stderr
    table, rest = done.stdout.split("largest difference between the predictions: ")
    assert table.count("\n") == 5
    assert f"```text\n{table}" in PAGE
    difference, wrote = rest.splitlines()
    assert float(difference) < 1e-12
    assert wrote == "wrote residual_boosting.png"
    assert is_picture(tmp_path / "residual_boosting.png")


def test_the_trees_are_those_of_gradient_boosting():
    from examples.residual_boosting import boosted, predictions

    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 2))
    y = x[:, 0] * x[:, 1] + rng.normal(size=200)
    theirs = GradientBoostingRegressor(n_estimators=3, max_depth=2, learning_rate=1.0, random_state=0).fit(x, y)
    new = rng.normal(size=(500, 2))
    ours = predictions(*boosted(x, y), new)
    np.testing.assert_allclose(ours[1:], list(theirs.staged_predict(new)), rtol=0, atol=1e-12)


def test_a_path_that_cannot_be_written_is_an_error_before_the_work(tmp_path):
    done = run("residual_boosting.py", tmp_path, "--out", "nowhere/a.png")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "error: --out nowhere/a.png must be a .png in a directory that is there\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "nowhere/a.png"], "--out nowhere/a.png must be a .png"),
        (["--steps", "1", "1"], r"--steps is \[1, 1\]; it must ascend"),
        (["--steps", "-1", "1"], r"--steps is \[-1, 1\]; it must ascend, from 0"),
    ],
)
def test_bad_arguments_are_errors(arguments, message, monkeypatch):
    from examples import gradient_norms

    monkeypatch.setattr(sys, "argv", ["gradient_norms.py", *arguments])
    with pytest.raises(UserError, match=message):
        gradient_norms.main()


def test_gradient_norms_of_every_layer(digits_data, monkeypatch):
    from examples import gradient_norms

    monkeypatch.setattr(gradient_norms, "BATCH_SIZE", 8)
    before, after = gradient_norms.measure("preact_resnet_20", digits_data, steps=[0, 1], learning_rate=0.1, seed=0)
    for measured in (before, after):
        assert measured.gradients.shape == measured.kernels.shape == (20,)
        assert np.all(measured.gradients > 0)
    assert not np.allclose(before.gradients, after.gradients)
    assert not np.allclose(before.kernels, after.kernels)


@pytest.mark.slow
def test_gradient_norms_are_drawn(tmp_path):
    done = run("gradient_norms.py", tmp_path, "--depth", "20", "--steps", "0", "1", timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("preact_resnet_20") == done.stdout.count("plain_20") == 2
    assert is_picture(tmp_path / "gradient_norms.png")
    assert (tmp_path / "data/digits/dataset.json").exists()
