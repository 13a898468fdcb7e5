"""As many records as ImageNet: starting takes seconds and little memory, at any step."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline import tfrecord
from pipeline.images import encode_png

ROOT = Path(__file__).resolve().parents[2]
RECORDS, SHARDS = 1_281_167, 16
SCRIPT = """
import json, resource, sys, time
from pipeline.batches import training_batches
from pipeline.dataset import Dataset
from pipeline.preprocess import Preprocessor
from tfcompat import tf

def used():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6

dataset = Dataset.load(sys.argv[1])
with tf.Session() as session:  # excludes the memory of a session itself
    session.run(tf.reduce_sum(tf.zeros([8, 8])))
before, began = used(), time.perf_counter()
batches = training_batches(dataset.index("train"), Preprocessor("unit", 4, 1), 64, 0)
with tf.Session() as session:
    batches.start(session, int(sys.argv[2]))
    session.run(batches.images)
    print(json.dumps({"seconds": time.perf_counter() - began, "MB": used() - before}))
"""


def start(directory, step):
    command = [sys.executable, "-c", SCRIPT, str(directory), str(step)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_starting_on_1_281_167_records_takes_seconds_at_any_step(tmp_path):
    image = encode_png(np.zeros((4, 4), np.uint8))
    payload = tfrecord.serialize(image, 0, "a", "a.png")
    frame, shards, left = tfrecord.framed(payload), [], RECORDS
    for i in range(SHARDS):
        count = left // (SHARDS - i)
        left -= count
        (tmp_path / f"train-{i}").write_bytes(frame * count)
        shards.append({"file": f"train-{i}", "examples": count})
    splits = {"train": {"examples": RECORDS, "shards": shards}}
    dataset = {"class_names": ["a", "b"], "channels": 1, "splits": splits, "statistics": None}
    (tmp_path / "dataset.json").write_text(json.dumps(dataset))
    first = start(tmp_path, 0)  # reads all shards
    costs = {step: start(tmp_path, step) for step in (0, 1, 1_000_000, 10**9)}
    print(f"first {first}, then {costs}")
    assert max(cost["seconds"] for cost in costs.values()) < 5
    assert max(cost["MB"] for cost in costs.values()) < 200
