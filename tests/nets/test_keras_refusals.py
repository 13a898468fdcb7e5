"""Keras files that would give wrong weights without an error: several models, other layers, other values."""

import json
import zipfile

import h5py
import numpy as np
import pytest

from checkpoints import write_checkpoint
from errors import UserError
from nets import NETS
from nets.weights import array_checks, export_keras, import_keras, keras_layers
from nets.weights.keras_files import read_weights
from nets.weights.keras_layers import names_in_keras, to_keras, to_slim
from nets.weights.keras_models import MODELS

NAME = "mobilenet_v1_025"
BN = ("gamma", "beta", "moving_mean", "moving_variance")


@pytest.fixture(scope="module")
def layers():
    """A MobileNet of 7 classes; do not change it."""
    rng = np.random.default_rng(0)
    return to_keras({v: rng.random(s, np.float32) for v, s in NETS[NAME].variable_shapes(7).items()}, NAME)


def placeholders(name):
    """The layers of a model without values, for what depends on names alone."""
    return {layer: [np.zeros(1)] for layer in names_in_keras(MODELS[name]).values()}


def keras_3(path, layers, config=None, parent="layers"):
    """A .keras file with named groups, and a config.json."""
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        for i, (name, arrays) in enumerate(layers):
            for j, array in enumerate(arrays):
                file[f"{parent}/x_{i}/vars/{j}"] = array
            if name:
                file[f"{parent}/x_{i}/vars"].attrs["name"] = name
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(path.with_suffix(".h5"), "model.weights.h5")
        archive.writestr("config.json", config or json.dumps({"config": {}}))
    return path


def test_two_layers_of_one_name_are_two_models(tmp_path, layers):
    twice = [*layers.items(), ("conv1", layers["conv1"])]
    with pytest.raises(UserError, match=r"it holds several models: two layers are called conv1; save the model"):
        read_weights(keras_3(tmp_path / "two.keras", twice))


def test_two_paths_with_one_name_in_the_config_are_two_models(tmp_path):
    layer = {"class_name": "Dense", "config": {"name": "top"}}
    config = json.dumps({"config": {"layers": [layer, layer]}})
    path = tmp_path / "two.keras"
    with h5py.File(tmp_path / "w.h5", "w") as file:
        for place in ("dense", "dense_1"):
            file[f"layers/{place}/vars/0"] = np.zeros((2, 3))
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tmp_path / "w.h5", "model.weights.h5")
        archive.writestr("config.json", config)
    with pytest.raises(UserError, match="two layers are called top"):
        read_weights(path)


@pytest.mark.parametrize(
    "config",
    ['{"config": {"layers": [{"class_name": "Dense", "config": {"name": 5}}]}}', "[]", "{}", '{"config": null}'],
)
def test_a_config_of_another_kind_is_an_error(tmp_path, layers, config):
    with pytest.raises(UserError, match=r"cannot be read as weights \(its config\.json is not one of Keras's\)"):
        read_weights(keras_3(tmp_path / "odd.keras", layers.items(), config))


def test_a_truncated_file_is_damaged(tmp_path, layers):
    content = keras_3(tmp_path / "whole.keras", layers.items()).read_bytes()
    (tmp_path / "cut.keras").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="it is damaged: get it again"):
        read_weights(tmp_path / "cut.keras")


def test_a_second_net_in_the_file_is_an_error():
    """The trunk of one and the head of the other would be a net that nobody trained."""
    first, second = placeholders("inception_v3"), placeholders("inception_v3")
    later = {f"conv2d_{94 + i}": [np.zeros(1)] for i in range(94)}
    later |= {f"batch_normalization_{94 + i}": [np.zeros(1)] for i in range(94)}
    with pytest.raises(UserError, match=r"not the weights of inception_v3 alone: found also layers conv2d_94"):
        to_slim({**first, **later}, "inception_v3")
    assert second.keys() == first.keys()


def test_a_deeper_net_that_is_not_known_is_an_error():
    """ResNet-101 has all layers of ResNet-50, by name and shape."""
    deeper = {f"conv4_block{i}_1_conv": [np.zeros(1)] for i in range(7, 24)}
    message = r"not the weights of resnet50_keras alone: found also layers conv4_block7_1_conv, .* deeper net"
    with pytest.raises(UserError, match=message):
        to_slim({**placeholders("resnet50_keras"), **deeper}, "resnet50_keras")


@pytest.mark.parametrize(
    "parts", [("weight", "bias", "running_mean", "running_var"), ("scale", "offset", "mean", "var")]
)
def test_arrays_of_other_names_have_no_order(tmp_path, layers, parts):
    """bias would come first, so gamma and beta would change places."""
    named = {f"conv1_bn|{part}": array for part, array in zip(parts, layers["conv1_bn"], strict=True)}
    for name, arrays in layers.items():
        kinds = BN if len(arrays) == 4 else ("kernel", "bias")
        named |= {f"{name}|{k}": a for k, a in zip(kinds, arrays, strict=False) if name != "conv1_bn"}
    np.savez(tmp_path / "w.npz", **named)
    with pytest.raises(UserError, match=r"(expected also layers|layer) conv1_bn"):
        import_keras(tmp_path / "w.npz", NAME, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_head_behind_a_users_dense_layer_is_unknown():
    """Without names the first dense layer would be taken for the head."""
    counted = {}
    for layer in MODELS["resnet50_keras"].layers:
        n = sum(name.startswith(f"layers/{layer.kind}") for name in counted)
        counted[f"layers/{layer.kind}_{n}".removesuffix("_0")] = layer.scope
    assert len(keras_layers._counted(counted, MODELS["resnet50_keras"])) == 107
    two = {**counted, "layers/dense_1": "the user's"}
    assert len(keras_layers._counted(two, MODELS["resnet50_keras"])) == 106


def test_a_head_with_a_gap_is_an_error():
    names = placeholders("vgg_16")
    del names["fc1"]
    with pytest.raises(UserError, match="expected also layers fc1;"):
        to_slim(names, "vgg_16")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (lambda a: a.astype(np.int8), "layer conv1_bn of the file is int8, not a float"),
        (lambda a: -a, "layer conv1_bn of the file holds negative variances"),
        (lambda a: np.full(a.shape, 1e300), "layer conv1_bn of the file holds numbers that are not finite"),
    ],
)
def test_values_of_another_meaning_are_errors(layers, values, message, recwarn):
    with pytest.raises(UserError, match=message):
        to_slim({**layers, "conv1_bn": [*layers["conv1_bn"][:3], values(layers["conv1_bn"][3])]}, NAME)
    assert not recwarn.list


def test_pictures_may_have_other_channels(layers):
    kernel = np.repeat(layers["conv1"][0], 2, axis=2)[:, :, :4]
    values, _ = to_slim({**layers, "conv1": [kernel]}, NAME)
    np.testing.assert_array_equal(values["MobilenetV1/Conv2d_0/weights"], kernel)
    vgg = placeholders("vgg_16") | {"block1_conv1": [np.zeros((3, 3, 0, 64)), np.zeros(64)]}
    with pytest.raises(UserError, match=r"layer block1_conv1 of the file does not fit vgg_16: .* \[3, 3, 0, 64\]"):
        to_slim(vgg, "vgg_16")


def test_links_to_one_array_count_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(array_checks, "MOST_BYTES", 2**20)
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file.create_dataset("data", (2**17,), np.float32)
        for i in range(3):
            file.create_group(f"layers/conv2d_{i}/vars")["0"] = h5py.SoftLink("/data")
    with pytest.raises(UserError, match="its weights take"):
        read_weights(tmp_path / "bomb.h5")


def test_numbers_without_end_are_no_numbers():
    with pytest.raises(UserError, match="not the weights of inception_v3"):
        to_slim({"conv2d_" + "9" * 5000: [np.zeros(1)]}, "inception_v3")


def test_half_a_head_is_not_exported(tmp_path):
    values = {v: np.ones(s, np.float32) for v, s in NETS[NAME].variable_shapes(7).items()}
    del values["MobilenetV1/Logits/Conv2d_1c_1x1/weights"]
    write_checkpoint(values, tmp_path / "model.ckpt-0")
    with pytest.raises(UserError, match=r"of the head MobilenetV1/Logits it has only .*/biases; export another one"):
        export_keras(str(tmp_path / "model.ckpt-0"), NAME, str(tmp_path / "out.weights.h5"))


def test_the_current_directory_is_not_replaced(tmp_path, monkeypatch, layers):
    monkeypatch.chdir(tmp_path)
    for out in (".", ""):
        with pytest.raises(UserError, match="is the current directory, which cannot be replaced: name a new one"):
            import_keras(tmp_path / "any.h5", NAME, out)
    (tmp_path / "taken").touch()
    with pytest.raises(UserError, match="taken is a file; choose another name"):
        import_keras(tmp_path / "any.h5", NAME, tmp_path / "taken")
