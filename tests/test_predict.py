"""predict.py with one tiny net trained on a folder of pictures, and one on digits."""

import csv
import io
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest

import eval as evaluation
from classifier import Classifier
from errors import UserError, reported
from pipeline import montage
from pipeline.convert import convert
from pipeline.images import encode_png
from predict import parse_command_line, predict
from prediction import writers
from prediction.pictures import PictureReader, Prediction, list_pictures
from tfcompat import tf
from tiny_net import configured, picture_folder, train

ROOT = pathlib.Path(__file__).resolve().parents[1]
ODD = ROOT.parent / "shared/data/odd_images"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """JPEG and PNG, half of them larger than the short side that they are stored with."""
    folder = picture_folder(tmp_path_factory.mktemp("raw") / "pictures", count=8)
    rng = np.random.default_rng(1)
    for name in ("cat", "dog"):
        for i in range(4):
            cv2.imwrite(str(folder / name / f"small{i}.png"), rng.integers(0, 256, (9, 12, 3), np.uint8))
            cv2.imwrite(str(folder / name / f"large{i}.png"), rng.integers(0, 256, (19, 14, 3), np.uint8))
    return folder


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory):
    place = tmp_path_factory.mktemp("folder")
    convert("folder", str(place / "data"), str(pictures), short_side=12)
    options = ("--data", str(place / "data"), "--run-dir", str(place / "run"), "--total-steps", "10")
    assert train(configured("--dataset", "folder", *options)) == 0
    return place / "run"


@pytest.fixture(scope="module")
def digits_run(digits_data, tmp_path_factory):
    directory = tmp_path_factory.mktemp("digits") / "run"
    options = (
        "--data",
        digits_data,
        "--run-dir",
        str(directory),
        "--total-steps",
        "200",
        "--validate-every-steps",
        "200",
    )
    assert train(configured(*options, "--snapshot-every-steps", "200")) == 0
    return directory


def predicted(*words):
    return predict(parse_command_line([str(word) for word in words]))


def evaluated(run, split, table):
    """The rows of eval.py --per-image, by file."""
    options = evaluation.EvalOptions(str(run), split=split, per_image=str(table))
    evaluation.write(*evaluation.evaluate(options), options)
    with table.open(newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def expected(run, tmp_path_factory):
    return evaluated(run, "train", tmp_path_factory.mktemp("eval") / "eval.csv")


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_probabilities_are_those_of_evaluation(batch_size, expected, run, pictures, tmp_path):
    files = [str(pictures / name) for name in expected]
    assert {pathlib.Path(name).suffix for name in expected} == {".jpg", ".png"}
    assert len(files) > 20
    assert predicted("--ckpt", run, *files, "--batch-size", batch_size, "--csv", tmp_path / "p.csv", "--top-k", 1) == 0
    rows = rows_of(tmp_path / "p.csv")
    assert [row["file"] for row in rows] == files
    for row, by_eval in zip(rows, expected.values(), strict=True):
        assert row["label"] == by_eval["prediction"]
        assert float(row["probability"]) == pytest.approx(float(by_eval["probability"]), abs=1e-6, rel=0)
    assert len({row["probability"] for row in rows}) > 20


def test_pictures_are_read_in_several_threads_and_stay_in_order(run, pictures, monkeypatch):
    read, names = PictureReader.read, set()

    def slow_at_first(self, file):
        names.add(threading.current_thread().name)
        time.sleep(0.1 if file == files[0] else 0)
        return read(self, file)

    files = list_pictures(pictures)
    monkeypatch.setattr(PictureReader, "read", slow_at_first)
    assert [each.file for each in Classifier.load(run, batch_size=8).stream(files)] == files
    assert len(names) > 1 or len(os.sched_getaffinity(0)) == 1


def test_json_is_all_that_standard_output_gets(run, pictures, capsys):
    assert predicted("--ckpt", run, pictures, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry["file"] for entry in found] == sorted(map(str, pictures.rglob("*.*")))
    for entry in found:
        assert {prediction["label"] for prediction in entry["predictions"]} == {"cat", "dog"}
        first, second = (prediction["probability"] for prediction in entry["predictions"])
        assert first >= second
        assert first + second == pytest.approx(1, abs=1e-6)


def test_damaged_pictures_are_reported_and_the_others_predicted(run, pictures, tmp_path, capsys):
    (tmp_path / "cut.jpg").write_bytes((pictures / "cat/1.jpg").read_bytes()[:300])
    (tmp_path / "text\n.png").write_text("no picture")
    os.mkfifo(tmp_path / "waits.png")
    shutil.copy(pictures / "cat/0.jpg", tmp_path / "z.jpg")
    assert predicted("--ckpt", run, tmp_path, "--csv", tmp_path / "p.csv", "--sheet", tmp_path / "s.png") == 1
    out, err = capsys.readouterr()
    assert re.search(r"cut\.jpg: damaged", err)
    assert re.search(r"text\\n\.png: no picture of a known format", err)
    assert re.search(r"waits\.png: no regular file\n3 of 4 could not be read", err)
    assert [row["file"] for row in rows_of(tmp_path / "p.csv")] == [str(tmp_path / "z.jpg")] * 2
    assert re.fullmatch(r"\S+z\.jpg  (cat|dog)  +\d+\.\d\d%\n +(cat|dog)  +\d+\.\d\d%\n", out)
    assert cv2.imread(str(tmp_path / "s.png")) is not None


def test_names_that_are_no_text_and_files_without_end(run, pictures, tmp_path, capsys):
    shutil.copy(pictures / "cat/0.jpg", tmp_path / os.fsdecode(b"\xff.jpg"))
    with open(tmp_path / "endless.png", "wb") as file:
        file.truncate(2**42)
    assert predicted("--ckpt", run, tmp_path, "--json", "--sheet", tmp_path / "s.png") == 1
    assert "endless.png: larger than 2 GiB\n1 of 2 could not be read" in capsys.readouterr().err
    assert (tmp_path / "s.png").exists()


def test_outputs_that_cannot_be_written_are_reported(run, pictures, tmp_path, monkeypatch):
    words = ("--ckpt", run, pictures / "cat/0.jpg", "--csv", tmp_path / "p.csv", "--explain", tmp_path / "e")
    read, write = os.pipe()
    os.close(read)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True))
        with pytest.raises(UserError, match="standard output cannot be written"):
            predicted(*words)
        patch.setattr(sys, "stdout", io.TextIOWrapper(io.FileIO(write, "w"), write_through=True))
        with pytest.raises(SystemExit) as ended:
            predicted(*words)
    assert ended.value.code == 1
    assert list(tmp_path.iterdir()) == []


def test_nothing_but_damaged_pictures(run, tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(b"")
    words = ("--json", "--features", "logits", "--out", tmp_path / "f.npz", "--sheet", tmp_path / "s.png")
    assert predicted("--ckpt", run, tmp_path, *words, "--explain", tmp_path / "e") == 1
    assert json.loads(capsys.readouterr().out) == []
    assert len(np.load(tmp_path / "f.npz")["features"]) == 0
    assert not (tmp_path / "s.png").exists()
    assert list((tmp_path / "e").iterdir()) == []


def test_folders_are_searched_and_hidden_files_left_out(tmp_path):
    for name in ("b/2.PNG", "b/1.jpg", "a.gif", ".hidden.png", ".trash/1.png", "notes.txt", "plain"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    named = [str(tmp_path / name) for name in ("a.gif", "b/1.jpg", "b/2.PNG")]
    assert list_pictures([str(tmp_path)]) == list_pictures(tmp_path) == named
    assert list_pictures([str(tmp_path / "plain"), str(tmp_path / "b"), str(tmp_path / ".hidden.png")]) == [
        *(str(tmp_path / "plain"), *named[1:], str(tmp_path / ".hidden.png"))
    ]


def test_files_that_folders_hold_beside_pictures_are_counted(run, pictures, tmp_path, capsys):
    for name in ("a.HEIC", "b/c.heic", "notes.txt", "plain"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"holds no pictures \(.*; it holds 2 \.heic, 1 \.txt, 1 without an ending"):
        list_pictures(tmp_path)
    shutil.copy(pictures / "cat/0.jpg", tmp_path)
    assert predicted("--ckpt", run, tmp_path) == 0
    assert "left out of the folders" in (err := capsys.readouterr().err)
    assert "2 .heic, 1 .txt, 1 without an ending" in err


def test_large_pictures_are_taken_as_the_conversion_took_them(run, pictures, tmp_path, capsys):
    other = tmp_path / "run"
    shutil.copytree(run, other)
    description = json.loads((other / "dataset.json").read_text())
    assert description["max_pixels"] == 64_000_000
    (other / "dataset.json").write_text(json.dumps({**description, "max_pixels": 150}))
    words = ("--ckpt", other, pictures / "cat/small0.png", pictures / "cat/large0.png")  # 108 and 266 pixels
    assert predicted(*words) == 1
    assert "14×19 pixels, more than 150; --max-pixels allows more" in capsys.readouterr().err
    assert predicted(*words, "--max-pixels", 266) == 0
    with pytest.raises(UserError, match="--max-pixels is 0"):
        predicted(*words, "--max-pixels", 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere.png",), "nowhere.png does not exist"),
        (("{empty}",), r"holds no pictures \(\.bmp, "),
        (("{picture}", "--csv", "{empty}/p.txt"), r"--csv .* must be a \.csv"),
        (("{picture}", "--sheet", "{empty}/no/s.png"), r"--sheet .* in a directory that is there"),
        (("{picture}", "--features", "logits"), "--features END_POINT and --out FILE.npz belong together"),
        (("{picture}", "--features", "fc7", "--out", "{empty}/f.npz"), "unknown end point 'fc7': .*known are .*logits"),
        (("{picture}", "--data", "{empty}"), "names the classes itself; leave it out"),
        (("{picture}", "--invert", "yes"), "not trained on light strokes on black"),
        (("{picture}", "--explain", "{run}"), "exists and is not empty"),
        (("{picture}", "--batch-size", "0"), "--batch-size is 0; it must be at least 1"),
        ((), "no picture is named"),
        (("{png}", "--sheet", "{png}"), "is one of the pictures; choose another name"),
        (("{picture}", "--csv", "{empty}/p.csv", "--explain", "{empty}/p.csv"), "two outputs have one name"),
    ],
)
def test_mistakes_are_reported_and_nothing_is_written(words, message, run, pictures, tmp_path):
    places = {"empty": tmp_path, "picture": pictures / "cat/0.jpg", "run": run, "png": pictures / "cat/small0.png"}
    with pytest.raises(UserError, match=message):
        predicted("--ckpt", run, *(word.format(**places) for word in words))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("k", ["0", "-1", "many"])
def test_top_k_must_be_a_number_or_all(k, capsys):
    with pytest.raises(SystemExit) as failure, reported():
        parse_command_line(["--ckpt", "run", "a.png", "--top-k", k])
    assert failure.value.code == 2
    errors = {"many": "parsing --top-k: no type matching INT|{all}"}
    assert errors.get(k, f"--top-k is {k}; it must be at least 1") in capsys.readouterr().err
    assert parse_command_line(["--ckpt", "run", "a.png", "--top-k", "all"]).top_k == "all"


def test_a_checkpoint_without_run_directory(run, digits_run, digits_data, pictures, tmp_path, capsys):
    for file in digits_run.glob("model.ckpt-200.*"):
        shutil.copy(file, tmp_path)
    named = ("--ckpt", tmp_path / "model.ckpt-200", "--net", "tiny", "--top-k", "all", "--json")
    predicted(*named, "--data", digits_data, pictures / "cat/0.jpg")
    printed = capsys.readouterr()
    assert "names no classes" not in printed.err
    (found,) = json.loads(printed.out)
    assert sorted(entry["label"] for entry in found["predictions"]) == [str(i) for i in range(10)]
    for file in run.glob("model.ckpt-10.*"):
        shutil.copy(file, tmp_path)
    predicted("--ckpt", tmp_path / "model.ckpt-10", *named[2:], pictures / "cat/0.jpg")
    printed = capsys.readouterr()
    assert "the checkpoint names no classes: they are numbers; --data DIR gives names\n" in printed.err
    (found,) = json.loads(printed.out)
    assert sorted(entry["label"] for entry in found["predictions"]) == ["0", "1"]


def test_features_are_the_outputs_of_a_layer_in_the_order_of_the_files(run, pictures, tmp_path):
    out = tmp_path / "f.npz"
    assert predicted("--ckpt", run, pictures, "--features", "logits", "--out", out, "--csv", tmp_path / "p.csv") == 0
    found = np.load(out)
    files = sorted(map(str, pictures.rglob("*.*")))
    assert found["features"].shape == (len(files), 2)
    assert found["features"].dtype == np.float32
    assert found["files"].tolist() == files
    assert found["labels"].tolist() == [pathlib.Path(file).parent.name for file in files]
    shares = np.exp(found["features"] - found["features"].max(1, keepdims=True))
    probabilities = (shares / shares.sum(1, keepdims=True)).max(1)
    top = [float(row["probability"]) for row in rows_of(tmp_path / "p.csv") if row["rank"] == "1"]
    np.testing.assert_allclose(probabilities, top, atol=1e-6)


def test_each_picture_is_explained_though_names_repeat(run, pictures, tmp_path):
    files = [pictures / "cat/0.jpg", pictures / "dog/0.jpg"]
    assert predicted("--ckpt", run, *files, "--explain", tmp_path / "why") == 0
    made = sorted((tmp_path / "why").rglob("*.png"))
    assert [path.relative_to(tmp_path / "why").as_posix() for path in made] == ["cat/0.png", "dog/0.png"]
    for path in made:
        pixels = cv2.imread(str(path)).astype(int)
        assert pixels.shape[1] > 2 * 224  # the picture itself is on the left
        colors = np.abs(pixels - pixels.mean(2, keepdims=True)).max(2)
        assert colors[:, : pixels.shape[1] // 2].max() < 30
        assert colors[:, pixels.shape[1] // 2 :].max() > 60  # those of the map


def test_names_tell_files_apart_and_outputs_have_a_place_of_their_own():
    files = ["a/x/1.jpg", "a/y/1.jpg", "b/y/1.jpg", "2.jpg", "2.png"]
    assert list(writers.short_names(files).values()) == ["x/1.jpg", "a/y/1.jpg", "b/y/1.jpg", "2.jpg", "2.png"]
    places = [path.as_posix() for path in writers.output_names([*files, "2.jpg"]).values()]
    assert places == ["a/x/1.png", "a/y/1.png", "b/y/1.png", "2.png", "2_2.png"]
    assert writers.output_names(["/w/a.jpg"]) == {"/w/a.jpg": pathlib.Path("a.png")}
    long = writers.output_names([f"{'ä' * 126}.jpg", "b"])[f"{'ä' * 126}.jpg"]
    assert len(os.fsencode(long)) < 255
    assert writers.output_names([]) == writers.short_names([]) == {}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("names", [("猫", "dog"), ("cat", "n" * 75), ("a\nb", "e\u0301")])
@pytest.mark.parametrize("file", ["a.png", "folder/" * 15 + "a.png", "新しい/絵.png", "two\nlines.png"])
@pytest.mark.parametrize("terminal", [True, False])
def test_the_columns_of_the_table_are_aligned(terminal, file, names, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal() if terminal else io.StringIO())
    monkeypatch.setenv("COLUMNS", "100")
    prediction = Prediction(file, top=[(name, share) for name, share in zip(names, (0.995, 0.005), strict=True)])
    with writers.table([file, "b.png"], names) as write:
        write(prediction)
    lines = sys.stdout.getvalue().splitlines()
    long = terminal and writers.columns(file) + max(map(writers.columns, names)) > 89
    assert len(lines) == 2 + long
    assert [writers.columns(line) for line in lines[-2:]] == [writers.columns(lines[-1])] * 2
    assert lines[0].startswith(writers.printable(file))
    assert not terminal or writers.columns(lines[-1]) <= 100


def test_features_print_no_table(run, pictures, tmp_path, capsys):
    words = ("--ckpt", run, pictures / "cat/0.jpg", "--features", "logits", "--out", tmp_path / "f.npz")
    assert predicted(*words) == 0
    assert capsys.readouterr().out == ""
    assert predicted(*words, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 1


def test_many_pictures_fill_several_sheets_up_to_a_limit(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(montage, "ROWS", 1)
    monkeypatch.setattr(montage, "COLUMNS", 2)
    monkeypatch.setattr(montage, "SHEETS", 3)
    with montage.sheets("--sheet", str(tmp_path / "s.png")) as draw:
        for i in range(9):
            draw(np.zeros((4, 5, 1 + 2 * (i % 2)), np.uint8), f"$ {i}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.png", "s_2.png", "s_3.png"]
    assert "3 sheets are drawn; 3 pictures are on none" in capsys.readouterr().err


def test_drawings_are_read_as_the_digits_that_a_net_knows(digits_run, digits_data, tmp_path, capsys):
    expected = evaluated(digits_run, "test", tmp_path / "eval.csv")
    from sklearn.datasets import load_digits

    images = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    names = list(expected)[:100]
    for kind in ("as_trained", "drawn"):
        (tmp_path / kind).mkdir()
    for name in names:
        small = images[int(name[5:9])]
        large = 255 - np.pad(cv2.resize(small, (160, 160), interpolation=cv2.INTER_CUBIC), 50)
        (tmp_path / "as_trained" / name).write_bytes(encode_png(small).data)
        # Black strokes on what is transparent.
        cv2.imwrite(str(tmp_path / "drawn" / name), np.dstack([0 * large] * 3 + [255 - large]))

    def labels(*words):
        assert predicted("--ckpt", digits_run, *words, "--csv", tmp_path / "p.csv", "--top-k", 1) == 0
        return rows_of(tmp_path / "p.csv")

    as_trained = labels(tmp_path / "as_trained")
    assert "redrawn as light" not in capsys.readouterr().err
    for row, name in zip(as_trained, sorted(names), strict=True):
        assert float(row["probability"]) == pytest.approx(float(expected[name]["probability"]), abs=1e-6, rel=0)
    agree = {}
    for invert in ("auto", "yes", "no"):
        rows = labels(tmp_path / "drawn", "--invert", invert)
        agree[invert] = np.mean([a["label"] == b["label"] for a, b in zip(rows, as_trained, strict=True)])

        assert ("100 redrawn" in capsys.readouterr().err) == (invert != "no")
    assert agree["auto"] == agree["yes"] > 0.7 > 0.4 > agree["no"]


def test_python_gets_predictions_and_features(run, pictures, tmp_path, capfd):
    (tmp_path / "damaged.png").write_bytes((pictures / "cat/small0.png").read_bytes()[:50])
    files = [pictures / "dog", tmp_path / "damaged.png", str(pictures / "cat/0.jpg")]
    with tf.Graph().as_default() as graph:
        classifier = Classifier.load(run, batch_size=5)
        predictions = classifier.predict(files, top_k=1)
        features = classifier.features(files, "logits")
        (alone,) = classifier.stream(str(pictures / "cat/0.jpg"))  # a name, not its characters
        assert alone.error is None
        assert len(list(classifier.stream([pictures / "cat"]))) == len(list((pictures / "cat").iterdir()))
        stream = classifier.stream([str(pictures / "cat/0.jpg")], cam=True)
        first = next(stream)  # the stream is not closed yet
        assert tf.get_default_graph() is graph
        assert graph.get_operations() == []
    assert capfd.readouterr().out == ""
    assert [each.file for each in predictions] == list_pictures(files)
    (damaged,) = (each for each in predictions if each.error)
    assert (damaged.file, damaged.top) == (str(tmp_path / "damaged.png"), [])
    assert first.top[0] == pytest.approx(predictions[-1].top[0])
    assert first.cam.max() == 1
    assert features.values.shape == (len(predictions) - 1, 2)
    assert features.labels == ["dog"] * (len(predictions) - 2) + ["cat"]
    assert features.errors == {damaged.file: damaged.error}
    labels = [classifier.dataset.class_names[row.argmax()] for row in features.values]
    assert labels == [each.top[0][0] for each in predictions if not each.error]


@pytest.mark.slow
@pytest.mark.skipif(not ODD.is_dir(), reason="the odd pictures are not here")
def test_odd_pictures_are_predicted_or_reported_within_bounds(run):
    code = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]; import tiny_net, predict; "
    code += f"sys.exit(predict.predict(predict.parse_command_line(['--ckpt', {str(run)!r}, {str(ODD)!r}, '--json'])))"
    limit = 6 * 2**30  # of addresses, of which TensorFlow takes many

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert done.returncode == 1
    predictions = len(json.loads(done.stdout))
    named = len(re.findall(rf"^{re.escape(str(ODD))}\S+: \w", done.stderr, re.MULTILINE))
    assert predictions > 80
    assert named > 20
    assert predictions + named == len(list(ODD.iterdir()))
    assert "Traceback" not in done.stderr
