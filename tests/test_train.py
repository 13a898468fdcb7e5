"""The program as a user runs it: train, look, evaluate."""

import json
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

import train as training
from checkpoints import newest_valid
from engine.evaluation import averaged
from errors import UserError
from nets.weights import write_checkpoint
from pipeline.convert import convert
from pipeline.dataset import Dataset
from pipeline.prepare import check_source
from run_directory import exclusive
from tfcompat import tf
from tiny_net import configured, evaluated, picture_folder, planned, train

ROOT = pathlib.Path(__file__).parent.parent


def run_script(*arguments, cwd=ROOT):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True
    )


def run_main(script, *arguments):
    """As run_script, in this process, which has TensorFlow already. Returns the exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(script), *map(str, arguments)])
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as stopped:
            return stopped.code
    return 0


@pytest.fixture(scope="module")
def run(tmp_path_factory, digits_data):
    """A finished run of the tiny net."""
    directory = tmp_path_factory.mktemp("runs") / "tiny"
    arguments = ("--run-dir", str(directory), "--data", digits_data, "--total-steps", "150")
    assert train(configured(*arguments, "--validate-every-steps", "30")) == 0
    return directory


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    """`python train.py`, as a newcomer types it, in an empty directory, with a quarter of the steps."""
    directory = tmp_path_factory.mktemp("newcomer")
    return directory, run_script(ROOT / "train.py", "--total-steps", 200, cwd=directory)


def test_the_default_makes_its_data_and_learns(short_run, monkeypatch, capsys):
    check_default(*short_run, 0.95, monkeypatch, capsys)


@pytest.mark.slow
def test_the_default_reaches_its_accuracy(tmp_path, monkeypatch, capsys):
    check_default(tmp_path, run_script(ROOT / "train.py", cwd=tmp_path), 0.975, monkeypatch, capsys)


def check_default(directory, done, accuracy, monkeypatch, capsys):
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == [
        f"making {directory}/data/digits: digits",
        f"{directory}/data/digits: 1,259 train, 179 validation, 359 test; 10 classes; 0 pictures rejected",
    ]
    start = "starting runs/digits with fresh variables, seed 0: preact_resnet_20, 8 px, preprocessing digits"
    assert f"{start}, data {directory}/data/digits" in lines
    assert "evaluate: python eval.py --ckpt runs/digits" in lines[-1]
    assert (directory / "data/digits/dataset.json").exists()

    monkeypatch.chdir(directory)
    assert run_main(ROOT / "eval.py", "--ckpt", "runs/digits", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert {"examples", "loss", "top1", "top1_interval", "top5", "classes", "step", "split"} <= set(result)
    assert result["examples"] == 359
    assert result["top1"] >= accuracy


def test_a_finished_run_says_so(short_run, monkeypatch, capsys):
    directory, _ = short_run
    before = sorted(os.listdir(directory / "runs/digits"))
    monkeypatch.chdir(directory)
    assert run_main(ROOT / "train.py", "--total-steps", 200) == 0
    out = capsys.readouterr().out
    assert "runs/digits is finished: step 200 of 200" in out
    assert "best validation: top-1 9" in out
    assert sorted(os.listdir(directory / "runs/digits")) == before


def test_what_a_run_directory_holds(run):
    names = {path.name.split(".tfevents")[0] for path in run.iterdir()}
    assert {"config.json", "dataset.json", "metrics.jsonl", "curves.png", "checkpoint", "best", "val"} <= names
    assert cv2.imread(str(run / "curves.png")) is not None
    assert json.loads((run / "config.json").read_text())["preprocessing"] == "digits"  # resolved
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["split"] == "train"] == list(range(10, 151, 10))
    assert rows[-1]["top1"] > rows[0]["top1"] + 0.3  # it learned


def test_tensorboard_gets_everything(run):
    def tags(directory):
        return {
            (value.tag, value.WhichOneof("value"))
            for file in directory.glob("events*")
            for event in tf.train.summary_iterator(str(file))
            for value in event.summary.value
        }

    scalars = {tag for tag, kind in tags(run) if kind == "simple_value"}
    trained = [f"tiny/{name}" for name in ("Conv/weights", "Conv/BatchNorm/beta", "logits/weights", "logits/biases")]
    assert scalars == {
        *("loss/cross_entropy", "loss/regularization", "loss/total", "accuracy/top1"),
        *("progress/learning_rate", "progress/images_per_second", "progress/gradient_norm"),
        *(f"weight_{kind}norm/{block}" for kind in ("", "gradient_") for block in ("Conv", "logits")),
    }
    assert tags(run / "val") == {
        *((tag, "simple_value") for tag in ("loss/cross_entropy", "accuracy/top1", "accuracy/top5")),
        *(("results/confusion", "image"), ("results/mistakes", "image")),
    }
    assert {("weight_filters/tiny/Conv/weights/image/0", "image"), ("settings", "tensor")} <= tags(run)
    assert {tag for tag, kind in tags(run) if kind == "histo"} == {f"weight_histogram/{name}" for name in trained}
    assert ("training_inputs/image/7", "image") in tags(run)
    # TensorBoard sorts groups by name and opens the first: what matters first comes first.
    order = sorted({tag.split("/")[0] for tag, _ in tags(run) | tags(run / "val")})
    assert order[:4] == ["accuracy", "loss", "progress", "results"]
    assert all(group.startswith("weight_") for group in order[6:])


def test_tensorboards_graph_has_few_nodes_at_the_top(run):
    """With 15 or more TensorBoard takes nodes of many edges out of the graph, the net first."""
    drawn = [e.graph_def for f in run.glob("events*") for e in tf.train.summary_iterator(str(f)) if e.graph_def]
    graph = tf.GraphDef.FromString(drawn[0])
    top = {node.name.partition("/")[0] for node in graph.node}
    assert {"input", "tiny", "loss", "update", "validation", "metrics", "summaries", "checkpoints"} <= top
    assert len(top) < 15
    assert not graph.library.function  # drawn beside the graph, higher than it


def test_name_scopes_are_no_part_of_variable_names(digits_data, tmp_path):
    options = ["--net", "alexnet_mnist", "--image-size", "28", "--optimizer", "adam", "--ema-decay", "0.9"]
    model = training.build(planned("--run-dir", str(tmp_path), "--data", digits_data, *options, "--clip-norm", "1"))
    names = {v.op.name for v in model.graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES)}
    scalars = {"global_step", "beta1_power", "beta2_power"}
    assert scalars <= names
    assert {name.partition("/")[0] for name in names - scalars} == {"alexnet_mnist"}
    top = {op.name.partition("/")[0] for op in model.graph.get_operations()}
    assert len(top) <= 15


def test_best_is_the_best_validation_row(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = max((r for r in rows if r["split"] == "validation"), key=lambda r: (r["top1"], -r["loss"]))
    assert newest_valid(str(run / "best")).endswith(f"-{best['step']}")
    again = evaluated(run / "best", split="validation")
    assert again._asdict() == pytest.approx({key: best[key] for key in ("examples", "loss", "top1", "top5")}, rel=1e-6)


def test_evaluation_counts_exactly_for_any_batch_size(run):
    results = [evaluated(run, batch_size=size) for size in (1, 50, 1000)]
    assert {(r.examples, r.top1, r.top5) for r in results} == {(359, results[0].top1, results[0].top5)}
    np.testing.assert_allclose([r.loss for r in results], results[0].loss, rtol=1e-6)


def test_splits(run, tmp_path, digits_data):
    assert evaluated(run, split="train").examples == 1259
    assert evaluated(run, split="validation").examples == 179
    shutil.copytree(digits_data, tmp_path / "no_test")
    dataset = json.loads((tmp_path / "no_test/dataset.json").read_text())
    dataset["splits"]["test"] = {"examples": 0, "shards": []}
    (tmp_path / "no_test/dataset.json").write_text(json.dumps(dataset))
    assert evaluated(run, data=str(tmp_path / "no_test")).examples == 179
    with pytest.raises(UserError, match="has no test split; it has train, validation"):
        evaluated(run, data=str(tmp_path / "no_test"), split="test")
    dataset["class_names"] = ["cat", "dog"]
    (tmp_path / "no_test/dataset.json").write_text(json.dumps(dataset))
    with pytest.raises(UserError, match="classes"):
        evaluated(run, data=str(tmp_path / "no_test"))


def test_a_moved_run_and_a_bare_checkpoint_need_no_more_than_they_say(run, tmp_path, digits_data):
    expected = evaluated(run)
    shutil.copytree(run, tmp_path / "elsewhere")
    assert evaluated(tmp_path / "elsewhere" / "model.ckpt-150.index") == expected

    prefix = newest_valid(str(run))
    reader = tf.train.NewCheckpointReader(prefix)
    with tf.Graph().as_default(), tf.Session() as session:  # as TF-Slim's old checkpoints: one file, no run directory
        for name in reader.get_variable_to_shape_map():
            tf.get_variable(name, initializer=reader.get_tensor(name))
        session.run(tf.global_variables_initializer())
        v1 = tf.train.Saver(write_version=tf.train.SaverDef.V1)
        v1.save(session, str(tmp_path / "tiny.ckpt"), write_meta_graph=False)
    assert evaluated(tmp_path / "tiny.ckpt", net="tiny", data=digits_data, batch_size=32) == expected
    with pytest.raises(UserError, match="--net is needed"):
        evaluated(tmp_path / "tiny.ckpt", data=digits_data)
    with pytest.raises(UserError, match="does not fit the net"):
        evaluated(tmp_path / "tiny.ckpt", net="preact_resnet_20", data=digits_data)
    with pytest.raises(UserError, match="contradicts"):
        evaluated(run, net="preact_resnet_20")


def bare_checkpoint(run, path, extra):
    """The run's newest checkpoint in one file, its head with `extra` more outputs in front that dominate, or fewer."""
    reader = tf.train.NewCheckpointReader(newest_valid(str(run)))
    with tf.Graph().as_default(), tf.Session() as session:
        for name in reader.get_variable_to_shape_map():
            value = reader.get_tensor(name)
            if name.startswith("tiny/logits"):
                border = [(0, 0)] * (value.ndim - 1) + [(max(extra, 0), 0)]
                value = np.pad(value, border, constant_values=50.0)[..., max(-extra, 0) :]
            tf.get_variable(name, initializer=value)
        session.run(tf.global_variables_initializer())
        v1 = tf.train.Saver(write_version=tf.train.SaverDef.V1)
        return v1.save(session, str(path), write_meta_graph=False)


def test_a_background_output_is_left_out(run, tmp_path, digits_data, capsys):
    expected = evaluated(run)
    assert "background" not in capsys.readouterr().err
    path = bare_checkpoint(run, tmp_path / "background.ckpt", 1)
    assert evaluated(path, net="tiny", data=digits_data) == pytest.approx(expected, rel=1e-6)
    assert "11 outputs: the first, background, is left out" in capsys.readouterr().err


@pytest.mark.parametrize("extra", [-1, 2])
def test_other_widths_are_named(extra, run, tmp_path, digits_data):
    path = bare_checkpoint(run, tmp_path / "other.ckpt", extra)
    with pytest.raises(UserError, match=rf"logits/\w+ is \[.*{10 + extra}\], the net needs \[.*10\]"):
        evaluated(path, net="tiny", data=digits_data)


def test_data_without_training_pictures_can_only_be_evaluated(run, tmp_path, digits_data):
    data = tmp_path / "data"
    shutil.copytree(digits_data, data)
    dataset = json.loads((data / "dataset.json").read_text())
    dataset |= {"name": "imagenet", "statistics": None}
    dataset["splits"] |= {split: {"examples": 0, "shards": []} for split in ("train", "validation")}
    (data / "dataset.json").write_text(json.dumps(dataset))
    with pytest.raises(UserError, match=f"no training pictures in {data}; it can only be evaluated") as failure:
        train(configured("--run-dir", str(tmp_path / "run"), "--data", str(data)))
    assert failure.value.exit_code == 2
    assert not (tmp_path / "run").exists()
    assert evaluated(run, data=str(data)) == evaluated(run)


def damaged_copy(digits_data, tmp_path, row, split="train"):
    """The digits with a changed byte in a record. Returns the directory and what names the record."""
    shutil.copytree(digits_data, tmp_path / "data")
    directory = str(tmp_path / "data")
    path, offset = Dataset.load(directory).index(split).place(row)
    with open(path, "r+b") as file:
        file.seek(offset + 20)
        file.write(b"\xff\xff")
    return directory, f"{path}: the record at byte {offset} is corrupt: its CRC is wrong"


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_corrupt_record_stops_the_run_before_it_starts(split, tmp_path, digits_data):
    data, fault = damaged_copy(digits_data, tmp_path, 17, split)
    with pytest.raises(UserError, match=f"{re.escape(fault)}.*--on-error skip") as failure:
        train(configured("--run-dir", str(tmp_path / "run"), "--data", data))
    assert failure.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_corrupt_records_are_replaced_where_asked(tmp_path, digits_data, capsys):
    data, fault = damaged_copy(digits_data, tmp_path, 17)
    place = ("--run-dir", str(tmp_path / "run"), "--data", data, "--total-steps", "10")
    assert train(configured(*place, "--on-error", "skip")) == 0
    out = capsys.readouterr().out
    assert fault in out
    assert "1 of 1259 training records are corrupt and were replaced by others" in out
    counted = [
        value.simple_value
        for file in (tmp_path / "run").glob("events*")
        for event in tf.train.summary_iterator(str(file))
        for value in event.summary.value
        if value.tag == "progress/replaced_records"
    ]
    assert counted == [1]


def test_evaluation_names_corrupt_records_or_leaves_them_out(run, tmp_path, digits_data):
    data, fault = damaged_copy(digits_data, tmp_path, 17, "test")
    with pytest.raises(UserError, match=re.escape(fault)):
        evaluated(run, data=data)
    assert evaluated(run, data=data, on_error="skip").examples == 358


def test_statistics_of_each_pixel_go_with_the_run(tmp_path, digits_data):
    place = ("--run-dir", str(tmp_path / "run"), "--data", digits_data, "--total-steps", "60")
    place += ("--validate-every-steps", "60")
    assert train(configured(*place, "--preprocessing", "standardize")) == 0
    expected = evaluated(tmp_path / "run")
    assert expected.top1 > 0.5
    shutil.copytree(digits_data, tmp_path / "data")
    (tmp_path / "data" / "pixel_stats.npz").unlink()  # the run has its own
    assert evaluated(tmp_path / "run", data=str(tmp_path / "data")) == expected
    place = ("--run-dir", str(tmp_path / "b"), "--data", str(tmp_path / "data"))
    with pytest.raises(UserError, match=r"--preprocessing standardize needs pixel_stats\.npz"):
        train(configured(*place, "--preprocessing", "standardize"))


def test_tf_slims_shards_are_trained_on_in_place(tmp_path, digits_data):
    slim = tmp_path / "slim"
    slim.mkdir()
    for split in "train", "test":
        shutil.copy(f"{digits_data}/digits_{split}_00000-of-00001.tfrecord", slim / f"mnist_{split}.tfrecord")
    (slim / "labels.txt").write_text("".join(f"{i}:{i}\n" for i in range(10)))
    before = {path.name: path.read_bytes() for path in slim.iterdir()}
    place = ("--run-dir", str(tmp_path / "run"), "--data", str(slim), "--dataset", "folder")
    place += ("--validate-every-steps", "100")
    assert train(configured(*place, "--total-steps", "100")) == 0
    assert evaluated(tmp_path / "run").examples == 359
    assert evaluated(tmp_path / "run").top1 > 0.5
    assert train(configured(*place, "--total-steps", "110")) == 0  # and resumed
    assert {name: (slim / name).read_bytes() for name in before} == before


def test_ten_crops_average_probabilities(tmp_path, digits_data):
    place = ("--run-dir", str(tmp_path / "run"), "--data", digits_data, "--total-steps", "40")
    place += ("--validate-every-steps", "40")
    assert train(configured(*place, "--preprocessing", "inception_crop")) == 0
    one, ten = evaluated(tmp_path / "run"), evaluated(tmp_path / "run", crops=10, batch_size=100)
    assert one.examples == ten.examples == 359
    assert ten.loss != one.loss
    assert abs(ten.loss - evaluated(tmp_path / "run", crops=10, batch_size=7).loss) < 1e-6
    logits = tf.constant(np.random.default_rng(0).normal(size=(20, 3)), tf.float32)
    with tf.Session() as session:
        mean, probabilities = session.run((tf.nn.softmax(averaged(logits, 10)), tf.nn.softmax(logits)))
    np.testing.assert_allclose(mean, probabilities.reshape(2, 10, 3).mean(1), rtol=1e-5)


def test_train_examples_uses_that_many_and_no_more(tmp_path, digits_data, monkeypatch):
    seen, run_step = set(), training.run_step

    def noting(session, model, *args, **kwargs):
        model = model._replace(step={**model.step, "rows": model.training.batches.rows})
        values = run_step(session, model, *args, **kwargs)
        seen.update(values["rows"].tolist())
        return values

    monkeypatch.setattr(training, "run_step", noting)
    train(configured("--run-dir", str(tmp_path / "run"), "--data", digits_data, "--train-examples", "50"))
    assert len(seen) == 50


def test_other_settings_are_refused_with_the_differences(run, digits_data):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with pytest.raises(UserError, match=r"--learning-rate was 0.01, now 0.2.*--run-dir"):
        train(
            configured("--run-dir", str(run), "--data", digits_data, "--learning-rate", "0.2", "--total-steps", "200")
        )
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_other_data_is_refused(run, digits_data, tmp_path):
    shutil.copytree(digits_data, tmp_path / "other")
    dataset = json.loads((tmp_path / "other/dataset.json").read_text())
    dataset["class_names"][3] = "drei"
    (tmp_path / "other/dataset.json").write_text(json.dumps(dataset))
    with pytest.raises(UserError, match="is not the data that"):
        train(configured("--run-dir", str(run), "--data", str(tmp_path / "other"), "--total-steps", "200"))


def test_more_steps_go_on_from_the_end(run, digits_data, tmp_path, capsys):
    longer = tmp_path / "longer"
    shutil.copytree(run, longer)
    assert train(configured("--run-dir", str(longer), "--data", digits_data, "--total-steps", "160")) == 0
    assert f"resuming {longer} from {longer}/model.ckpt-150, step 150 of 160" in capsys.readouterr().out
    assert newest_valid(str(longer)).endswith("-160")


def test_an_infinite_loss_stops_the_run_and_saves_nothing(tmp_path, digits_data):
    arguments = ("--run-dir", str(tmp_path / "run"), "--data", digits_data, "--optimizer", "momentum")
    with pytest.raises(UserError, match=r"not finite at step \d+, learning rate 1e\+30") as failure:
        train(configured(*arguments, "--learning-rate", "1e30", "--schedule", "constant"))
    assert failure.value.exit_code == 1
    assert newest_valid(str(tmp_path / "run")) is None


def test_the_users_own_pictures(tmp_path):
    pictures = picture_folder(tmp_path / "pictures")
    place = ("--run-dir", str(tmp_path / "run"), "--data", str(tmp_path / "data"))
    small = ("--image-size", "16", "--total-steps", "100", "--batch-size", "8", "--dataset", "folder")
    small += ("--validate-every-steps", "50")
    assert train(configured(*place, *small, "--source", str(pictures))) == 0
    assert evaluated(tmp_path / "run").top1 == 1.0
    assert json.loads((tmp_path / "run/dataset.json").read_text())["class_names"] == ["cat", "dog"]
    record = next(tf.io.tf_record_iterator(str(next((tmp_path / "data").glob("*test*.tfrecord")))))
    keys = {"class/label", "class/text", "encoded", "filename", "format", "height", "width"}
    assert set(tf.train.Example.FromString(record).features.feature) == {f"image/{key}" for key in keys}
    with pytest.raises(UserError, match="was made from"):
        train(configured(*place, *small, "--source", str(picture_folder(tmp_path / "others", count=13))))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project directory, the working directory, with pictures and a run that was made from them."""
    (tmp_path / "project").mkdir()
    picture_folder(tmp_path / "project/pics")
    monkeypatch.chdir(tmp_path / "project")
    convert("folder", "data/mine", "pics")
    assert train(configured(*OWN, "--run-dir", "runs/one")) == 0
    return tmp_path / "project"


OWN = ("--dataset", "folder", "--source", "pics", "--data", "data/mine", "--image-size", "16", "--batch-size", "8")
OWN += ("--total-steps", "2", "--validate-every-steps", "2")


def test_pictures_that_have_changed_since_are_named(project, capsys):
    shutil.move("pics/cat/3.jpg", "pics/dog/33.jpg")
    shutil.copy("pics/cat/2.jpg", "pics/cat/99.jpg")
    os.truncate("pics/dog/1.jpg", 300)
    remake = f"rm -r {project}/data/mine && python -m pipeline.convert folder --source pics --out {project}/data/mine"
    changes = "2 new (cat/99.jpg, dog/33.jpg), 1 gone (cat/3.jpg), 1 changed (dog/1.jpg)"
    with pytest.raises(UserError, match=f"was made from .*{re.escape(changes)}.*{re.escape(remake)}") as failure:
        train(configured(*OWN, "--run-dir", "runs/two"))
    assert failure.value.exit_code == 2
    assert not os.path.exists("runs/two")
    capsys.readouterr()
    without = [word for word in OWN if word not in ("--source", "pics")]
    assert train(configured(*without, "--run-dir", "runs/two")) == 0  # on what was there
    assert changes in capsys.readouterr().out
    assert train(configured(*OWN, "--run-dir", "runs/one", "--total-steps", "3")) == 0  # and a run goes on
    assert changes in capsys.readouterr().out
    shutil.rmtree("data/mine")
    convert("folder", "data/mine", "pics", on_error="skip")
    with pytest.raises(UserError, match=r"is not the data that runs/one was started with: its train split has"):
        train(configured(*without, "--run-dir", "runs/one", "--total-steps", "4"))


def test_a_project_that_was_moved_goes_on_by_the_same_command(project, tmp_path, monkeypatch, capsys):
    again = (*OWN, "--init-from", "runs/one", "--optimizer", "sgd")
    assert train(configured(*again, "--run-dir", "runs/two")) == 0
    before = evaluated("runs/one")
    for how in (shutil.move, shutil.copytree):
        place = tmp_path / how.__name__
        how(str(project), str(place))
        if project.exists():
            shutil.rmtree(project)
        for copied in place.rglob("pics/*/*"):
            os.utime(copied)  # as cp does
        project = place
        monkeypatch.chdir(project)
        assert evaluated("runs/one") == before
        capsys.readouterr()
        assert train(configured(*again, "--run-dir", "runs/two", "--total-steps", str(3 + len(how.__name__)))) == 0
        assert "resuming runs/two" in capsys.readouterr().out


def test_shards_made_anew_from_the_same_pictures_are_the_same_data(project):
    shutil.copytree("pics", "elsewhere/copy")
    shutil.rmtree("data/mine")
    convert("folder", "data/other", "elsewhere/copy")
    moved = [{"pics": "elsewhere/copy", "data/mine": "data/other"}.get(word, word) for word in OWN]
    assert train(configured(*moved, "--run-dir", "runs/one", "--total-steps", "3")) == 0
    shutil.move("elsewhere/copy/cat", "elsewhere/copy/x")  # as many pictures of the same names, sizes and statistics
    shutil.move("elsewhere/copy/dog", "elsewhere/copy/cat")
    shutil.move("elsewhere/copy/x", "elsewhere/copy/dog")
    convert("folder", "data/third", "elsewhere/copy")
    with pytest.raises(UserError, match="was started with: its train split has other records"):
        train(configured(*OWN, "--source", "elsewhere/copy", "--data", "data/third", "--run-dir", "runs/one"))


def test_data_of_an_earlier_version_are_compared_as_far_as_they_say(project):
    os.unlink("data/mine/.source.csv.gz")
    for path in ("data/mine/dataset.json", "runs/one/dataset.json"):
        dataset = json.loads(pathlib.Path(path).read_text())
        del dataset["options"]
        for split in dataset["splits"].values():
            del split["sha256"]
        pathlib.Path(path).write_text(json.dumps(dataset))
    assert train(configured(*OWN, "--run-dir", "runs/one", "--total-steps", "3")) == 0
    shutil.copytree("pics", "elsewhere")
    with pytest.raises(UserError, match=r"was made from .*leave --source out"):
        train(configured(*OWN, "--run-dir", "runs/two", "--source", "elsewhere"))


def test_a_damaged_list_of_the_source_is_named(digits_data, tmp_path, capsys):
    shutil.copytree(digits_data, tmp_path / "data")
    (tmp_path / "data/.source.csv.gz").write_bytes(b"garbled")
    place = ("--data", str(tmp_path / "data"))
    dataset = Dataset.load(str(tmp_path / "data"))
    with pytest.raises(UserError, match=r"gz is damaged .*; convert the data again, leave --source out"):
        check_source(dataset, configured(*place, "--source", str(tmp_path)).input, resumes=False)
    check_source(dataset, configured(*place).input, resumes=False)
    assert "gz is damaged" in capsys.readouterr().out


def test_ready_shards_need_no_name_of_their_source(tmp_path, digits_data, capsys):
    place = ("--run-dir", str(tmp_path / "run"), "--data", digits_data, "--total-steps")
    for steps in ("2", "3"):
        assert train(configured("--dataset", "folder", *place, steps)) == 0
        assert f"{digits_data} holds digits" in capsys.readouterr().out
    assert json.loads((tmp_path / "run/config.json").read_text())["dataset"] == "digits"
    assert train(configured(*place, "3")) == 0
    with pytest.raises(UserError, match="holds digits, not folder; give --dataset digits, leave --source out"):
        train(configured("--dataset", "folder", *place, "3", "--source", str(tmp_path)))


BAD_COMMANDS = {
    "preset": (["train.py", "digist"], "unknown preset 'digist': did you mean digits?"),
    "net": (["train.py", "--net", "vgg16"], "unknown net 'vgg16': did you mean vgg_16?"),
    "flag": (["train.py", "--learning-rat", "1"], "--learning-rate"),
    "checkpoint": (["eval.py", "--ckpt", "nowhere"], "--ckpt nowhere does not exist"),
    "source": (["train.py", "folder"], "needs --source DIR"),
}


@pytest.mark.parametrize("case", BAD_COMMANDS)
def test_a_mistake_gets_one_line_and_exit_code_2(case, tmp_path, monkeypatch, capfd):
    (script, *arguments), message = BAD_COMMANDS[case]
    if case in ("preset", "flag"):  # reported before TensorFlow's import
        done = run_script(ROOT / script, *arguments, cwd=tmp_path)
        code, err = done.returncode, done.stderr
    else:
        monkeypatch.chdir(tmp_path)
        code, err = run_main(ROOT / script, *arguments), capfd.readouterr().err
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    if case != "flag":  # drawn as a box by tyro
        assert [line for line in err.splitlines() if "error:" in line] == err.splitlines()[-1:]
    assert not any((tmp_path / name).exists() for name in ("runs", "data/folder"))


def test_two_trainings_do_not_share_a_run(run, digits_data):
    with exclusive(str(run)), pytest.raises(UserError, match="another training is writing"):
        train(configured("--run-dir", str(run), "--data", digits_data))
    assert train(configured("--run-dir", str(run), "--data", digits_data, "--total-steps", "150")) == 0


@pytest.mark.parametrize(
    "name", ["config.json", "dataset.json", "metrics.jsonl", "curves.png", "checkpoint", "best", "val"]
)
def test_a_name_that_is_taken_is_reported_before_the_training(name, digits_data, tmp_path):
    path = tmp_path / "run" / name
    if name in ("best", "val"):
        path.parent.mkdir()
        path.write_text("mine")
    else:
        path.mkdir(parents=True)
    with pytest.raises(UserError, match=f"{path} must be a .*, but is none; remove it") as failure:
        train(configured("--run-dir", str(tmp_path / "run"), "--data", digits_data))
    assert failure.value.exit_code == 2


def test_what_a_directory_holds_is_not_overwritten(run, digits_data, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/metrics.jsonl").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        train(configured("--run-dir", str(tmp_path / "notes"), "--data", digits_data))
    assert (tmp_path / "notes/metrics.jsonl").read_text() == "mine"


def test_the_best_checkpoint_alone_is_enough_to_go_on(run, digits_data, tmp_path, capsys):
    """As after a kill between the two saves of a step."""
    only_best = tmp_path / "only_best"
    shutil.copytree(
        run, only_best, ignore=lambda directory, names: [n for n in names if "ckpt" in n and directory == str(run)]
    )
    (only_best / "checkpoint").unlink()
    best = newest_valid(str(only_best / "best"))
    assert train(configured("--run-dir", str(only_best), "--data", digits_data, "--total-steps", "150")) == 0
    assert f"resuming {only_best} from {best}" in capsys.readouterr().out
    before, after = (tf.train.NewCheckpointReader(newest_valid(str(place))) for place in (run, only_best))
    for name in before.get_variable_to_shape_map():
        np.testing.assert_array_equal(before.get_tensor(name), after.get_tensor(name))


def test_a_best_checkpoint_whose_validation_is_lost_is_not_replaced(run, digits_data, tmp_path):
    lost = tmp_path / "lost"
    shutil.copytree(run, lost)
    (lost / "metrics.jsonl").unlink()
    before = {path: path.stat().st_mtime_ns for path in lost.rglob("*")}
    for steps in ("150", "160"):
        with pytest.raises(UserError, match=r"metrics\.jsonl lacks the validation that .*best/model\.ckpt-"):
            train(configured("--run-dir", str(lost), "--data", digits_data, "--total-steps", steps))
    assert {path: path.stat().st_mtime_ns for path in lost.rglob("*")} == before
    shutil.rmtree(lost / "best")
    assert train(configured("--run-dir", str(lost), "--data", digits_data, "--total-steps", "150")) == 0
    assert newest_valid(str(lost / "best")).endswith("-150")


def test_a_checkpoint_of_another_shape_is_not_gone_on_from(run, digits_data, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    reader = tf.train.NewCheckpointReader(newest_valid(str(run)))
    values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    values["tiny/logits/weights"] = values["tiny/logits/weights"][:, :7]
    values["global_step"] = np.int64(155)
    write_checkpoint(values, other / "model.ckpt-155")
    before = (other / "config.json").read_text()
    with pytest.raises(UserError, match=r"model.ckpt-155 does not fit the net: tiny/logits/weights is \[256, 7\]"):
        train(configured("--run-dir", str(other), "--data", digits_data, "--total-steps", "160"))
    assert (other / "config.json").read_text() == before
    (other / "dataset.json").unlink()
    with pytest.raises(UserError, match=r"dataset\.json is missing"):
        train(configured("--run-dir", str(other), "--data", digits_data, "--total-steps", "160"))


def test_weights_of_another_type_start_nothing(run, digits_data, tmp_path):
    reader = tf.train.NewCheckpointReader(newest_valid(str(run)))
    values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    (tmp_path / "double").mkdir()
    write_checkpoint({n: v.astype(np.float64) for n, v in values.items()}, tmp_path / "double/model.ckpt-0")
    arguments = ("--run-dir", str(tmp_path / "new"), "--data", digits_data, "--init-from", str(tmp_path / "double"))
    with pytest.raises(UserError, match=r"tiny/.* is float64; the net needs float32"):
        train(configured(*arguments))
    assert not (tmp_path / "new").exists()


def test_a_refused_run_removes_only_what_it_made(run, digits_data, tmp_path):
    (tmp_path / "mine/empty").mkdir(parents=True)
    refused = ("--data", digits_data, "--train-only", "nonsense", "--run-dir")
    for place in ("mine/empty", "new/deeper"):
        with pytest.raises(UserError, match="matches no variable"):
            train(configured(*refused, str(tmp_path / place)))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "mine"]
    (tmp_path / "held").mkdir()
    with exclusive(str(tmp_path / "held")):  # by another that has not written anything yet
        with pytest.raises(UserError, match="another training is writing"):
            train(configured("--run-dir", str(tmp_path / "held"), "--data", digits_data))
        assert (tmp_path / "held").exists()


def test_nobody_reads_what_is_printed():
    command = f"{sys.executable} -c \"import errors\nwith errors.reported(): print('x' * 10**6)\" | true"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" not in done.stderr


def test_pictures_too_small_for_a_net(tmp_path, digits_data):
    arguments = ("--run-dir", str(tmp_path / "run"), "--data", digits_data, "--net", "alexnet_v2", "--image-size", "32")
    with pytest.raises(UserError, match="the net cannot take pictures of 32×32: --image-size must be at least 195"):
        train(configured(*arguments))
    assert not (tmp_path / "run").exists()


def weights_of(directory):
    """The net's variables in the newest checkpoint of a run."""
    reader = tf.train.NewCheckpointReader(newest_valid(str(directory)))
    names = [name for name in reader.get_variable_to_shape_map() if name.startswith("tiny/")]
    return {name: reader.get_tensor(name) for name in names if not name.endswith(("/Adam", "/Adam_1"))}


def started_from(run, directory, *args):
    """The weights after one step too small to change them, of a run that starts from `run`."""
    arguments = ["--run-dir", str(directory), "--init-from", str(run), "--total-steps", "1"]
    assert train(configured(*arguments, "--learning-rate", "1e-30", "--warmup-steps", "0", *args)) == 0
    return weights_of(directory)


def test_a_run_may_start_from_anothers_weights(run, tmp_path, digits_data, capsys):
    first, second = weights_of(run), started_from(run, tmp_path / "second", "--data", digits_data, "--seed", "5")
    assert f"restored  {len(first):>5} variables" in capsys.readouterr().out
    for name, value in first.items():
        if "/moving_" not in name:
            np.testing.assert_array_equal(second[name], value, err_msg=name)


def test_grey_weights_do_not_start_a_run_on_colour(run, tmp_path):
    arguments = ["--dataset", "folder", "--source", str(picture_folder(tmp_path / "pictures"))]
    with pytest.raises(UserError, match=r"tiny/Conv/weights is \[3, 3, 1, 4\], the net needs \[3, 3, 3, 4\]"):
        started_from(run, tmp_path / "colour", *arguments, "--data", str(tmp_path / "data"), "--batch-size", "4")
    assert not (tmp_path / "colour").exists()


def test_a_start_that_does_not_exist_leaves_nothing(tmp_path, digits_data):
    arguments = ["--run-dir", str(tmp_path / "new"), "--data", digits_data, "--init-from"]
    for name, text in (("vgg16", "did you mean vgg_16"), ("no/such.ckpt", "does not exist")):
        with pytest.raises(UserError, match=text):
            train(configured(*arguments, name))
        assert not (tmp_path / "new").exists()


def test_damaged_weights_start_nothing(run, tmp_path, digits_data):
    damaged = tmp_path / "damaged"
    shutil.copytree(run, damaged)
    newest = pathlib.Path(newest_valid(str(damaged)))
    data = newest.with_name(f"{newest.name}.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:100])
    arguments = ["--run-dir", str(tmp_path / "new"), "--data", digits_data, "--init-from"]
    with pytest.raises(UserError, match="cannot be read"):
        train(configured(*arguments, str(newest)))
    assert not (tmp_path / "new").exists()
    (damaged / "checkpoint").unlink()  # the run as a whole falls back to what can be read
    assert weights_of(damaged).keys() == started_from(damaged, tmp_path / "new", "--data", digits_data).keys()
