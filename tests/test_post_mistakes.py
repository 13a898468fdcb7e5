"""examples/post_mistakes.py: the mistakes have the effects that docs/what-the-posts-got-wrong.md describes."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow
SCRIPT = pathlib.Path(__file__).resolve().parent.parent / "examples/post_mistakes.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("post_mistakes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_after_a_caught_error_the_net_is_not_trained(example):
    measures = example.bare_except(seed=0, steps=60)
    right, wrong = measures["steps"]
    assert right == 60
    assert wrong < 23  # the broken file is read in the first epoch
    right, wrong = measures["accuracy of the checkpoint"]
    assert right > 90
    assert wrong < right - 20


def test_without_updates_of_moving_averages_only_the_evaluation_fails(example):
    measures = example.batch_norm_updates(seed=0, steps=60)
    right, wrong = measures["is_training=False"]
    assert right > 90
    assert wrong < right - 5
    right, wrong = measures["is_training=True"]
    assert wrong == pytest.approx(right, abs=2)


def test_the_command_prints_a_table(tmp_path):
    command = [sys.executable, SCRIPT, "unflattened", "--seeds", "1", "--steps", "30"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.strip().splitlines()
    assert header.split() == ["unflattened", "right", "wrong"]
    assert [row.split(":")[0].strip() for row in rows] == ["averaged over places"] * 2 + ["pooled to [N, 1, 1, 32]"] * 2
    # Median (lowest to highest), once for each side: a loss broadcast over all labels stays near ln 10.
    assert float(rows[3].split()[-4]) > 2.2


def test_an_unknown_mistake_is_an_error(example, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["post_mistakes.py", "softmax"])
    with pytest.raises(SystemExit, match="2"):
        example.main()
    assert "unknown mistake 'softmax'; known are softmax_twice, batch_norm_updates" in capsys.readouterr().err
