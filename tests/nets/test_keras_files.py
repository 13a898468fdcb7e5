"""Keras's weights in our nets: equal logits on equal pictures, from every kind of file, and back into Keras."""

import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest

from checkpoints import locate, write_checkpoint
from errors import UserError
from nets import NETS
from nets.weights import array_checks, keras_files
from nets.weights.keras_files import read_weights, write_weights
from nets.weights.keras_layers import to_keras, to_slim
from tfcompat import eager_mode, tf

REAL = pathlib.Path(__file__).resolve().parents[3] / "shared/data/weights/mobilenet_v1_0.25_224_keras_names.npz"
MOBILENET = "mobilenet_v1_025"
APPLICATIONS = {MOBILENET: "MobileNet", "resnet50_keras": "ResNet50"}
SIZES = {MOBILENET: 96, "resnet50_keras": 64, "vgg_16": 224}
CLASSES = 7

# The start of the Keras program. The values depend only on the layers' current names, so all files of a net have the
# same values.
HELPERS = """
import json, sys, zlib
import h5py
import numpy as np

def values_like(part, shape, rng):
    if part.endswith("kernel"):
        fan_in = np.prod(shape[:2] if part == "depthwise_kernel" else shape[:-1])
        # He's deviation. Uniform numbers are three times as fast as normal ones, and VGG-16 needs 138 million.
        numbers = rng.random(shape, np.float32)
        numbers -= np.float32(0.5)
        numbers *= np.float32(np.sqrt(24 / fan_in))
        return numbers
    if part in ("gamma", "moving_variance"):
        return rng.uniform(0.5, 1.3, shape).astype(np.float32)
    return rng.normal(0, 0.1, shape).astype(np.float32)

def build(application, randomized=True, classes=7, size=None, **options):
    if size is not None:
        options["input_shape"] = (size, size, 3)
    if options.get("include_top", True):
        options |= {"classes": classes, "classifier_activation": None}
    keras.initializers.GlorotUniform.__call__ = keras.initializers.Zeros.__call__  # they are set below
    model = getattr(keras.applications, application)(weights=None, **options)
    for layer in model.layers if randomized else ():
        rng = np.random.default_rng(zlib.crc32(layer.name.encode()))
        parts = ["depthwise_kernel" if layer.name.startswith("conv_dw") and w.ndim == 4 else
                 v.name.split("/")[-1].split(":")[0] for v, w in zip(layer.weights, layer.get_weights())]
        layer.set_weights([values_like(p, v.shape, rng) for p, v in zip(parts, layer.weights)])
    return model

def logits(model, picture):
    return np.asarray(model(picture, training=False))
"""
WITH_KERAS_3 = """
import keras
outputs = {}
for net, application, options in (
    ("mobilenet_v1_025", "MobileNet", {"alpha": 0.25, "size": 96}),
    ("resnet50_keras", "ResNet50", {"size": 64}),
    ("vgg_16", "VGG16", {}),
):
    model = build(application, **options)
    outputs[net] = logits(model, np.load(f"{net}_picture.npy"))
    model.save_weights(f"{net}.weights.h5")
    if net == "mobilenet_v1_025":
        model.compile("adam", "mse")
        model.optimizer.build(model.trainable_variables)
        model.save(f"{net}.keras")
        build(application, **options, include_top=False).save(f"{net}_no_top.keras")
bare = build("VGG19", include_top=False, randomized=False)
shapes = {l.name: [list(w.shape) for w in l.weights] for l in bare.layers if l.weights}
json.dump(shapes, open("vgg_19.json", "w"))
np.savez("logits.npz", **outputs)
"""
WITH_KERAS_2 = """
import re
import tf_keras as keras

def old_name(name):
    if name in ("conv1_conv", "conv1_bn", "predictions"):
        return {"conv1_conv": "conv1", "conv1_bn": "bn_conv1", "predictions": "fc1000"}[name]
    if not (found := re.fullmatch(r"conv(\\d)_block(\\d)_(\\d)_(conv|bn)", name)):
        return name
    stage, block, branch, kind = found.groups()
    kind = {"conv": "res", "bn": "bn"}[kind]
    return f"{kind}{stage}{'?abcdef'[int(block)]}_branch{['1', '2a', '2b', '2c'][int(branch)]}"

model = build("MobileNet", alpha=0.25, size=96)
model.compile("adam", "mse")
model.optimizer.build(model.trainable_variables)
model.save("mobilenet_v1_025_whole.h5")
assert len(h5py.File("mobilenet_v1_025_whole.h5")["optimizer_weights"].attrs["weight_names"]) > 100
model.save("mobilenet_v1_025_unnamed.keras")
base = build("MobileNet", alpha=0.25, size=96, include_top=False)
nested = keras.Sequential([base, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, name="mine")])
nested.save_weights("mobilenet_v1_025_nested.h5")
nested.save("mobilenet_v1_025_nested.keras")
model = build("ResNet50", size=64)
model.save_weights("resnet50_keras.h5")
model.save_weights("resnet50_keras_unnamed.weights.h5")
keras.Model(model.input, model.layers[-2].output).save_weights("resnet50_keras_no_top.h5")
for layer in model.layers:
    layer._name = old_name(layer.name)
model.save_weights("resnet50_keras_old.h5")
build("VGG16", include_top=False).save_weights("vgg_16_no_top.h5")
"""
# Runs after keras_files.KERAS_PROGRAM in the same process, because the import of Keras is the slowest part: a new
# model loads the written file. {0} is the directory of the pictures.
AFTER_WRITING = """
picture = np.load("{0}/" + application + "_picture.npy")
side = picture.shape[1]
fresh = getattr(keras.applications, application)(
    weights=None, classifier_activation=None, input_shape=(side, side, 3), **json.loads(options))
assert not np.array_equal(fresh.get_weights()[0], model.get_weights()[0])
fresh.load_weights(path)
np.save("{0}/" + application + "_again.npy", fresh(picture, training=False))
"""


def picture(net_name):
    """A picture for our net, [1, side, side, 3]."""
    side = SIZES[net_name]
    return np.random.default_rng(side).normal(size=(1, side, side, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A directory with Keras's files, and the logits that Keras computes with them in logits.npz."""
    directory = tmp_path_factory.mktemp("keras")
    for net_name in SIZES:
        bgr = net_name != MOBILENET
        np.save(directory / f"{net_name}_picture.npy", picture(net_name)[..., :: -1 if bgr else 1])
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, "-c", HELPERS + WITH_KERAS_3 + WITH_KERAS_2]  # one import of TensorFlow for both
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    yield directory
    for path in directory.glob("vgg_16*"):  # pytest keeps the directories of its last three runs
        path.unlink()


@functools.cache
def read(path):
    return read_weights(path)


@functools.cache
def imported(path, net_name):
    return to_slim(read(path), net_name)


def logits_of(net_name, values, inputs):
    """Our net's logits in evaluation mode with these values."""
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.placeholder(tf.float32, inputs.shape)
        logits, _ = NETS[net_name].build(images, CLASSES, is_training=False, weight_decay=0.0)
        variables = {v.op.name: v for v in tf.global_variables()}
        assert values.keys() == variables.keys()
        initial = {variable.initializer.inputs[1]: values[name] for name, variable in variables.items()}
        session.run([variable.initializer for variable in variables.values()], initial)
        return [session.run(logits, {images: x}) for x in (inputs, inputs[..., ::-1])]


def assert_same_logits(got, expected):
    assert np.abs(expected).max() > 0.1
    assert expected.std() > 0.05 * np.abs(expected).max()
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("net_name", SIZES)
def test_logits_equal_keras(files, net_name):
    values, unused = imported(files / f"{net_name}.weights.h5", net_name)
    assert unused == {}
    expected = np.load(files / "logits.npz")[net_name]
    ours, of_turned_channels = logits_of(net_name, values, picture(net_name))
    assert_same_logits(ours, expected)
    assert np.abs(of_turned_channels - ours).max() > 0.01 * np.abs(ours).max()  # the order of channels matters here


@pytest.mark.parametrize(
    ("file", "net_name"),
    [
        ("mobilenet_v1_025.keras", MOBILENET),
        ("mobilenet_v1_025_whole.h5", MOBILENET),
        ("mobilenet_v1_025_unnamed.keras", MOBILENET),
        ("mobilenet_v1_025_no_top.keras", MOBILENET),
        ("mobilenet_v1_025_nested.h5", MOBILENET),
        ("mobilenet_v1_025_nested.keras", MOBILENET),
        ("resnet50_keras.h5", "resnet50_keras"),
        ("resnet50_keras_unnamed.weights.h5", "resnet50_keras"),
        ("resnet50_keras_no_top.h5", "resnet50_keras"),
        ("resnet50_keras_old.h5", "resnet50_keras"),
        ("vgg_16_no_top.h5", "vgg_16"),
    ],
)
def test_every_kind_of_file_gives_the_same_values(files, file, net_name):
    expected, _ = imported(files / f"{net_name}.weights.h5", net_name)
    values, unused = imported(files / file, net_name)
    without_top = "no_top" in file or "nested" in file
    heads = ("vgg_16/fc", f"resnet50_keras/fc{CLASSES}", "MobilenetV1/Logits")
    assert values.keys() == {name for name in expected if not (without_top and name.startswith(heads))}
    assert (len(values) < len(expected)) == without_top
    for name, value in values.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    assert unused == (dict.fromkeys(["mine/0", "mine/1"], f"{MOBILENET} has no such layer") if "nested" in file else {})


def test_a_file_of_tf_keras_gets_its_names_from_its_config(files):
    with zipfile.ZipFile(files / "mobilenet_v1_025_unnamed.keras") as archive:
        assert b"conv_dw_2" not in archive.read("model.weights.h5")
    assert read(files / "mobilenet_v1_025_unnamed.keras").keys() == read(files / f"{MOBILENET}.weights.h5").keys()


def test_layers_come_in_keras_order_and_without_the_optimizer(files):
    for file in "mobilenet_v1_025.keras", "mobilenet_v1_025_whole.h5":
        layers = read_weights(files / file)
        assert len(layers) == 28 + 27
        assert [a.shape for a in layers["conv_preds"]] == [(1, 1, 256, CLASSES), (CLASSES,)]
        assert [a.shape for a in layers["conv_dw_2"]] == [(3, 3, 16, 1)]
        gamma, beta, mean, variance = layers["conv_pw_13_bn"]
        assert gamma.min() >= 0.5
        assert variance.min() >= 0.5
        assert beta.min() < 0
        assert mean.min() < 0


def test_vgg_19_names_and_shapes(files):
    shapes = json.loads((files / "vgg_19.json").read_text())
    shapes |= {"fc1": [[25088, 4096], [4096]], "fc2": [[4096, 4096], [4096]], "predictions": [[4096, 10], [10]]}
    layers = {name: [np.zeros(s, np.float32) for s in parts] for name, parts in shapes.items()}
    values, unused = to_slim(layers, "vgg_19")
    assert {name: list(v.shape) for name, v in values.items()} == NETS["vgg_19"].variable_shapes(10)
    assert unused == {}
    with pytest.raises(UserError, match=r"not the weights of vgg_16 but of vgg_19"):
        to_slim(layers, "vgg_16")
    del layers["predictions"]  # and so only fc8
    assert values.keys() - to_slim(layers, "vgg_19")[0].keys() == {"vgg_19/fc8/weights", "vgg_19/fc8/biases"}


def to_keras_again(files, net_name):
    """Layers for Keras, from the values of Keras's file."""
    return to_keras({**imported(files / f"{net_name}.weights.h5", net_name)[0], "global_step": np.int64(3)}, net_name)


@pytest.mark.parametrize("net_name", SIZES)
def test_layers_for_keras_are_those_that_came_from_it(files, net_name):
    layers, came = to_keras_again(files, net_name), read(files / f"{net_name}.weights.h5")
    assert layers.keys() == came.keys()
    for name, arrays in came.items():
        assert [np.array_equal(a, b) for a, b in zip(layers[name], arrays, strict=True)] == [True] * len(arrays)


# Without VGG-16, which has half a gigabyte. Each write starts Keras, which is the slowest part.
@pytest.mark.parametrize("net_name", [MOBILENET, pytest.param("resnet50_keras", marks=pytest.mark.slow)])
def test_keras_loads_what_it_wrote_for_us_and_computes_the_same(files, net_name, monkeypatch):
    layers, path = to_keras_again(files, net_name), files / f"{net_name}_again.weights.h5"
    path.write_text("is replaced")
    shutil.copy(files / f"{net_name}_picture.npy", files / f"{APPLICATIONS[net_name]}_picture.npy")
    program = keras_files.KERAS_PROGRAM + AFTER_WRITING.replace("{0}", str(files))
    monkeypatch.setattr(keras_files, "KERAS_PROGRAM", program)
    write_weights(layers, net_name, path)
    again = read_weights(path)
    assert again.keys() == layers.keys()
    assert all(np.array_equal(a, b) for name in layers for a, b in zip(layers[name], again[name], strict=True))
    logits = np.load(files / f"{APPLICATIONS[net_name]}_again.npy")
    assert_same_logits(logits, np.load(files / "logits.npz")[net_name])


def test_layers_without_names_do_not_fit_another_net(files):
    layers = read(files / "resnet50_keras_unnamed.weights.h5")
    assert {f"layers/conv2d_{i}" for i in range(1, 13)} < layers.keys()  # VGG-16 has as many
    message = r"not the weights of vgg_16: expected also layers block1_conv1, .*look like weights of resnet50_keras"
    with pytest.raises(UserError, match=message):
        to_slim(layers, "vgg_16")


@functools.cache
def mobilenet_layers():
    """Layers of random numbers, made without Keras."""
    rng = np.random.default_rng(0)
    shapes = NETS[MOBILENET].variable_shapes(CLASSES)
    return to_keras({name: np.abs(rng.normal(size=s)).astype(np.float32) for name, s in shapes.items()}, MOBILENET)


def write_keras_2(path, layers, weight_names):
    """An .h5 file as Keras 2 writes it, with any array names, which are bytes as in old versions of h5py."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in ("input_1", *layers)]
        file.create_group("input_1").attrs["weight_names"] = []
        for layer, arrays in layers.items():
            names = weight_names(layer, len(arrays))
            file.create_group(layer).attrs["weight_names"] = [name.encode() for name in names]
            for name, array in zip(names, arrays, strict=True):
                file[layer][name] = array


def oldest_names(layer, count):
    parts = {1: "W", 2: "W b", 4: "gamma beta running_mean running_std"}[count].split()
    return [f"{layer}_{part}_1:0" for part in parts]


def test_arrays_of_a_keras_2_file_are_ordered_by_position(tmp_path):
    path = tmp_path / "weights.h5"
    write_keras_2(path, mobilenet_layers(), oldest_names)
    layers = read_weights(path)
    assert list(layers) == list(mobilenet_layers())
    for name, arrays in layers.items():
        for got, expected in zip(arrays, mobilenet_layers()[name], strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("spelling", ["{}|{}", "{}/{}:0", "{0}/{0}/{1}:0"])
def test_npz_arrays_are_ordered_by_name(tmp_path, spelling):
    parts = {1: ["kernel"], 2: ["kernel", "bias"], 4: ["gamma", "beta", "moving_mean", "moving_variance"]}
    named = {
        spelling.format(layer, "depthwise_kernel" if layer.startswith("conv_dw") and len(arrays) == 1 else part): array
        for layer, arrays in mobilenet_layers().items()
        for part, array in zip(parts[len(arrays)], arrays, strict=True)
    }
    np.savez(tmp_path / "weights.npz", **dict(sorted(named.items())))  # beta before gamma, bias before kernel
    values, unused = to_slim(read_weights(tmp_path / "weights.npz"), MOBILENET)
    assert unused == {}
    for name, value in to_slim(mobilenet_layers(), MOBILENET)[0].items():
        np.testing.assert_array_equal(values[name], value, err_msg=name)


def test_every_array_of_published_weights_has_a_variable():
    if not REAL.is_file():
        pytest.skip(f"{REAL} is not there")
    values, unused = imported(REAL, MOBILENET)
    assert unused == {}
    assert {name: list(v.shape) for name, v in values.items()} == NETS[MOBILENET].variable_shapes(1000)
    np.testing.assert_array_equal(
        values["MobilenetV1/Conv2d_3_depthwise/BatchNorm/moving_mean"], np.load(REAL)["conv_dw_3_bn|moving_mean"]
    )


def test_arrays_without_a_variable_are_named():
    foreign = {"mine": [np.zeros((2, 3)), np.zeros(3)], "re_lu": [np.zeros(1)]}
    _, unused = to_slim({**mobilenet_layers(), **foreign}, MOBILENET)
    assert unused == dict.fromkeys(["mine/0", "mine/1", "re_lu/0"], f"{MOBILENET} has no such layer")


def without(layers, *names):
    return {name: arrays for name, arrays in layers.items() if name not in names}


@pytest.mark.parametrize(
    ("layers", "net_name", "message"),
    [
        (
            lambda: {**mobilenet_layers(), "conv_pw_3": [np.zeros((1, 1, 5, 6))]},
            MOBILENET,
            "layer conv_pw_3 .* shapes [1, 1, 5, 6], .* MobilenetV1/Conv2d_3_pointwise/weights [1, 1, 32, 32]",
        ),
        (
            lambda: {**mobilenet_layers(), "conv1_bn": mobilenet_layers()["conv1_bn"][:3]},
            MOBILENET,
            "layer conv1_bn .* shapes [8], [8], [8], .* MobilenetV1/Conv2d_0/BatchNorm/moving_variance [8]",
        ),
        (
            mobilenet_layers,
            "mobilenet_v1_050",
            "layer conv1 .* shapes [3, 3, 3, 8], .* MobilenetV1/Conv2d_0/weights [3, 3, 3, 16]",
        ),
        (
            mobilenet_layers,
            "vgg_16",
            "not the weights of vgg_16: expected also layers block1_conv1, .* and 8 more; "
            "found layers conv1, conv1_bn, .* and 50 more; they look like weights of mobilenet_v1",
        ),
        (
            lambda: without(mobilenet_layers(), "conv_dw_3"),
            MOBILENET,
            "expected also layers conv_dw_3; found layers conv1, .* known are vgg_16, ",
        ),
        (
            mobilenet_layers,
            "resnet50_signs",
            "resnet50_signs is not in keras.applications; nets that are: vgg_16, vgg_19, ",
        ),
    ],
)
def test_the_error_names_both_sides_of_layers_that_do_not_fit(layers, net_name, message):
    with pytest.raises(UserError, match=re.escape(message).replace(r"\ \.\*\ ", " .* ")):
        to_slim(layers(), net_name)


def test_the_error_names_both_sides_of_values_that_do_not_fit():
    values, _ = to_slim(mobilenet_layers(), MOBILENET)
    head = "MobilenetV1/Logits/Conv2d_1c_1x1"
    headless = without(values, f"{head}/weights", f"{head}/biases")
    assert to_keras(headless, MOBILENET).keys() == without(mobilenet_layers(), "conv_preds").keys()
    for wrong in without(values, f"{head}/biases"), without(values, f"{head}/weights"):
        with pytest.raises(UserError, match=f"{head}/[a-z]* missing"):
            to_keras(wrong, MOBILENET)
    with pytest.raises(UserError, match=r"Conv2d_0/weights, .* and 131 more missing"):
        to_keras({f"{head}/biases": np.zeros(1)}, MOBILENET)
    with pytest.raises(UserError, match=r"lenet is not in keras.applications"):
        to_keras(values, "lenet")
    with pytest.raises(UserError, match=r"unknown net with Keras weights 'vgg16': did you mean vgg_16"):
        to_keras(values, "vgg16")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """Files without weights, and damaged files."""
    directory = tmp_path_factory.mktemp("damaged")
    layers = mobilenet_layers()
    write_keras_2(directory / "whole.h5", layers, oldest_names)
    contents = (directory / "whole.h5").read_bytes()
    (directory / "cut.h5").write_bytes(contents[: len(contents) // 2])
    write_keras_2(directory / "without_a_dataset.h5", layers, oldest_names)
    with h5py.File(directory / "without_a_dataset.h5", "a") as file:
        del file["conv_dw_2/conv_dw_2_W_1:0"]
    with h5py.File(directory / "other.h5", "w") as file:
        file["table"] = np.zeros(3)
    write_keras_2(directory / "of_text.h5", {"conv1": [np.array([b"text"])]}, oldest_names)
    (directory / "empty.h5").touch()
    (directory / "text.keras").write_text("not a zip")
    np.savez(directory / "objects.npz", **{"conv1|kernel": np.array([{}], object)})
    np.savez(directory / "whole.npz", **{"conv1|kernel": np.arange(5000.0)})
    contents = (directory / "whole.npz").read_bytes()
    (directory / "cut.npz").write_bytes(contents[: len(contents) // 2])
    (directory / "changed.npz").write_bytes(contents[:9000] + b"?" + contents[9001:])
    for name, member in (("other.zip", "readme.txt"), ("inside.keras", "model.weights.h5")):
        with zipfile.ZipFile(directory / name, "w") as archive:
            archive.writestr(member, "not HDF5")
    (directory / "directory.h5").mkdir()
    return directory


@pytest.mark.parametrize(
    "name",
    [
        *("cut.h5", "without_a_dataset.h5", "other.h5", "of_text.h5", "empty.h5", "text.keras", "objects.npz"),
        *("cut.npz", "changed.npz", "other.zip", "inside.keras", "directory.h5", "missing.h5"),
    ],
)
def test_damaged_and_foreign_files_are_errors(damaged, name):
    with pytest.raises(UserError, match=re.escape(f"{damaged / name}: ") + r".*Keras's \.h5, \.weights\.h5 or \.keras"):
        read_weights(damaged / name)


NAMES = {1: ("kernel",), 2: ("kernel", "bias"), 4: ("gamma", "beta", "moving_mean", "moving_variance")}


def test_an_object_based_checkpoint_is_read_by_its_names(tmp_path):
    """As Keras and tf.train.Checkpoint write it: its keys are paths in the object, the names stand beside them."""
    layers = mobilenet_layers()
    with eager_mode():
        variables = [
            tf.Variable(array, name=f"{layer}/{part}")
            for layer, arrays in layers.items()
            for part, array in zip(NAMES[len(arrays)], arrays, strict=True)
        ]
        slots = [
            tf.Variable(np.zeros(3, np.float32), name=f"Adam/m/{variable.name[:-2]}") for variable in variables[:9]
        ]
        objects = {f"layer_with_weights-{i}": variable for i, variable in enumerate(variables)}
        optimizer = tf.train.Checkpoint(**{f"m{i}": slot for i, slot in enumerate(slots)})
        prefix = tf.train.Checkpoint(**objects, optimizer=optimizer).save(str(tmp_path / "ckpt" / "w"))
    saved_model = tmp_path / "saved_model"
    (saved_model / "variables").mkdir(parents=True)
    (saved_model / "saved_model.pb").touch()
    for path in (tmp_path / "ckpt").glob("w-1.*"):
        shutil.copy(path, saved_model / "variables" / path.name.replace("w-1", "variables"))
    for path in (prefix, f"{prefix}.index", tmp_path / "ckpt", saved_model):
        read = read_weights(path)
        assert set(read) == set(layers)
        for layer, arrays in layers.items():
            for old, new in zip(arrays, read[layer], strict=True):
                np.testing.assert_array_equal(old, new, err_msg=layer)
        with pytest.raises(UserError, match=r"object-based checkpoint .* nets\.weights import .* --net NAME --out DIR"):
            locate(str(path))


def test_a_checkpoint_with_names_of_its_own_is_not_imported(tmp_path):
    write_checkpoint({"LeNet/conv1/weights": np.ones(3, np.float32)}, tmp_path / "model.ckpt-0")
    with pytest.raises(UserError, match="its variables have names already"):
        read_weights(tmp_path)


@pytest.mark.parametrize("form", ["npz", "keras", "keras 2", "keras 3"])
def test_weights_that_unpack_to_more_than_the_memory_are_not_read(tmp_path, monkeypatch, form):
    path, size = tmp_path / "bomb", array_checks.MOST_BYTES
    if form in ("npz", "keras"):
        monkeypatch.setattr(array_checks, "MOST_BYTES", 2**30)
        name, size = ("conv1|kernel.npy", 2**30) if form == "npz" else ("model.weights.h5", 2**30)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, b"")
        # The size that the archive's directory declares: 2 GiB.
        content = bytearray(path.read_bytes())
        place = content.index(b"PK\x01\x02") + 24
        content[place : place + 4] = (2**31).to_bytes(4, "little")
        path.write_bytes(content)
    else:
        with h5py.File(path, "w") as file:  # no chunk is written
            file.create_dataset("conv1/vars/0", (size // 4 + 1,), np.float32, compression="gzip")
            if form == "keras 2":
                file.attrs["layer_names"], file["conv1"].attrs["weight_names"] = ["conv1"], ["vars/0"]
    with pytest.raises(UserError, match=r"its weights take 2.0 GiB; at most"):
        read_weights(path)


def test_a_failed_write_leaves_no_file(tmp_path, monkeypatch):
    layers = mobilenet_layers()
    (tmp_path / "old.weights.h5").write_text("stays")
    with pytest.raises(UserError, match=r"ends with \.weights\.h5"):
        write_weights(layers, MOBILENET, tmp_path / "new.h5")
    with pytest.raises(UserError, match=r"nowhere/new\.weights\.h5.*is there such a directory"):
        write_weights(layers, MOBILENET, tmp_path / "nowhere" / "new.weights.h5")
    half = "import sys; open(sys.argv[2], 'w').write('half'); print('Traceback'); sys.exit('no space left')"
    monkeypatch.setattr(keras_files, "KERAS_PROGRAM", half)
    with pytest.raises(UserError, match=r"Keras cannot write it \(no space left\)"):
        write_weights(layers, MOBILENET, tmp_path / "old.weights.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["old.weights.h5"]
    assert (tmp_path / "old.weights.h5").read_text() == "stays"


def test_the_model_has_a_top_if_the_layers_have_one(tmp_path, monkeypatch):
    monkeypatch.setattr(keras_files, "KERAS_PROGRAM", "import sys; open(sys.argv[2], 'w').write(str(sys.argv[3:]))")
    path = tmp_path / "new.weights.h5"
    for layers, options in (
        (mobilenet_layers(), '{"alpha": 0.25, "include_top": true, "classes": 7}'),
        (without(mobilenet_layers(), "conv_preds"), '{"alpha": 0.25, "include_top": false}'),
    ):
        write_weights(layers, MOBILENET, path)
        assert path.read_text() == str(["MobileNet", options])


def test_npz_skips_the_optimizer_and_rejects_duplicates(tmp_path):
    kernel, slot = np.ones((3, 3, 3, 8), np.float32), np.full((3, 3, 3, 8), 7, np.float32)
    np.savez(tmp_path / "slots.npz", **{"conv1|kernel": kernel, "optimizer/conv1/kernel": slot})
    assert read_weights(tmp_path / "slots.npz")["conv1"][0].max() == 1
    np.savez(tmp_path / "twice.npz", **{"a/conv1/kernel": kernel, "b/conv1/kernel": slot})
    with pytest.raises(UserError, match="two arrays kernel of a layer conv1"):
        read_weights(tmp_path / "twice.npz")


def test_values_have_to_be_finite():
    layers = mobilenet_layers()
    layers["conv1"] = [np.full_like(layers["conv1"][0], np.nan)]
    with pytest.raises(UserError, match="layer conv1 of the file holds numbers that are not finite"):
        to_slim(layers, MOBILENET)
