"""A batch in parts gives the update of the whole batch, in the same order, and resumes with the same bits."""

import itertools
import json
import pathlib
import shutil
import signal
import struct
import subprocess
import sys

import numpy as np
import pytest

import train as training
from engine.accumulation import Parts
from errors import UserError
from nets import NETS, Net
from pipeline.batches import training_rows
from pipeline.dataset import Dataset
from pipeline.tfrecord import masked_crc
from tfcompat import slim, tf
from tiny_net import configured, tensors, tiny_arg_scope, train

DRIVER = pathlib.Path(__file__).parent / "tiny_net.py"


def plain(inputs, num_classes, is_training, scope):
    """Neither batch norm nor dropout, for which the parts of a batch are not the batch."""
    with tf.variable_scope(scope, "plain", [inputs]):
        net = slim.flatten(slim.conv2d(inputs, 4, 3))
        return slim.fully_connected(net, num_classes, activation_fn=None, scope="logits"), {}


@pytest.fixture(autouse=True)
def plain_net(monkeypatch):
    record = {"heads": ("logits",), "preprocessing": "digits", "weight_decay": 1e-3, "image_size": 8}
    monkeypatch.setitem(NETS, "plain", Net(function=plain, arg_scope=tiny_arg_scope, scope="plain", **record))


def run_plain(directory, data, parts, *args):
    place = ("--net", "plain", "--run-dir", str(directory), "--data", data, "--accumulate-steps", str(parts))
    assert train(configured(*place, "--total-steps", "20", "--validate-every-steps", "20", *args)) == 0
    return tensors(directory / "model.ckpt-20")


def rows_of(run, split):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["split"] == split]


@pytest.mark.parametrize(
    "rule",
    [
        ("--optimizer", "momentum", "--clip-norm", "0.5", "--ema-decay", "0.9", "--decay-biases"),
        ("--optimizer", "adamw", "--weight-decay", "0.1", "--optimizer-epsilon", "1e-3"),
    ],
)
def test_parts_give_the_update_of_the_batch(tmp_path, digits_data, rule):
    whole = run_plain(tmp_path / "whole", digits_data, 1, *rule)
    for parts in 2, 4:
        run = tmp_path / f"in {parts}"
        values = run_plain(run, digits_data, parts, *rule)
        assert values.keys() == whole.keys()  # the sums are in no checkpoint
        assert values["global_step"] == 20
        for name, value in whole.items():
            np.testing.assert_allclose(values[name], value, rtol=0, atol=1e-5 * np.abs(value).max(), err_msg=name)
        for split in ("train", "validation"):
            for one, other in zip(rows_of(tmp_path / "whole", split), rows_of(run, split), strict=True):
                assert one["step"] == other["step"]
                assert one["top1"] == pytest.approx(other["top1"], abs=1e-6)
                assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


def test_parts_are_those_of_the_batch_in_its_order(tmp_path, digits_data, monkeypatch):
    seen = {1: [], 4: []}
    build = training.build

    for count, rows in seen.items():

        def noting(plan, initial=None, rows=rows):
            model = build(plan, initial)
            attempt, reads = model.training.attempt, model.training.batches.rows

            def read(session, call, step):
                # The rows that the call reads, in the same session.run.
                fetches, *fed = call.args
                values = attempt(session, lambda: call.func({**fetches, "rows": reads}, *fed), step)
                rows.append(values.pop("rows").tolist())
                return values

            model.training.attempt = read
            return model

        monkeypatch.setattr(training, "build", noting)
        run_plain(tmp_path / str(count), digits_data, count)
    assert [len(part) for part in seen[4]] == [8] * 80
    in_order = [list(itertools.chain(*rows)) for rows in seen.values()]
    assert in_order[0] == in_order[1]


def test_a_killed_run_in_parts_ends_with_the_same_bits(tmp_path, digits_data):
    """The net has batch norm and dropout; the kill comes between two saves."""
    options = ("--data", digits_data, "--accumulate-steps", "2", "--total-steps", "24")
    assert train(configured("--run-dir", str(tmp_path / "whole"), *options)) == 0
    place = ("--run-dir", str(tmp_path / "killed"), *options)
    killed = subprocess.run([sys.executable, DRIVER, "--signal", "SIGKILL", "--at-step", "13", *place], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert train(configured(*place)) == 0
    whole, again = (tensors(tmp_path / run / "model.ckpt-24") for run in ("whole", "killed"))
    assert whole.keys() == again.keys()
    assert all(np.array_equal(whole[name], again[name]) for name in whole)
    other = train(configured("--run-dir", str(tmp_path / "one"), "--data", digits_data, "--total-steps", "24"))
    assert other == 0
    one = tensors(tmp_path / "one" / "model.ckpt-24")
    assert not np.array_equal(one["tiny/logits/weights"], whole["tiny/logits/weights"])  # batch norm sees the parts


def test_a_corrupt_record_in_a_part_is_replaced(tmp_path, digits_data, capsys):
    """It is found when its part is read: this part runs again, and those before it count once."""
    data = tmp_path / "data"
    shutil.copytree(digits_data, data)
    index = Dataset.load(str(data)).index("train")
    # The 13th record that the run reads: in the second of four parts of the first batch.
    path, offset = index.place(int(training_rows(len(index.offsets), 0, 12, 1)[0]))
    content = bytearray(pathlib.Path(path).read_bytes())
    (size,) = struct.unpack_from("<Q", content, offset)
    payload = content[offset + 12 : offset + 12 + size]
    payload[payload.index(b"IDAT") + 5] ^= 255
    content[offset + 12 : offset + 16 + size] = payload + struct.pack("<I", masked_crc(bytes(payload)))
    pathlib.Path(path).write_bytes(content)
    values = {}
    for parts in 1, 4:
        own = tmp_path / f"data of {parts}"
        shutil.copytree(data, own)
        values[parts] = run_plain(tmp_path / str(parts), str(own), parts, "--on-error", "skip")
        assert "1 of 1259 training records are corrupt and were replaced" in capsys.readouterr().out
    for name, value in values[1].items():
        np.testing.assert_allclose(values[4][name], value, rtol=0, atol=1e-5 * np.abs(value).max(), err_msg=name)


def test_gradients_are_added_and_updates_run_in_every_part():
    with tf.Graph().as_default(), tf.Session() as session:
        parts, value, updated = Parts(4), tf.placeholder(tf.float32, [2]), tf.Variable(0)
        (mean,) = parts.mean([value], [updated.assign_add(1).op])
        session.run(updated.initializer)  # the sums need none
        for _ in range(2):  # the second batch starts anew
            for number, part in enumerate([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]):
                session.run(parts.add[min(number, 1)], {value: part})
            assert session.run(mean, {value: [7.0, 0.0]}).tolist() == [4.0, 3.0]
        assert session.run(updated) == 6
        assert [tf.global_variables(), len(tf.local_variables())] == [[updated], 1]


def test_random_draws_differ_in_each_part():
    with tf.Graph().as_default(), tf.Session() as session:
        parts, key = Parts(3), tf.constant([7, 2])
        keys = [session.run(parts.key(key), parts.feed(number)).tolist() for number in range(3)]
        assert len({tuple(key) for key in keys}) == 3
        assert session.run(Parts(1).key(key), Parts(1).feed(0)).tolist() == [7, 2]  # as before there were parts


def test_a_batch_has_equal_parts(tmp_path):
    with pytest.raises(UserError, match="--accumulate-steps 5 cannot divide a batch of 32 into equal parts"):
        train(configured("--accumulate-steps", "5", "--run-dir", str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()
