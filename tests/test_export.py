"""Export: each format runs in its programs, and equals the evaluation of the checkpoint."""

import dataclasses
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

import export
from classifier import Classifier
from errors import UserError, reported
from exporting import formats, runtimes
from exporting.comparison import PICTURES
from nets import NETS
from nets.weights import write_checkpoint
from pipeline.images import PictureFormat, encode_jpeg, encode_png, store
from pipeline.preprocess import Preprocessor
from tfcompat import tf
from tiny_net import configured, exported, train

ROOT = pathlib.Path(__file__).resolve().parent.parent
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/export.md").read_text(), re.DOTALL)
CUT, *CLIENTS = SNIPPETS


@pytest.fixture(scope="module")
def place(tmp_path_factory, digits_data):
    """A directory with the run runs/digits, its exports, and a picture of the test split."""
    directory = tmp_path_factory.mktemp("exports")
    run = str(directory / "runs/digits")
    steps = ("--total-steps", "20", "--validate-every-steps", "20", "--snapshot-every-steps", "20")
    assert train(configured("--run-dir", run, "--data", digits_data, *steps, "--ema-decay", "0.9")) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "LARGE", 1000)  # its matrix of 256×10 is treated as AlexNet's
        for format in export.FORMATS:
            exported(run, format)
        exported(run, "saved_model", input="jpeg")
    (directory / "five.png").write_bytes(export.freeze(Classifier.load(run)).files[3])
    return directory


def evaluated(ckpt, files, **options):
    """Probabilities [N, classes] by the graph that eval.py builds, each picture by itself."""
    return evaluated_by(Classifier.load(ckpt, **options), files)


def evaluated_by(net, files):
    with net.graph():
        file = tf.placeholder(tf.string, [])
        logits = net.build(net.preprocessor.evaluate(net.preprocessor.picture(file))[tf.newaxis])[0][""]
        with tf.Session() as session:
            net.restore(session)
            return np.concatenate([session.run(tf.nn.softmax(logits), {file: data}) for data in files])


def clients(directory, snippets):
    """The output of snippets of docs/export.md, each run after the one that cuts pictures, and their probabilities."""
    code = "\n".join(
        f"{CUT}\n{snippet}\nimport json; print(json.dumps(np.asarray(globals().pop('probabilities', None)).tolist()))"
        for snippet in snippets
    )
    code += "\nimport sys; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=directory, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_clients_with_tensorflow_get_the_checkpoints_probabilities(place):
    snippets = [snippet for snippet in CLIENTS if "tensorflow" in snippet]
    assert len(snippets) == 3
    saved, files, _, frozen, _ = clients(place, snippets)
    (expected,) = evaluated(place / "runs/digits", [(place / "five.png").read_bytes()])
    np.testing.assert_allclose(json.loads(saved)[0], expected, atol=1e-6)
    np.testing.assert_allclose(json.loads(frozen)[0], expected, atol=1e-6)
    name, probability = files.split()
    assert name == str(expected.argmax())
    assert float(probability) == pytest.approx(expected.max(), abs=1e-6)


def test_clients_without_tensorflow_get_the_checkpoints_probabilities(place):
    snippets = [snippet for snippet in CLIENTS if "import tensorflow" not in snippet]
    assert len(snippets) == 3
    *found, with_tensorflow = clients(place, snippets)
    assert with_tensorflow == "False"
    (expected,) = evaluated(place / "runs/digits", [(place / "five.png").read_bytes()])
    for line in found:
        np.testing.assert_allclose(json.loads(line)[0], expected, atol=1e-6)


def test_labels_and_metadata(place):
    for format in export.FORMATS:
        directory = place / "runs/digits/export" / format
        assert (directory / "labels.txt").read_text().split() == list("0123456789")
        metadata = json.loads((directory / "metadata.json").read_text())
        assert metadata["net"] == "tiny"
        assert (metadata["height"], metadata["width"], metadata["channels"]) == (8, 8, "grey")
        assert (metadata["preprocessing"], metadata["cut"], metadata["step"]) == ("digits", "squash", 20)
        assert metadata["shrink_to"] is None
        assert metadata["classes"] == list("0123456789")
        assert directory.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(("size", "words"), [(0, "0 bytes"), (11, "11 bytes"), (999, "999 bytes"), (1234, "1.2 kB")])
def test_sizes_of_small_files_are_in_bytes(size, words, tmp_path):
    (tmp_path / "labels.txt").write_bytes(bytes(size))
    assert export.size_of(tmp_path / "labels.txt") == words


def test_a_class_is_one_line_of_labels(place, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(place / "runs/digits", run, ignore=shutil.ignore_patterns("best", "export"))
    dataset = json.loads((run / "dataset.json").read_text())
    dataset["class_names"][3] = "three\nor so"  # folders may be called so
    (run / "dataset.json").write_text(json.dumps(dataset))
    out = exported(run, "frozen")
    assert (out / "labels.txt").read_text().splitlines() == ["0", "1", "2", "three\\nor so", *"456789"]
    assert json.loads((out / "metadata.json").read_text())["classes"] == dataset["class_names"]


def test_batch_norm_is_folded_and_dropout_removed(place):
    graph = tf.GraphDef.FromString((place / "runs/digits/export/frozen/frozen_graph.pb").read_bytes())
    kinds = [node.op for node in graph.node if node.op != "Const"]
    assert kinds.count("Conv2D") == 1
    assert not {"FusedBatchNormV3", "ReadVariableOp", "VarHandleOp"} & set(kinds)
    assert kinds.count("Identity") == 1  # the logits


def test_a_large_matrix_is_no_constant_to_tensorflow(place):
    """oneDNN would keep it in a layout for the first batch's size, and convert it at each step of another."""
    graph = tf.GraphDef.FromString((place / "runs/digits/export/frozen/frozen_graph.pb").read_bytes())
    kinds = {node.name: node.op for node in graph.node}
    assert [kinds[node.input[1]] for node in graph.node if node.op == "MatMul"] == ["PlaceholderWithDefault"]


def test_ema_weights(place, tmp_path):
    run, files = place / "runs/digits", [(place / "five.png").read_bytes()]
    out = exported(run, "onnx", ema=True, out=str(tmp_path / "out"))
    pixels = cv2.imread(str(place / "five.png"), cv2.IMREAD_GRAYSCALE)[None, :, :, None].astype(np.float32)
    found = runtimes.onnx_runtime(out)(pixels)["probabilities"]
    np.testing.assert_allclose(found, evaluated(run, files, ema=True), atol=1e-6)
    assert np.abs(found - evaluated(run, files)).max() > 1e-3


def weights_of(outputs, channels=3, name="tiny", size=8):
    """Random weights of a net, with the batch norm of one that was trained, by name."""
    random, values = np.random.default_rng(0), {}
    with tf.Graph().as_default():
        tf.set_random_seed(0)
        images = tf.placeholder(tf.float32, [1, size, size, channels])
        NETS[name].build(images, outputs, False, 0.0)
        for variable in tf.global_variables():
            shape, kind = variable.shape.as_list(), variable.op.name.rpartition("/")[2]
            if kind in ("gamma", "moving_variance"):
                value = random.uniform(0.5, 1.5, shape)
            else:
                value = random.normal(0, np.sqrt(2 / np.prod(shape[:-1])) if kind.endswith("weights") else 0.1, shape)
            values[variable.op.name] = value.astype(np.float32)
    return values


def test_python_exports_and_keeps_its_graph(place, tmp_path, capsys):
    with tf.Graph().as_default() as graph:
        classifier = Classifier.load(place / "runs/digits")
        out, pictures, differences = export.export(classifier, "onnx", tmp_path / "out")
        assert tf.get_default_graph() is graph
        assert graph.get_operations() == []
    assert out == tmp_path / "out"
    assert pictures.startswith("8 pictures of ")
    assert [line.partition(" differ by up to")[0] for line in differences] == ["ONNX Runtime: probabilities"]
    assert capsys.readouterr().out == ""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)).astype(np.float32)
    made, by_command = (runtimes.onnx_runtime(path)(pixels) for path in (out, place / "runs/digits/export/onnx"))
    np.testing.assert_array_equal(made["logits"], by_command["logits"])
    with pytest.raises(UserError, match="unknown format 'onx': did you mean onnx"):
        export.export(classifier, "onx", tmp_path / "other")


@pytest.mark.parametrize(("outputs", "classes"), [(1, 2), (1001, 1000), (5, 5)], ids=["sigmoid", "background", "five"])
def test_a_checkpoint_without_run_directory(outputs, classes, tmp_path, capsys):
    write_checkpoint(weights_of(outputs), tmp_path / "model.ckpt-7")
    options = {"net": "tiny", "image_size": 8, "preprocessing": "vgg"}
    out = exported(tmp_path / "model.ckpt-7", "frozen", out=str(tmp_path / "out"), **options)
    printed = capsys.readouterr().out
    assert "noise" in printed
    assert re.search("OpenCV's dnn: probabilities differ", printed)  # it cannot subtract a mean of each channel
    assert "other numbers" not in printed
    picture = np.random.default_rng(1).integers(0, 256, (9, 9, 3)).astype(np.uint8)  # its centre is what is cut
    found = runtimes.session(out)(picture[None, :8, :8].astype(np.float32))
    expected = evaluated(tmp_path / "model.ckpt-7", [encode_png(picture).data], **options)
    assert found["probabilities"].shape == expected.shape == (1, classes)
    np.testing.assert_allclose(found["probabilities"].sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-6)
    with pytest.raises(UserError, match="so --out is needed"):
        exported(tmp_path / "model.ckpt-7", "frozen", **options)
    with pytest.raises(UserError, match="is the name of a checkpoint"):
        exported(tmp_path / "model.ckpt-7", "frozen", out=str(tmp_path / "model.ckpt-7"), **options)
    assert not (tmp_path / "model.ckpt-7").exists()


def test_statistics_of_each_pixel_are_used_at_their_size(place, tmp_path):
    """Of digits of 8×8, for a net of 12×12."""
    net = Classifier.load(place / "runs/digits")
    write_checkpoint(weights_of(10, channels=1, size=12), tmp_path / "model.ckpt-7")
    preprocessor = dataclasses.replace(net.preprocessor, name="standardize", size=12)
    net = dataclasses.replace(net, checkpoint=str(tmp_path / "model.ckpt-7"), preprocessor=preprocessor)
    made = export.freeze(net)
    assert made.images.shape == (PICTURES, 8, 8, 1)
    formats.save_tflite(made.graph, tmp_path)
    found = runtimes.litert(tmp_path)(made.images)["probabilities"]
    np.testing.assert_allclose(found, evaluated_by(net, made.files), atol=1e-6)


@pytest.mark.parametrize("preprocessing", ["vgg", "inception", "unit"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("kind", "size"), [("png", (90, 60)), ("jpg", (90, 60)), ("jpg", (700, 400))])
def test_pictures_are_cut_as_evaluation_cuts_them(kind, size, preprocessing, channels, tmp_path):
    """By the function that docs/export.md gives to clients; JPEGs that training decodes at an eighth, too."""
    coarse = np.random.default_rng(0).uniform(0, 255, (size[1] // 12, size[0] // 12, channels))
    picture = np.atleast_3d(cv2.resize(coarse, size)).astype(np.uint8)
    data = (encode_png(picture) if kind == "png" else encode_jpeg(picture)).data
    (tmp_path / "picture").write_bytes(data)
    preprocessor, client = Preprocessor(preprocessing, 32, channels), {}
    colours = {1: "grey", 3: "RGB"}[channels]
    metadata = {"height": 32, "width": 32, "channels": colours, "shrink_to": None, **preprocessor.describe()}
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    exec(CUT, client)
    with tf.Session() as session:
        expected = session.run(preprocessor.cut(preprocessor.picture(tf.constant(data))))
    np.testing.assert_allclose(client["cut"](str(tmp_path / "picture"), tmp_path), expected, atol=0.01)
    if kind == "png":  # as the converter shrinks it, without loss
        (tmp_path / "metadata.json").write_text(json.dumps({**metadata, "shrink_to": 45}))
        with tf.Session() as session:
            small = store(data, PictureFormat(channels, 45)).data
            expected = session.run(preprocessor.cut(preprocessor.picture(tf.constant(small))))
        np.testing.assert_allclose(client["cut"](str(tmp_path / "picture"), tmp_path), expected, atol=0.01)


def test_an_operation_that_opencv_lacks_is_reported_and_is_no_failure(tmp_path, capsys):
    write_checkpoint(weights_of(5), tmp_path / "model.ckpt-7")
    options = {"net": "tiny", "image_size": 8, "preprocessing": "cifar"}
    out = exported(tmp_path / "model.ckpt-7", "frozen", out=str(tmp_path / "out"), **options)
    assert (out / runtimes.FROZEN).exists()
    assert "OpenCV's dnn cannot run this net: parseMean: Unsupported mode of reduce_mean" in capsys.readouterr().out


# Errors, after which nothing is left


@pytest.mark.parametrize(
    "options",
    [
        ["--format", "pickle"],
        ["--format", "onnx", "--input", "jpeg"],
        [],
        ["--format", "onnx", "--input", "gif"],
        ["--format", "onnx", "--out", ""],
        ["--format", "saved_model", "--out", "\udcff"],
    ],
)
def test_a_wrong_command_ends_with_2(options, capsys):
    with pytest.raises(SystemExit) as caught, reported():
        export.parse_command_line(["--ckpt", "runs/digits", *options])
    assert caught.value.code == 2
    wrong = options[-1] if options else "--format"
    assert ascii(wrong).strip("'") in capsys.readouterr().err


def test_an_export_replaces_an_earlier_one_and_nothing_else(place, tmp_path):
    out, run = tmp_path / "out", place / "runs/digits"
    exported(run, "frozen", out=str(out))
    exported(run, "saved_model", out=str(out))
    exported(run, "onnx", out=str(out), ema=True)
    assert sorted(path.name for path in out.iterdir()) == ["labels.txt", "metadata.json", "model.onnx"]
    assert json.loads((out / "metadata.json").read_text())["averaged_weights"] is True
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    kept = (out / "model.onnx").read_bytes()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and is not empty") as caught:
        exported(run, "onnx", out=str(out))
    assert caught.value.exit_code == 2
    assert ((out / "notes.txt").read_text(), (out / "model.onnx").read_bytes()) == ("mine", kept)
    (out / "notes.txt").unlink()
    (out / "metadata.json").write_text("[]")  # of another program
    with pytest.raises(UserError, match="exists and is not empty"):
        exported(run, "onnx", out=str(out))


def test_an_export_that_fails_keeps_the_earlier_one(place, tmp_path, monkeypatch):
    out = exported(place / "runs/digits", "frozen", out=str(tmp_path / "out"))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setitem(formats.WRITERS, "frozen", lambda graph, directory: (directory / "missing/file").read_bytes())
    with pytest.raises(UserError, match="cannot be written"):
        exported(place / "runs/digits", "frozen", out=str(out))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_net_that_gives_other_numbers_is_not_left(place, tmp_path, monkeypatch):
    def damaged(graph, directory):
        graph = tf.GraphDef.FromString(graph.SerializeToString())
        weights = next(node for node in graph.node if node.name == "tiny/logits/weights")
        array = tf.make_ndarray(weights.attr["value"].tensor) * 1.001
        weights.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array))
        formats.save_frozen(graph, directory)

    monkeypatch.setitem(formats.WRITERS, "frozen", damaged)
    with pytest.raises(export.ExportError, match="gives other numbers than the checkpoint") as caught:
        exported(place / "runs/digits", "frozen", out=str(tmp_path / "made/out"))
    assert caught.value.exit_code == 1
    assert not list((tmp_path / "made").iterdir())


def test_a_net_whose_outputs_are_not_finite_is_not_left(place, tmp_path):
    run, out = tmp_path / "run", tmp_path / "made/out"
    shutil.copytree(place / "runs/digits", run, ignore=shutil.ignore_patterns("model.ckpt*", "best", "export"))
    reader = tf.train.NewCheckpointReader(str(place / "runs/digits/model.ckpt-20"))
    values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    values["tiny/logits/weights"] = np.full_like(values["tiny/logits/weights"], 3e38)  # finite, but their sums are not
    write_checkpoint(values, run / "model.ckpt-20")
    with pytest.raises(export.ExportError, match="itself gives logits that are not finite"):
        exported(run, "frozen", out=str(out))
    assert not list(out.parent.iterdir())


TERMINATED = """
import os, runpy, signal, sys
import tiny_net
from exporting import comparison
terminate = lambda directory: os.kill(os.getpid(), signal.SIGTERM)
comparison.RUNTIMES["tflite"] = [("LiteRT", terminate, True)]
runpy.run_path(tiny_net.export.__file__, run_name="__main__")
"""


def test_it_can_be_terminated_and_leaves_nothing(place, tmp_path):
    options = ["--ckpt", place / "runs/digits", "--format", "tflite", "--out", tmp_path / "made/out"]
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment = {**os.environ, "PYTHONPATH": paths, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", TERMINATED, *map(str, options)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 143, done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "made").iterdir())
    assert not list(tmp_path.glob("tmp*"))  # the SavedModel that it is converted from


@pytest.mark.parametrize("format", ["frozen", "saved_model"])
def test_a_full_disk_leaves_nothing(format, place, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # as a full disk, without the right to mount one
    try:
        with pytest.raises(UserError, match="cannot be written") as caught:
            exported(place / "runs/digits", format, out=str(tmp_path / "made/out"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.exit_code == 2
    assert not list((tmp_path / "made").iterdir())


# Hostile files

SENDING = """
import glob, resource, sys
import tensorflow as tf
net = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
good = open(sys.argv[2], "rb").read()
net(files=tf.constant([good]))
before = peak()
for path in sys.argv[3:]:
    try:
        answer = net(files=tf.constant([good, open(path, "rb").read()]))
        print("answered", *answer["probabilities"].shape, path)
    except tf.errors.InvalidArgumentError as error:
        print("refused", path, error.message.replace(chr(10), " "))
print(peak() - before)
"""


def test_hostile_files_are_refused_and_cost_little(place, tmp_path):
    good = (place / "five.png").read_bytes()
    bomb = encode_png(np.zeros((8000, 8000, 1), np.uint8)).data
    (start,) = cv2.imencode(".jpg", np.zeros((8, 8), np.uint8))[1:]
    jpeg = start.tobytes()
    frame = jpeg.index(b"\xff\xc0") + 5  # height and width of the picture follow
    files = {
        "empty": b"",
        "short.jpg": jpeg[:3],
        "header.png": good[:33],
        "no_size.png": good[:16] + bytes(8) + good[24:],
        "negative.png": good[:16] + b"\xff" * 8 + good[24:],
        "large.png": bomb[:16] + b"\0\0\x1f\x41" + bomb[20:],  # 8001 wide
        "large.jpg": jpeg[:frame] + b"\xff\xdc\xff\xdc" + jpeg[frame + 4 :],
        "cut.png": good[:-20],
        "text.png": b"GIF89a, of no use" * 9,
        "bomb.png": bomb,  # of as many pixels as are allowed
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    odd = sorted((ROOT / "../shared/data/odd_images").resolve().glob("*"))
    paths = [*(tmp_path / name for name in files), *odd]
    model = place / "runs/digits/export/saved_model_jpeg"
    done = subprocess.run(
        [sys.executable, "-c", SENDING, model, place / "five.png", *paths], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    *lines, peak = done.stdout.splitlines()
    assert len(lines) == len(paths)
    refused = {pathlib.Path(line.split()[1]).name: line for line in lines if line.startswith("refused")}
    assert set(files) - set(refused) == {"bomb.png"}
    for name in ("large.png", "large.jpg", "no_size.png", "negative.png"):
        assert "[of the batch has height and width]" in refused[name], refused[name]
    for name in ("empty", "header.png", "text.png"):
        assert "[picture] [1] [of the batch is neither JPEG nor PNG]" in refused[name], refused[name]
    assert any(line.startswith("answered 2 10") and "bomb.png" in line for line in lines)
    assert int(peak) < 1000, f"{peak} MB"  # 384 for the bomb


# The published families, in all four formats


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["alexnet_v2", "inception_v1", "mobilenet_v1", "resnet_v1_50", "resnet_v2_50", "vgg_16", "alexnet_2012"]
)
def test_families_in_all_formats(name, tmp_path, capsys):
    net = NETS[name]
    write_checkpoint(weights_of(5, net.channels, name, net.image_size), tmp_path / "model.ckpt-7")
    for format in export.FORMATS:
        exported(tmp_path / "model.ckpt-7", format, net=name, out=str(tmp_path / format))
    printed = capsys.readouterr().out
    assert printed.count("differ by up to") == 5  # OpenCV's dnn, too
    assert not re.search("cannot run|gives other numbers", printed)
