"""What a recipe may ask of a training: parts left alone, averages, heads, early ends, and tries that cost nothing."""

import json
import os
import pathlib

import numpy as np
import pytest

import train as training
from checkpoints import newest_valid
from errors import UserError
from pipeline.dataset import Dataset
from presets import parse_command_line
from tfcompat import tf
from tiny_net import configured, evaluated, picture_folder, planned, train


@pytest.fixture(scope="module")
def run(tmp_path_factory, digits_data):
    directory = tmp_path_factory.mktemp("runs") / "averaged"
    arguments = ("--run-dir", str(directory), "--data", digits_data, "--total-steps", "60", "--ema-decay", "0.9")
    assert train(configured(*arguments, "--batch-size", "100")) == 0
    return directory


def values(run, step=None):
    prefix = f"{run}/model.ckpt-{step}" if step else newest_valid(str(run))
    reader = tf.train.NewCheckpointReader(prefix)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def rows(run, split):
    lines = [json.loads(line) for line in (pathlib.Path(run) / "metrics.jsonl").read_text().splitlines()]
    return [row for row in lines if row["split"] == split]


def trained(tmp_path, digits_data, *arguments, steps=5):
    directory = tmp_path / "run"
    every = ("--snapshot-every-steps", "1" if steps < 10 else str(steps), "--keep-checkpoints", "100")
    every += ("--total-steps", str(steps), "--validate-every-steps", str(steps))
    assert train(configured("--run-dir", str(directory), "--data", digits_data, *every, *arguments)) == 0
    return directory


CONVOLUTION = ("tiny/Conv/weights", "tiny/Conv/BatchNorm/beta")
STATISTICS = ("tiny/Conv/BatchNorm/moving_mean", "tiny/Conv/BatchNorm/moving_variance")


@pytest.mark.parametrize(
    ("arguments", "moved"),
    [
        (("--train-only", "logits", "--batch-norm-updates", "trained"), {"tiny/logits/weights", "tiny/logits/biases"}),
        (
            ("--train-only", "logits", "--batch-norm-updates", "all"),
            {"tiny/logits/weights", "tiny/logits/biases", *STATISTICS},
        ),
        (("--batch-norm-updates", "none"), {"tiny/logits/weights", "tiny/logits/biases", *CONVOLUTION}),
        (("--freeze", "tiny/logits", "--batch-norm-updates", "trained"), {*CONVOLUTION, *STATISTICS}),
        ((), {"tiny/logits/weights", "tiny/logits/biases", *CONVOLUTION}),
    ],
)
def test_only_what_is_trained_changes(run, tmp_path, digits_data, arguments, moved, capsys):
    directory = trained(tmp_path, digits_data, "--init-from", str(run), *arguments, "--optimizer", "sgd", steps=3)
    assert "restored      6 variables" in capsys.readouterr().out
    before, after = values(run), values(directory, 3)
    assert {
        name for name in after if name.startswith("tiny/") and not np.array_equal(before[name], after[name])
    } == moved


def test_frozen_batch_norm_normalises_by_its_averages(run, tmp_path, digits_data):
    """Training, without dropout's and augmentation's noise, then sees what evaluation sees."""
    place = ("--data", digits_data, "--run-dir", str(tmp_path / "new"))
    model = training.build(planned(*place, "--freeze", "Conv", "--init-from", str(run)), newest_valid(str(run)))
    operations = {op.type for op in model.graph.get_operations() if op.name.startswith("tiny/Conv/BatchNorm")}
    assert "FusedBatchNormV3" in operations
    modes = [
        op.get_attr("is_training")
        for op in model.graph.get_operations()
        if op.type == "FusedBatchNormV3" and not op.name.startswith("validation")
    ]
    assert modes == [False]


def test_unknown_scopes_stop_the_run_before_it_starts(tmp_path, digits_data):
    place = ("--run-dir", str(tmp_path / "run"), "--data", digits_data)
    with pytest.raises(UserError, match="--train-only 'fc8' matches no variable of the net; tiny has Conv, logits"):
        train(configured(*place, "--train-only", "fc8"))
    assert not (tmp_path / "run").exists()


def test_averages_by_hand(tmp_path, digits_data):
    directory = trained(tmp_path, digits_data, "--ema-decay", "0.5")
    name = "tiny/logits/weights"
    average = values(directory, 1)[f"{name}/ExponentialMovingAverage"]
    for step in range(2, 6):
        decay = min(0.5, (1 + step) / (10 + step))  # global_step is `step` by then
        average = average * decay + values(directory, step)[name] * (1 - decay)
        np.testing.assert_allclose(
            values(directory, step)[f"{name}/ExponentialMovingAverage"], average, rtol=1e-5, atol=1e-7
        )


def test_averages_start_from_the_weights_that_a_run_starts_from(run, tmp_path, digits_data):
    frozen = ("--init-from", str(run), "--ema-decay", "0.999", "--learning-rate", "1e-30")
    directory = trained(tmp_path, digits_data, *frozen, steps=1)
    after = values(directory)
    np.testing.assert_allclose(after["tiny/Conv/weights/ExponentialMovingAverage"], values(run)["tiny/Conv/weights"])


def test_averages_have_their_own_evaluation(run):
    plain, averaged = (evaluated(run, split="validation", ema=ema) for ema in (False, True))
    row = rows(run, "validation")[-1]
    assert plain.loss == pytest.approx(row["loss"], rel=1e-6)
    assert averaged.loss == pytest.approx(row["ema_loss"], rel=1e-6)
    assert averaged.loss != plain.loss
    tags = {
        value.tag
        for file in (run / "val").glob("events*")
        for event in tf.train.summary_iterator(str(file))
        for value in event.summary.value
    }
    assert {"loss/ema_cross_entropy", "accuracy/ema_top1", "accuracy/ema_top5"} <= tags


def test_a_run_without_averages_says_so(tmp_path, digits_data):
    directory = trained(tmp_path, digits_data, steps=1)
    with pytest.raises(UserError, match="holds no EMA weights; train with --ema-decay"):
        evaluated(directory, ema=True)


def test_a_sigmoid_unit_for_two_classes(tmp_path, digits_data, capsys):
    pictures = picture_folder(tmp_path / "pictures")
    arguments = ("--dataset", "folder", "--source", str(pictures), "--image-size", "16", "--batch-size", "8")
    directory = trained(tmp_path, str(tmp_path / "data"), *arguments, "--head", "sigmoid", steps=40)
    assert values(directory)["tiny/logits/weights"].shape[1] == 1
    result = evaluated(directory)
    assert (result.top1, result.examples) == (1.0, 2)
    with pytest.raises(UserError, match=r"--head sigmoid is for two classes; .* has 10"):
        train(configured("--run-dir", str(tmp_path / "ten"), "--data", digits_data, "--head", "sigmoid"))


def test_weight_decay_covers_what_it_says(tmp_path, digits_data):
    """Under a rate too small to move anything else, adamw shrinks what is decayed by rate × decay."""
    arguments = ("--optimizer", "adamw", "--learning-rate", "1e-4", "--schedule", "constant", "--weight-decay", "1000")
    before, after = (values(trained(tmp_path, digits_data, *arguments, steps=2), step) for step in (1, 2))
    np.testing.assert_allclose(after["tiny/Conv/weights"], before["tiny/Conv/weights"] * 0.9, atol=3e-4)
    np.testing.assert_allclose(after["tiny/logits/biases"], before["tiny/logits/biases"], atol=3e-4)


@pytest.mark.parametrize("biases", [False, True])
def test_the_l2_loss_covers_what_it_says(biases, tmp_path, digits_data):
    arguments = ["--weight-decay", "0.5", "--learning-rate", "0.1", *(["--decay-biases"] if biases else [])]
    directory = trained(tmp_path, digits_data, *arguments, "--display-every-steps", "1", steps=3)
    stored = values(directory, 2)  # what the third step's loss is made of
    kernels = ["tiny/Conv/weights", "tiny/logits/weights"]
    others = ["tiny/Conv/BatchNorm/beta", "tiny/logits/biases"] if biases else []
    expected = 0.5 * sum((stored[name] ** 2).sum() / 2 for name in kernels + others)
    assert rows(directory, "train")[2]["regularization_loss"] == pytest.approx(expected, rel=1e-5)


def test_it_overfits_a_few_batches_when_asked(tmp_path, digits_data, capsys):
    arguments = ("--overfit-batches", "2", "--batch-size", "20", "--preprocessing", "digits")
    directory = trained(tmp_path, digits_data, *arguments, steps=120)
    last = rows(directory, "validation")[-1]
    assert last["examples"] == 40
    assert last["top1"] == 1.0


@pytest.mark.parametrize("data_is_there", [True, False])
def test_a_dry_run_leaves_nothing(data_is_there, tmp_path, digits_data, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = ("--run-dir", str(tmp_path / "run"), "--data", digits_data if data_is_there else str(tmp_path / "data"))
    for split in ("train", "validation"):  # whose first reader leaves an index beside the shards
        Dataset.load(digits_data).index(split)
    before = {path: path.stat().st_mtime_ns for path in pathlib.Path(digits_data).rglob("*")}
    assert train(configured(*place, "--dry-run", "--warmup-steps", "10", "--ema-decay", "0.9")) == 0
    out = capsys.readouterr().out
    assert "step 2/40: validation top-1" in out
    assert "nothing is left behind" in out
    assert os.listdir(tmp_path) == []
    assert {path: path.stat().st_mtime_ns for path in pathlib.Path(digits_data).rglob("*")} == before


def test_a_dry_run_fails_where_the_run_would(tmp_path, digits_data, capfd):
    data, place = tmp_path / "data", ("--run-dir", str(tmp_path / "run"), "--dry-run", "--data")
    data.mkdir()
    (data / "mine.txt").write_text("mine")
    for path, wrong in ((data, "exists and is not empty"), (data / "mine.txt", "is a file")):
        with pytest.raises(SystemExit) as caught:
            train(configured(*place, str(path)))
        assert caught.value.code == 2
        assert f"{path} {wrong}" in capfd.readouterr().err
    with pytest.raises(UserError, match="was made from data that need no --source, not from"):
        train(configured(*place, digits_data, "--source", str(data)))
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "mine.txt"]


def test_patience_ends_a_run_early_and_more_of_it_goes_on(tmp_path, digits_data, capsys):
    place = ("--run-dir", str(tmp_path / "run"), "--data", digits_data, "--validate-every-steps", "4")
    # A rate that changes nothing: the first validation stays the best.
    stuck = (*place, "--learning-rate", "1e-30", "--best-metric", "loss", "--schedule", "constant")
    stuck += ("--snapshot-every-steps", "100")
    assert train(configured(*stuck, "--patience", "3")) == 0
    steps = [row["step"] for row in rows(tmp_path / "run", "validation")]
    best = min(rows(tmp_path / "run", "validation"), key=lambda row: row["loss"])["step"]
    assert steps == list(range(4, best + 13, 4))
    assert steps[-1] < 40
    out = capsys.readouterr().out
    assert "stopped early: 3 validations without a better loss" in out
    assert newest_valid(str(tmp_path / "run")).endswith(f"-{steps[-1]}")
    assert newest_valid(str(tmp_path / "run/best")).endswith(f"-{best}")
    assert train(configured(*stuck, "--patience", "3")) == 0
    assert "is finished" in capsys.readouterr().out
    assert train(configured(*stuck, "--patience", "30")) == 0
    assert rows(tmp_path / "run", "validation")[-1]["step"] == 40


def test_bf16_keeps_its_variables_in_float32_and_learns(tmp_path, digits_data):
    directory = trained(tmp_path, digits_data, "--precision", "bf16", steps=60)
    stored = values(directory)
    assert {array.dtype for name, array in stored.items() if name != "global_step"} == {np.dtype("float32")}
    assert evaluated(directory).top1 > 0.5


def test_epochs_on_the_command_line(tmp_path, digits_data):
    place = ("--run-dir", str(tmp_path / "run"), "--data", digits_data, "--batch-size", "100")
    epochs = ("--total-epochs", "1", "--validate-every-epochs", "0.5", "--snapshot-every-epochs", "0.5")
    config = parse_command_line(["--net", "tiny", *place, *epochs])
    assert train(config) == 0
    assert [row["step"] for row in rows(tmp_path / "run", "validation")] == [7, 13]
    stored = json.loads((tmp_path / "run/config.json").read_text())
    assert (stored["total_steps"], stored["total_epochs"], stored["validate_every_steps"]) == (13, None, 7)
    assert train(config) == 0  # the same command finds the run finished
