"""Checkpoints: durable saves, pruning, damaged files, comparison with the variables of a graph."""

import gzip
import io
import os
import pathlib
import pickle
import tarfile
import zipfile

import numpy as np
import pytest

from checkpoints import CheckpointDirectory, check_restorable, compare, foreign, locate, newest_valid, step_of
from errors import UserError
from tfcompat import tf


@pytest.fixture
def graph():
    with tf.Graph().as_default() as graph:
        tf.get_variable("global_step", initializer=np.int64(0), trainable=False)
        tf.get_variable("weights", initializer=np.arange(1000, dtype=np.float32))
        yield graph


@pytest.fixture
def session(graph):
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        yield session


def saved(session, directory, steps, keep=10):
    checkpoints = CheckpointDirectory(str(directory), keep, tf.train.Saver(max_to_keep=None))
    for step in steps:
        session.run(tf.global_variables()[0].assign(step))
        checkpoints.save(session, step)
    return checkpoints


def names(directory):
    return sorted(path.name for path in pathlib.Path(directory).glob("*.index"))


def test_the_newest_few_stay_after_any_number_of_restarts(session, tmp_path):
    for start in (1, 4, 7):
        saved(session, tmp_path, range(start, start + 3), keep=2)
    assert names(tmp_path) == ["model.ckpt-8.index", "model.ckpt-9.index"]
    assert len(os.listdir(tmp_path)) == 5  # two files each, and `checkpoint`
    state = tf.train.get_checkpoint_state(str(tmp_path))
    assert state.model_checkpoint_path == str(tmp_path / "model.ckpt-9")
    assert "/" not in (tmp_path / "checkpoint").read_text()  # a moved run still restores


def test_a_relative_directory(session, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(session, pathlib.Path("runs/digits"), [1, 2, 3], keep=2)
    assert names(tmp_path / "runs/digits") == ["model.ckpt-2.index", "model.ckpt-3.index"]
    assert newest_valid("runs/digits") == "runs/digits/model.ckpt-3"
    paths = ["model_checkpoint_path", *["all_model_checkpoint_paths"] * 2]
    lines = [f'{key}: "model.ckpt-{step}"' for key, step in zip(paths, (3, 2, 3), strict=True)]
    assert (tmp_path / "runs/digits/checkpoint").read_text().splitlines() == lines


def test_files_reach_the_disk_before_the_state_file_names_them(session, tmp_path, monkeypatch):
    synced = []

    def noting(descriptor, fsync=os.fsync):
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        if len(synced) < 4:
            assert not (tmp_path / "checkpoint").exists()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    saved(session, tmp_path, [5])
    assert sorted(synced[:2]) == ["model.ckpt-5.data-00000-of-00001", "model.ckpt-5.index"]
    assert synced[2:] == [tmp_path.name, "checkpoint", tmp_path.name]


def flip_a_bit(run):
    path = run / "model.ckpt-3.data-00000-of-00001"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(name, size):
    return lambda run: os.truncate(run / name, size)


def remove(name):
    return lambda run: (run / name).unlink()


DAMAGES = {
    "bit flip": (flip_a_bit, 2),
    "data cut": (cut("model.ckpt-3.data-00000-of-00001", 100), 2),
    "data empty": (cut("model.ckpt-3.data-00000-of-00001", 0), 2),
    "index cut": (cut("model.ckpt-3.index", 50), 2),
    "index missing": (remove("model.ckpt-3.index"), 2),
    "data missing": (remove("model.ckpt-3.data-00000-of-00001"), 2),
    "state file empty": (cut("checkpoint", 0), 3),
    "state file missing": (remove("checkpoint"), 3),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_newest_valid_checkpoint_is_found(session, tmp_path, damage, capsys):
    saved(session, tmp_path, [1, 2, 3])
    inflict, expected = DAMAGES[damage]
    inflict(tmp_path)
    assert newest_valid(str(tmp_path)) == str(tmp_path / f"model.ckpt-{expected}")
    assert ("model.ckpt-3 cannot be read" in capsys.readouterr().err) == (expected == 2)


def test_no_run_starts_over_if_all_checkpoints_are_damaged(session, tmp_path):
    saved(session, tmp_path, [3])
    flip_a_bit(tmp_path)
    with pytest.raises(UserError, match="none of the 1 checkpoints"):
        newest_valid(str(tmp_path))
    assert newest_valid(str(tmp_path / "nowhere")) is None


def test_locate(session, tmp_path):
    run = tmp_path / "run"
    saved(session, run, [1, 2])
    saved(session, run / "best", [1])
    prefix = str(run / "model.ckpt-1")
    assert locate(str(run)) == str(run / "model.ckpt-2")
    assert locate(str(run / "best")) == str(run / "best" / "model.ckpt-1")
    assert locate(prefix) == locate(prefix + ".index") == locate(prefix + ".data-00000-of-00001") == prefix
    for path in (tmp_path, run / "model.ckpt-7", tmp_path / "nowhere"):
        with pytest.raises(UserError, match=str(path)):
            locate(str(path))
    (tmp_path / "text").write_text("no checkpoint")
    with pytest.raises(UserError, match="cannot be read"):
        locate(str(tmp_path / "text"))


def test_a_v1_file_is_read_as_well(session, tmp_path):
    path = str(tmp_path / "old.ckpt")
    session.run(tf.global_variables()[0].assign(70))
    tf.train.Saver(write_version=tf.train.SaverDef.V1).save(session, path, write_meta_graph=False)
    assert not os.path.exists(path + ".index")
    assert locate(path) == path
    assert step_of(path) == 70
    check_restorable(path, {v.op.name: v for v in tf.global_variables()})


def test_step_of_a_checkpoint_without_global_step(session, tmp_path):
    saver = tf.train.Saver([v for v in tf.global_variables() if v.op.name == "weights"])
    assert step_of(saver.save(session, str(tmp_path / "m.ckpt"), 123)) == 123
    assert step_of(saver.save(session, str(tmp_path / "m.ckpt"))) is None


def test_every_variable_is_in_one_list_of_the_comparison():
    wanted = {"net/a": [1], "net/b": [2], "net/c": [3], "net/head/w": [4], "net/head/b": [5]}
    stored = {"net/a": [1], "net/b": [9], "net/head/w": [8], "extra": []}
    found = compare(stored, wanted, ("net/head",))
    assert found == (["net/a"], ["net/head/w", "net/head/b"], ["net/c"], ["net/b"], ["extra"])


def test_the_error_names_the_variables_that_do_not_fit(session, tmp_path):
    saved(session, tmp_path, [1])
    with tf.Graph().as_default():
        fits = tf.get_variable("weights", [1000])
        check_restorable(str(tmp_path / "model.ckpt-1"), {"weights": fits})
        with tf.variable_scope("", reuse=tf.AUTO_REUSE):
            other = tf.get_variable("biases", [10])
        with pytest.raises(UserError, match="biases is missing"):
            check_restorable(str(tmp_path / "model.ckpt-1"), {"weights": fits, "biases": other})
    with tf.Graph().as_default(), pytest.raises(UserError, match=r"weights is \[1000\], the net needs \[10\]"):
        check_restorable(str(tmp_path / "model.ckpt-1"), {"weights": tf.get_variable("weights", [10])})
    with (
        tf.Graph().as_default(),
        pytest.raises(UserError, match="nothing of vgg_16; it holds the scopes global_step, w"),
    ):
        check_restorable(
            str(tmp_path / "model.ckpt-1"), {"other": tf.get_variable("other", [10])}, ("other",), "vgg_16"
        )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(3, np.float64), "weights is float64; the net needs float32"),
        (np.array([1, np.nan, 1], np.float32), "weights is not finite"),
    ],
)
def test_the_error_names_other_types_and_values_that_are_not_finite(values, message, tmp_path):
    with tf.Graph().as_default(), tf.Session() as session:
        variable = tf.Variable(values, name="weights")
        session.run(variable.initializer)
        path = tf.train.Saver([variable]).save(session, str(tmp_path / "model.ckpt"), 1)
    with tf.Graph().as_default(), pytest.raises(UserError, match=message):
        check_restorable(path, {"weights": tf.get_variable("weights", [3])})


def test_damaged_checkpoints_get_the_remedy_of_the_command(session, tmp_path):
    """--run-dir is an option of train.py alone."""
    saved(session, tmp_path, [3])
    flip_a_bit(tmp_path)
    with pytest.raises(UserError, match=r"can be read; restore them from a backup, or choose another --run-dir"):
        newest_valid(str(tmp_path))
    with pytest.raises(UserError, match=r"restore them from a backup, or name another one with --init-from$"):
        locate(str(tmp_path), "--init-from")
    saved(session, tmp_path / "best", [2])
    with pytest.raises(UserError, match=rf"or name another one with --ckpt, such as {tmp_path}/best$"):
        locate(str(tmp_path))


def other_checkpoint(session, prefix, **options):
    prefix.parent.mkdir(parents=True, exist_ok=True)
    return tf.train.Saver().save(session, str(prefix), write_meta_graph=False, **options)


def test_the_only_checkpoint_of_any_directory_is_found(session, tmp_path):
    """Of slim's archives, of a SavedModel, and of other programs, whose names are not ours."""
    saved_model = tmp_path / "saved_model"
    variables = other_checkpoint(session, saved_model / "variables" / "variables", write_state=False)
    (saved_model / "saved_model.pb").touch()
    assert locate(str(saved_model)) == variables
    other = other_checkpoint(session, tmp_path / "other" / "lenet", global_step=100)
    assert locate(str(tmp_path / "other")) == locate(str(tmp_path / "other" / "checkpoint")) == other
    with pytest.raises(UserError, match=rf"does not exist; did you mean {other}\?"):
        locate(str(tmp_path / "other" / "lenet"))
    second = other_checkpoint(session, tmp_path / "other" / "alexnet")
    with pytest.raises(UserError, match=f"holds several checkpoints: give one of {second}, {other}"):
        locate(str(tmp_path / "other"))
    os.remove(f"{second}.index")
    with pytest.raises(UserError, match=f"is there, but {second}.index is missing; copy both"):
        locate(second)
    (tmp_path / "frozen").mkdir()
    (tmp_path / "frozen" / "saved_model.pb").touch()
    with pytest.raises(UserError, match="is a SavedModel without variables"):
        locate(str(tmp_path / "frozen"))


def zipped(*names):
    with zipfile.ZipFile(content := io.BytesIO(), "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return content.getvalue()


def tarred():
    with tarfile.open(fileobj=(content := io.BytesIO()), mode="w") as archive:
        archive.add(__file__, "model.ckpt")
    return content.getvalue()


KINDS = {  # a file's name to its content, and a part of what is said about it
    "whole.h5": (b"\x89HDF\r\n\x1a\n", "a Keras file; convert it"),
    "model.keras": (zipped("config.json", "model.weights.h5"), "a Keras or NumPy file; convert it"),
    "arrays.npz": (zipped("conv1|kernel.npy"), "a Keras or NumPy file; convert it"),
    "array.npy": (b"\x93NUMPY\x01\x00", "a single NumPy array"),
    "new.pth": (zipped("archive/data.pkl", "archive/version"), "a PyTorch file"),
    "old.pth": (pickle.dumps({}, 2), "as PyTorch writes it"),
    "model.safetensors": (b"\x40\0\0\0\0\0\0\0" + b'{"a":{"dtype":"F32"}}', "a safetensors file"),
    "model.tflite": (b"\x1c\0\0\0TFL3", "a TFLite model; it can only be run"),
    "model.onnx": (b"\x08\x07\x12", "an ONNX model"),
    "frozen.pb": (b"\n\x1d", "a frozen graph"),
    "saved_model.pb": (b"\x08\x01", "give its directory"),
    "vgg_16.tar.gz": (gzip.compress(b"x"), "a compressed file; unpack it"),
    "vgg_16.tar": (tarred(), "a tar archive; unpack it"),
    "vgg_16.zip": (zipped("vgg_16.ckpt"), "a zip archive; unpack it"),
    "vgg_16.ckpt": (b"\n<!DOCTYPE html><html>", "the download failed"),
    "lfs.ckpt": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "empty.ckpt": (b"", "empty"),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_kind_of_a_file_that_is_no_checkpoint_is_named(tmp_path, name):
    content, said = KINDS[name]
    (tmp_path / name).write_bytes(content)
    assert said in foreign(str(tmp_path / name))
    with pytest.raises(UserError, match=f"{name} cannot be read") as raised:
        locate(str(tmp_path / name))
    assert said in str(raised.value)


def test_a_checkpoint_of_the_old_format_is_of_no_other_kind(session, tmp_path):
    saver = tf.train.Saver(write_version=tf.train.SaverDef.V1)
    path = saver.save(session, str(tmp_path / "vgg_16.ckpt"), write_meta_graph=False)
    assert foreign(path) is None
    assert locate(str(tmp_path)) == path
