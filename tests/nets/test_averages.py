"""EMA weights of published checkpoints, which have no run directory, and checkpoints without auxiliary heads."""

import json

import numpy as np
import pytest

import export
import predict
from checkpoints import AVERAGE
from classifier import Classifier
from config import CheckpointOptions
from errors import UserError
from nets import NETS
from nets.weights import inspect, restorer, write_checkpoint
from tfcompat import slim, tf
from tiny_net import configured, picture_folder, train

TINY = NETS["tiny"]
SHAPES = TINY.variable_shapes(2)


def values(seed, names=SHAPES, suffix=""):
    rng = np.random.default_rng(seed)
    return {f"{name}{suffix}": np.abs(rng.normal(size=SHAPES[name])).astype(np.float32) for name in names}


RAW, AVERAGED = values(0), values(1)


def checkpoint(directory, averaged=SHAPES, raw=RAW):
    """A checkpoint as TF-Slim writes it: raw values, averages of some variables, and other things of a training."""
    others = {"global_step": np.int64(7), "tiny/logits/weights/Momentum": np.zeros(3, np.float32)}
    directory.mkdir()
    write_checkpoint(
        {**raw, **{f"{name}{AVERAGE}": AVERAGED[name] for name in averaged}, **others}, directory / "model.ckpt-7"
    )
    return str(directory / "model.ckpt-7")


def restored(classifier):
    """The values of a classifier's variables by name, bit for bit."""
    with classifier.graph(), tf.Session() as session:
        classifier.build(classifier.inputs())
        classifier.restore(session)
        return session.run({variable.op.name: variable for variable in tf.global_variables()})


def assert_equal(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


SOME = ("tiny/Conv/weights", "tiny/Conv/BatchNorm/moving_mean")
MIXED = {name: (AVERAGED if name in SOME else RAW)[name] for name in SHAPES}


@pytest.mark.parametrize(
    ("averaged", "ema", "expected"),
    [
        (SHAPES, None, AVERAGED),
        (SHAPES, True, AVERAGED),
        (SHAPES, False, RAW),
        (SOME, None, MIXED),
        (SOME, False, RAW),
        ((), None, RAW),
    ],
)
def test_which_weights_are_used(tmp_path, averaged, ema, expected):
    classifier = Classifier.load(checkpoint(tmp_path / "made", averaged), net="tiny", ema=ema)
    assert classifier.ema == (expected is not RAW)
    assert_equal(restored(classifier), expected)
    said = f"EMA weights of {len(averaged)} variables (--no-ema for the raw ones)"
    assert (said in classifier.title) == classifier.ema


def test_averages_alone_are_enough(tmp_path):
    prefix = checkpoint(tmp_path / "made", raw={})
    assert_equal(restored(Classifier.load(prefix, net="tiny")), AVERAGED)
    assert "fits tiny\n" in inspect(prefix)


def test_averages_that_are_asked_for_must_be_there(tmp_path):
    with pytest.raises(UserError, match="holds no EMA weights"):
        Classifier.load(checkpoint(tmp_path / "made", ()), net="tiny", ema=True)
    with pytest.raises(UserError, match="--ema and --no-ema exclude each other"):
        Classifier.of(CheckpointOptions("somewhere", ema=True, no_ema=True))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """(class folders, shards) of two classes."""
    directory = tmp_path_factory.mktemp("pictures")
    picture_folder(directory / "raw", ("a", "b"), 8)
    return directory / "raw", str(directory / "data")


def test_the_commands_say_so(tmp_path, pictures, capsys):
    source, _ = pictures
    prefix = checkpoint(tmp_path / "made")
    picture = str(next(source.rglob("*.jpg")))
    said = "EMA weights of 6 variables (--no-ema for the raw ones)"
    predict.predict(predict.parse_command_line(["--ckpt", prefix, "--net", "tiny", picture]))
    assert said in capsys.readouterr().err
    predict.predict(predict.parse_command_line(["--ckpt", prefix, "--net", "tiny", "--no-ema", picture]))
    assert "EMA" not in capsys.readouterr().err
    out = str(tmp_path / "exported")
    arguments = ["--ckpt", prefix, "--net", "tiny", "--format", "frozen", "--out", out]
    export.main(export.parse_command_line(arguments))
    assert said in capsys.readouterr().out
    with open(f"{out}/metadata.json") as file:
        assert json.load(file)["averaged_weights"] is True


def initial(tmp_path, pictures, start, *arguments):
    """The values that a training starts from."""
    source, data = pictures
    place = ["--dataset", "folder", "--source", str(source), "--data", data, "--run-dir", str(tmp_path / "run")]
    rate = ["--learning-rate", "1e-30", "--total-steps", "1", "--init-from", start]
    assert train(configured(*place, *rate, *arguments)) == 0
    reader = tf.train.NewCheckpointReader(str(tmp_path / "run/model.ckpt-1"))
    return {name: reader.get_tensor(name) for name in SHAPES}


@pytest.mark.parametrize(("arguments", "expected"), [([], MIXED), (["--no-ema"], RAW)])
def test_a_training_starts_from_them(tmp_path, pictures, capsys, arguments, expected):
    assert_equal(initial(tmp_path, pictures, checkpoint(tmp_path / "made", SOME), *arguments), expected)
    out = capsys.readouterr().out
    assert ("EMA weights of 2 variables (--no-ema for the raw ones)" in out) == (expected is MIXED)


def test_a_training_starts_from_the_raw_weights_of_a_run(tmp_path, pictures):
    made = checkpoint(tmp_path / "made")
    initial(tmp_path / "first", pictures, made)
    run = tmp_path / "first/run"
    write_checkpoint({**RAW, **{f"{n}{AVERAGE}": v for n, v in AVERAGED.items()}}, run / "model.ckpt-1")
    assert_equal(initial(tmp_path, pictures, str(run)), RAW)
    assert Classifier.load(run).ema is False
    assert_equal(restored(Classifier.load(run, ema=True)), AVERAGED)


def test_inspect_reports_them(tmp_path):
    report = inspect(checkpoint(tmp_path / "made", SOME))
    assert "fits tiny\n" in report
    assert "unused        2 variables" in report
    assert "EMA weights of 2 of 6 variables" in report


HEADS = NETS["googlenet_2014"]


def test_a_checkpoint_without_auxiliary_heads(tmp_path, capsys):
    rng = np.random.default_rng(0)
    shapes = {name: shape for name, shape in HEADS.variable_shapes(2).items() if "/aux_" not in name}
    assert len(shapes) < len(HEADS.variable_shapes(2))
    write_checkpoint({n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}, tmp_path / "model.ckpt")
    prefix = str(tmp_path / "model.ckpt")
    classifier = Classifier.load(prefix, net="googlenet_2014")
    with classifier.graph(), tf.Session() as session:
        heads, end_points = classifier.build(classifier.inputs())
        classifier.restore(session)
    assert list(heads) == [""]
    assert not any("aux_4" in name for name in end_points)
    report = inspect(prefix)
    assert "fits googlenet_2014" in report
    assert "python eval.py" in report
    assert "--train-only Logits aux_4a aux_4d --learning-rate" in report
    with tf.Graph().as_default():
        HEADS.build(tf.placeholder(tf.float32, [1, 224, 224, 3]), 2, is_training=False, weight_decay=0.0)
        restorer(prefix, HEADS)
        assert len(slim.get_model_variables()) > len(shapes)
    assert "missing       0 variables" in capsys.readouterr().out
