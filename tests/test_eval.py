"""Evaluation: of a net with an auxiliary head, on two classes and on ten; from Python and by eval.py."""

import collections
import csv
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import types

import cv2
import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

import eval as command
import predict
from classifier import Classifier
from engine.evaluation import Evaluation
from engine.metrics import PerExample
from errors import UserError
from nets import NETS, Net
from pipeline import tfrecord
from pipeline.dataset import Dataset
from pipeline.images import encode_png
from tfcompat import slim, tf
from tiny_net import configured, evaluated, tiny, tiny_arg_scope, train

ROOT = pathlib.Path(__file__).resolve().parents[1]


def tiny_with_two_heads(inputs, num_classes, is_training, scope):
    logits, end_points = tiny(inputs, num_classes, is_training, scope)
    with tf.variable_scope(scope, reuse=tf.AUTO_REUSE):
        head = slim.fully_connected(slim.flatten(inputs), num_classes, activation_fn=None, scope="aux/logits")
    return logits, {**end_points, f"{scope}/aux/logits": head}


@pytest.fixture(scope="module", autouse=True)
def two_heads():
    NETS["tiny_with_two_heads"] = Net(
        function=tiny_with_two_heads,
        arg_scope=tiny_arg_scope,
        scope="two_heads",
        heads=("logits", "aux/logits"),
        auxiliary=("aux/logits",),
        auxiliary_weight=0.3,
        preprocessing="unit",
        weight_decay=0.0,
        image_size=8,
    )
    yield
    del NETS["tiny_with_two_heads"]


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    """A run on pictures of two classes that overlap, so that it makes mistakes."""
    place, rng = tmp_path_factory.mktemp("binary"), np.random.default_rng(0)
    for split, count in (("train", 30), ("validation", 6), ("test", 25)):
        for label, name in enumerate(("cat", "dog")):
            (place / "pictures" / split / name).mkdir(parents=True)
            for i in range(count):
                level = rng.normal(100 + 40 * label, 20)
                pixels = np.clip(rng.normal(level, 20, (12, 12, 3)), 0, 255).astype(np.uint8)
                cv2.imwrite(str(place / "pictures" / split / name / f"{split}{i}.png"), pixels)
    arguments = ("--dataset", "folder", "--source", str(place / "pictures"), "--head", "sigmoid", "--data")
    run = ("--run-dir", str(place / "run"), "--net", "tiny_with_two_heads", "--batch-size", "16")
    steps = ("--total-steps", "40", "--validate-every-steps", "40", "--snapshot-every-steps", "40")
    assert train(configured(*arguments, str(place / "data"), *run, *steps)) == 0
    return place / "run"


def options(ckpt, *flags):
    return command.parse_command_line(["--ckpt", str(ckpt), *flags])


@pytest.fixture(scope="module")
def result(binary, tmp_path_factory):
    """The classifier of that run, its evaluation, and the directory of all files that eval.py writes."""
    out = tmp_path_factory.mktemp("out")
    places = ("--per-image", str(out / "images.csv"), "--confusion", str(out / "c.png"))
    args = options(binary, *places, "--mistakes", str(out / "m.png"))
    classifier, found = command.evaluate(args)
    command.write(classifier, found, args)
    return classifier, found, out


def test_the_table_of_pictures_recomputes_to_the_same_counts(result):
    _, found, out = result
    with open(out / "images.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    right = [row["label"] == row["prediction"] for row in rows]
    assert len(rows) == found.summary.examples == 50
    assert sum(right) / 50 == found.summary.top1
    assert 0.5 < found.summary.top1 < 1.0  # there are right and wrong predictions
    assert [row["file"].split("/")[1] for row in rows] == [row["label"] for row in rows]  # the folder is the class
    assert len({row["file"] for row in rows}) == 50
    # Of two classes the probability of the other is what is left, so even the loss follows.
    own = [
        float(row["probability"]) if r else 1 - float(row["probability"]) for row, r in zip(rows, right, strict=True)
    ]
    assert -np.mean(np.log(own)) == pytest.approx(found.summary.loss, rel=1e-4)
    counts = collections.Counter((row["label"], row["prediction"]) for row in rows)
    for row, other in zip(found.as_dict()["classes"], ("dog", "cat"), strict=True):
        hits, name = counts[row["name"], row["name"]], row["name"]
        assert row["precision"] == pytest.approx(hits / (hits + counts[other, name]))
        assert row["recall"] == pytest.approx(hits / (hits + counts[name, other]))
        assert row["support"] == 25


def test_top_k_that_says_nothing_is_null(result):
    _, found, _ = result
    assert found.as_dict()["top5"] is None
    assert found.as_dict(2)["top2"] is None
    assert found.as_dict(1)["top1"] == found.summary.top1
    assert "top-" not in command.as_text(found, 5).splitlines()[-1].replace("top-1 ", "")


def test_two_classes_have_a_roc_curve(result):
    _, found, out = result
    with open(out / "images.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [abs((row["prediction"] == "cat") - float(row["probability"])) for row in rows]
    expected = roc_auc_score([row["label"] == "dog" for row in rows], scores)
    assert found.as_dict()["roc_auc"] == pytest.approx(expected, abs=1e-3)
    assert f"ROC AUC {found.roc_auc:.4f}, dog as the positive class" in command.as_text(found, 5)


def test_an_auxiliary_head_is_reported(binary, result):
    _, found, _ = result
    head = found.as_dict()["heads"]["aux"]
    assert head["loss"] != found.summary.loss
    assert "auxiliary head aux: top-1" in command.as_text(found, 5)
    reader = tf.train.NewCheckpointReader(found.checkpoint)  # by hand, from the pixels
    weights, biases = (reader.get_tensor(f"two_heads/aux/logits/{name}")[..., 0] for name in ("weights", "biases"))
    pictures = found.pictures(range(50))
    inputs = np.stack([cv2.resize(p, (8, 8), interpolation=cv2.INTER_LINEAR) for p in np.float32(pictures)]) / 255
    prediction = inputs.reshape(50, -1) @ weights + biases > 0
    assert head["top1"] == pytest.approx(np.mean(prediction == found.table.label), abs=0.021)  # one may be on the edge


def test_pictures_and_tensorboard(binary, result):
    _, found, out = result
    assert all(cv2.imread(str(out / name)).size for name in ("c.png", "m.png"))
    events = [
        value
        for file in (binary / "eval_test").glob("events*")
        for event in tf.train.summary_iterator(str(file))
        for value in event.summary.value
    ]
    assert {value.tag for value in events} == {
        "loss/cross_entropy",
        "accuracy/top1",
        "results/confusion",
        "results/mistakes",
    }
    top1 = next(value.simple_value for value in events if value.tag == "accuracy/top1")
    assert top1 == pytest.approx(found.summary.top1)


def test_batch_sizes_flips_and_top_k(binary, result):
    _, found, _ = result
    for size in (1, 7, 100):
        again = evaluated(binary, batch_size=size)
        assert again[2:] == found.summary[2:]
        assert again.loss == pytest.approx(found.summary.loss, rel=1e-6)
    flipped = evaluated(binary, flip=True)
    assert flipped.loss == pytest.approx(evaluated(binary, flip=True, batch_size=7).loss, rel=1e-6) != again.loss
    with pytest.raises(UserError, match="ten crops have their mirror images"):
        evaluated(binary, flip=True, crops=10)
    with pytest.raises(UserError, match="--top-k is 0"):
        options(binary, "--top-k", "0")


def test_flipping_averages_probabilities(binary):
    """Compares with the mean of the probabilities for the pictures and for their mirror images."""
    net = Classifier.load(binary)
    found = net.evaluate(flip=True)
    pictures = np.float32(found.pictures(range(50)))
    with tf.Graph().as_default():
        tf.set_random_seed(0)
        images = tf.compat.v2.image.resize(pictures, [8, 8]) / 255.0
        heads, _ = net.build(tf.concat([images, images[:, :, ::-1]], 0))
        with tf.Session(config=net.session_config()) as session:
            net.restore(session)
            both = session.run(tf.nn.softmax(heads[""])).reshape(2, 50, 2).mean(0)
    np.testing.assert_allclose(found.table.confidence, both.max(1), rtol=1e-5)


def test_files_that_cannot_be_written_are_reported_first(binary, tmp_path):
    for flags in (("--per-image", "nowhere/a.csv"), ("--confusion", "a.jpg"), ("--mistakes", str(tmp_path))):
        with pytest.raises(UserError, match=f"{flags[0]} .* must be a"):
            command.evaluate(options(binary, *flags))


def test_ten_classes(tmp_path, digits_data):
    """Against scikit-learn, and top-3 against sorted probabilities."""
    place = ("--run-dir", str(tmp_path / "run"), "--data", digits_data, "--total-steps", "20")
    assert train(configured(*place, "--net", "tiny", "--validate-every-steps", "20")) == 0
    _, found = command.evaluate(options(tmp_path / "run", "--top-k", "3"))
    values = found.as_dict(3)
    expected = precision_recall_fscore_support(found.table.label, found.table.prediction, zero_division=0)
    columns = ([row[key] for row in values["classes"]] for key in ("precision", "recall", "f1-score", "support"))
    for column, wanted in zip(columns, expected, strict=True):
        np.testing.assert_allclose(column, wanted)
    assert values["top1"] < values["top3"] < 1
    assert values["top3"] == np.mean(found.table.rank < 3)
    assert "roc_auc" not in values
    json.dumps(values)
    assert isinstance(values["step"], int)
    assert options("x").top_k == 5


def by_hand(names, labels, predictions):
    """An evaluation of the given labels and predictions."""
    columns = dict.fromkeys(PerExample._fields, np.zeros(len(labels), np.float32))
    columns |= {"label": np.array(labels), "prediction": np.array(predictions), "rank": np.zeros(len(labels), int)}
    return Evaluation(
        checkpoint="model.ckpt-1",
        step=1,
        data="data",
        split="test",
        class_names=tuple(names),
        image_size=16,
        trained_image_size=8,
        index=None,
        channels=1,
        tables={"": PerExample(**columns)},
    )


def test_the_macro_average_is_over_the_classes_that_occur():
    found = by_hand("abcd", labels=[0, 0, 0, 0, 2, 2], predictions=[0, 0, 1, 2, 2, 2])
    # a: precision 1, recall 1/2, F1 2/3; c: precision 2/3, recall 1, F1 4/5; b is predicted but absent, d neither
    expected = {"precision": 5 / 6, "recall": 3 / 4, "f1-score": 11 / 15, "support": 6, "classes": 2}
    assert found.macro_average() == pytest.approx(expected)
    assert found.as_dict()["macro_average"] == found.macro_average()
    assert found.per_class()["b"] == {"precision": 0, "recall": 0, "f1-score": 0, "support": 0}
    assert re.search(r"^mean of 2 classes +83.33% +75.00% +73.33% +6$", command.as_text(found, 5), re.MULTILINE)


def test_of_many_classes_the_worst_that_occur_are_printed():
    names = [f"class {i}" for i in range(40)]
    lines = command.as_text(by_hand(names, [*range(12), 12], [*range(12), 3]), 5).splitlines()
    assert lines[0] == "the 10 worst of 40 classes; --json prints all"
    assert [line[:9].strip() for line in lines[2:5]] == ["class 12", "class 3", "class 0"]
    assert lines[12].startswith("mean of 13 classes ")


def test_another_size_than_the_training(tmp_path, digits_data):
    """A net of any size is evaluated at another one, and says so; one that flattens the picture is not."""
    options = ("--data", digits_data, "--total-steps", "2", "--run-dir")
    assert train(configured(*options, str(tmp_path / "any"), "--net", "preact_resnet_20", "--image-size", "8")) == 0
    classifier, found = command.evaluate(command.EvalOptions(str(tmp_path / "any"), image_size=16, split="validation"))
    assert classifier.end_points()[0] == "logits"
    values, line = found.as_dict(), "evaluated at 16 px, trained at 8 px"
    assert (values["image_size"], values["trained_image_size"]) == (16, 8)
    assert line in command.as_text(found, 5).splitlines()
    same = Classifier.load(tmp_path / "any", image_size=8).evaluate("validation")
    assert found.summary.loss != same.summary.loss
    assert line not in command.as_text(same, 5)
    assert train(configured(*options, str(tmp_path / "flat"))) == 0
    with pytest.raises(UserError, match=r"does not fit the net: tiny/logits/weights is \[256, 10\], the net needs"):
        evaluated(tmp_path / "flat", image_size=16)
    for contradiction in ({"net": "preact_resnet_20"}, {"preprocessing": "vgg"}):
        with pytest.raises(UserError, match=r"contradicts .*config\.json, which says .*; leave it out"):
            evaluated(tmp_path / "flat", **contradiction)


def test_a_net_of_one_size_keeps_it(binary, monkeypatch):
    fixed = types.SimpleNamespace(**{**vars(NETS["tiny_with_two_heads"]), "any_size": False})
    monkeypatch.setitem(NETS, "tiny_with_two_heads", fixed)
    with pytest.raises(UserError, match=r"--image-size 16 contradicts .*config\.json, which says 8; leave it out"):
        Classifier.load(binary, image_size=16)


def test_python_gets_data_and_keeps_its_graph(binary, capfd):
    with tf.Graph().as_default() as graph:
        classifier = Classifier.load(binary)
        found = classifier.evaluate("validation", flip=True)
        assert tf.get_default_graph() is graph
        assert graph.get_operations() == []
    assert found.summary.examples == 12
    assert found.as_dict(1)["top1"] == found.summary.top1 == found.top_k(1)
    assert capfd.readouterr().out == ""


def test_a_checkpoint_alone_takes_the_channels_that_its_net_has(binary, tmp_path):
    for path in binary.glob("model.ckpt-*"):
        shutil.copy(path, tmp_path)
    grey = [encode_png(np.full((12, 12), level, np.uint8)) for level in (90, 150)]
    payloads = [tfrecord.serialize(picture, label, "", "") for label, picture in enumerate(grey)]
    (tmp_path / "test.tfrecord").write_bytes(b"".join(map(tfrecord.framed, payloads)))
    (tmp_path / "labels.txt").write_text("0:cat\n1:dog\n")
    prefix = next(tmp_path.glob("*.index")).with_suffix("")
    classifier = Classifier.load(prefix, net="tiny_with_two_heads", data=str(tmp_path))
    assert Dataset.load(str(tmp_path)).channels == 1
    assert classifier.preprocessor.channels == 3
    assert len(classifier.evaluate("test", data=str(tmp_path)).table.label) == 2


def test_weights_that_overflow_are_an_error(binary, tmp_path):
    shutil.copytree(binary, tmp_path / "run")
    found = tf.train.NewCheckpointReader(str(binary / "model.ckpt-40"))
    with tf.Graph().as_default(), tf.Session() as session:
        values = {name: found.get_tensor(name) for name in found.get_variable_to_shape_map()}
        values["two_heads/logits/weights"][:] = 3e38
        variables = {name: tf.Variable(value, name=name) for name, value in values.items()}
        session.run(tf.global_variables_initializer())
        tf.train.Saver(variables).save(session, str(tmp_path / "run/model.ckpt"), 40)
    with pytest.raises(UserError, match=r"model\.ckpt-40: the net's outputs are not finite"):
        evaluated(tmp_path / "run")
    cv2.imwrite(str(tmp_path / "a.png"), np.full((12, 12, 3), 200, np.uint8))
    with pytest.raises(UserError, match=r"model\.ckpt-40: the net's outputs are not finite"):
        predict.predict(predict.parse_command_line(["--ckpt", str(tmp_path / "run"), str(tmp_path / "a.png")]))


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # the writer's own thread fails, too
def test_a_full_disk_costs_tensorboard_only(result, capsys):
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        command.write_events(*result[:2], {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert "nothing is added to TensorBoard: " in capsys.readouterr().err


def test_a_config_that_cannot_be_read_is_named(binary, tmp_path):
    shutil.copytree(binary, tmp_path / "run")
    (tmp_path / "run/config.json").unlink()
    (tmp_path / "run/config.json").symlink_to("/proc/self/mem")  # a file, but reading from its start fails
    with pytest.raises(UserError, match="Input/output error"):
        evaluated(tmp_path / "run")


@pytest.mark.parametrize("name", ["eval", "predict", "export"])
def test_help_and_mistakes_are_answered_without_tensorflow(name, tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise SystemExit(9)")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    required = ["--ckpt", "x", *(["--format", "onnx"] if name == "export" else [])]
    for arguments, code in ((["--help"], 0), ([*required, "--image-size", "0"], 2), ([*required, "--no-such"], 2)):
        command = [sys.executable, ROOT / f"{name}.py", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert code or "--image-size N" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_config_without_the_trainings_size_is_named(binary, tmp_path):
    """The net's default may be another size, whose accuracy would be a silent mistake."""
    shutil.copytree(binary, tmp_path / "run")
    stored = json.loads((tmp_path / "run/config.json").read_text())
    for changed in {**stored, "image_size": None}, {k: v for k, v in stored.items() if k != "preprocessing"}:
        (tmp_path / "run/config.json").write_text(json.dumps(changed))
        with pytest.raises(UserError, match=r"config\.json has no (image_size|preprocessing); restore the file"):
            evaluated(tmp_path / "run")


def test_two_figures_need_two_files(tmp_path):
    with pytest.raises(UserError, match="--confusion and --mistakes are both"):
        evaluated("nowhere", confusion=str(tmp_path / "a.png"), mistakes=str(tmp_path / "." / "a.png"))


def test_a_reader_that_is_gone_ends_the_program_quietly():
    read, write = os.pipe()
    os.close(read)
    code = "import errors\nwith errors.reported(): print('less than a buffer')"
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, cwd=ROOT, env=buffered)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")
