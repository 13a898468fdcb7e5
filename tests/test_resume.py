"""A run that is killed and started again is the same run, bit for bit."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.kill_and_resume import differences, run_killed
from errors import UserError
from tiny_net import configured, tensors, train

DRIVER = pathlib.Path(__file__).parent / "tiny_net.py"


def run_driver(*arguments):
    return subprocess.run([sys.executable, str(DRIVER), *map(str, arguments)], capture_output=True, text=True)


def rows(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in lines:
        row.pop("images_per_second", None)
    return lines


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, digits_data):
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert train(configured("--run-dir", str(run), "--data", digits_data)) == 0
    return run


def test_a_killed_run_ends_with_the_same_bits(uninterrupted, digits_data, tmp_path):
    run = tmp_path / "run"
    place = ("--run-dir", run, "--data", digits_data)
    killed = run_driver("--signal", "SIGKILL", "--at-step", 17, *place)
    assert killed.returncode == -signal.SIGKILL
    assert not (run / "model.ckpt-20.index").exists()

    stopped = run_driver("--signal", "SIGTERM", "--at-step", 9, *place)
    assert stopped.returncode == 143, stopped.stderr
    assert f"resuming {run} from {run / 'best/model.ckpt-15'}, step 15 of 40" in stopped.stdout
    assert (run / "model.ckpt-24.index").exists()

    # What a killed process may leave: half a line, half a save, rows of steps that will come again.
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 25, "split": "train", "loss": 9.0}\n{"step": 26, "spl')
    orphan = run / "model.ckpt-30.data-00000-of-00001.tempstate123"
    orphan.write_bytes(b"x")

    finished = run_driver(*place)
    assert finished.returncode == 0, finished.stderr
    assert f"from {run / 'model.ckpt-24'}" in finished.stdout
    assert not orphan.exists()

    expected, got = tensors(uninterrupted / "model.ckpt-40"), tensors(run / "model.ckpt-40")
    assert len(expected) > 15  # weights, moving averages and Adam's slots
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(value, got[name], err_msg=name, strict=True)
    validations = [[row for row in rows(r) if row["split"] == "validation"] for r in (uninterrupted, run)]
    assert [row["step"] for row in validations[0]] == [15, 30, 40]
    assert validations[0] == validations[1]
    assert os.listdir(uninterrupted / "best") == os.listdir(run / "best")


def test_kills_at_random_moments_and_in_saves(digits_data, tmp_path):
    """benchmarks/kill_and_resume.py does it 50 times, with a real net."""
    settings = ("--optimizer", "momentum", "--ema-decay", "0.9", "--total-steps", "300", "--snapshot-every-steps", "3")
    settings += ("--display-every-steps", "3", "--validate-every-steps", "100", "--data", digits_data)
    assert train(configured(*settings, "--run-dir", str(tmp_path / "never killed"))) == 0
    command = [sys.executable, str(DRIVER), *settings, "--run-dir", str(tmp_path / "killed")]
    done = run_killed(command, tmp_path / "killed", 4, 0.3, random.Random(0))
    assert done["kills"] == 4
    assert done["in a save"] >= 2
    assert differences(tmp_path / "never killed", tmp_path / "killed") == []
    assert not list((tmp_path / "killed").glob("*tempstate*"))
    assert len(list((tmp_path / "killed").glob("*.index"))) == 3
    assert differences(tmp_path / "never killed", tmp_path / "never killed") == []


def test_another_seed_gives_other_bits(uninterrupted, digits_data, tmp_path):
    place = ("--run-dir", str(tmp_path / "run"), "--data", digits_data)
    assert train(configured(*place, "--seed", "1", "--total-steps", "10")) == 0
    ours, theirs = tensors(tmp_path / "run" / "model.ckpt-10"), tensors(uninterrupted / "model.ckpt-20")
    assert not np.array_equal(ours["tiny/Conv/weights"], theirs["tiny/Conv/weights"])


def test_a_run_of_damaged_checkpoints_is_not_started_over(uninterrupted, digits_data, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text((uninterrupted / "config.json").read_text())
    (run / "model.ckpt-20.data-00000-of-00001").write_bytes(b"")
    with pytest.raises(UserError, match="none of the 1 checkpoints") as failure:
        train(configured("--run-dir", str(run), "--data", digits_data))
    assert failure.value.exit_code == 2
    assert sorted(os.listdir(run)) == ["config.json", "model.ckpt-20.data-00000-of-00001"]
