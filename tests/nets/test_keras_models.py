"""The tables of Keras's layers are those of Keras, and numbered and unnamed layers find their places."""

import gzip
import json
import pathlib
import subprocess
import sys
from collections import defaultdict

import h5py
import numpy as np
import pytest

from errors import UserError
from nets import NETS
from nets.weights import __main__ as command
from nets.weights import keras_layers
from nets.weights.keras_files import read_weights
from nets.weights.keras_layers import PARTS, names_in_keras, to_keras, to_slim, variables_of
from nets.weights.keras_models import MODELS

SCRIPT = pathlib.Path(__file__).resolve().parent.parent / "golden/keras_layers.py"
GOLDEN = json.loads(gzip.decompress(SCRIPT.with_name("keras_layers.json.gz").read_bytes()))
KINDS = {kind.replace("_", ""): kind for kind in PARTS}
# The others have the shapes of their family's, at other widths and depths, and take seconds to build.
FAST = ["mobilenet_v2_035", "mobilenet_v3_small", "mobilenet_v3_large_minimalistic", "resnet_v2_50", "vgg_16"]


def by_kind(rows):
    kinds = defaultdict(list)
    for kind, name in rows:
        kinds[kind].append(name)
    return dict(kinds)


@pytest.mark.parametrize("name", MODELS)
def test_layers_have_keras_s_names(name):
    """In Keras's order within each class where the table says so."""
    model = MODELS[name]
    ours = by_kind((layer.kind, keras_name) for layer, keras_name in names_in_keras(model).items())
    theirs = by_kind((KINDS[kind.lower()], layer) for kind, layer, _ in GOLDEN[name])
    if model.in_order:
        assert ours == theirs
    else:
        assert {kind: sorted(names) for kind, names in ours.items()} == {k: sorted(v) for k, v in theirs.items()}
    assert model.in_order == (not name.startswith(("inception", "nasnet")))


@pytest.mark.parametrize("name", [p if p in FAST else pytest.param(p, marks=pytest.mark.slow) for p in MODELS])
def test_layers_have_the_shapes_of_our_variables(name):
    names, shapes = names_in_keras(MODELS[name]), {layer: arrays for _, layer, arrays in GOLDEN[name]}
    found = variables_of(name, 10)
    assert {names[layer]: [v.keras_shape for v in variables] for layer, variables in found.items()} == shapes
    ours = NETS[name].variable_shapes(10)
    auxiliary = {v for v in ours if "AuxLogits" in v or "/aux_" in v or v.startswith("aux_")}
    assert {v.name for variables in found.values() for v in variables} == ours.keys() - auxiliary


@pytest.mark.slow
def test_the_golden_file_is_what_keras_makes(tmp_path):
    script = tmp_path / SCRIPT.name
    script.write_text(SCRIPT.read_text())
    requests = {name: (model.application, dict(model.options)) for name, model in MODELS.items()}
    subprocess.run([sys.executable, script, json.dumps(requests)], check=True, capture_output=True, timeout=900)
    assert json.loads(gzip.decompress((tmp_path / "keras_layers.json.gz").read_bytes())) == GOLDEN


def numbered(start):
    """The layers of an Inception v3 without values, as the second model of a process has them, with a user's last."""
    names = names_in_keras(MODELS["inception_v3"])
    layers = {}
    for layer, name in names.items():
        number = int(name.removeprefix(layer.kind).removeprefix("_") or 0) + start if not layer.in_head else 0
        layers[name if layer.in_head else f"{layer.kind}_{number}"] = [layer.scope]
    return {name: layers[name] for name in sorted(layers)} | {f"conv2d_{start + 94}": ["the user's"]}


@pytest.mark.parametrize("start", [1, 95])
def test_numbered_layers_are_found_in_the_order_of_their_numbers(start):
    layers = numbered(start)
    found = keras_layers._matched(layers, "inception_v3")
    assert len(found) == 2 * 94 + 1
    assert all(layers[name] == [layer.scope] for layer, name in found.items())


def test_layers_without_names_are_not_guessed():
    """Keras's order of these nets is not ours: the branches of a module alternate."""
    layers = {f"layers/{name}": x for name, x in numbered(0).items()}
    with pytest.raises(UserError, match=r"has no names of layers: save the model as \.h5 or \.keras$"):
        to_slim(layers, "inception_v3")


def test_batch_norms_of_tensorflow_1_13_are_found():
    layers = {name.replace("batch_normalization", "batch_normalization_v1"): x for name, x in numbered(0).items()}
    found = keras_layers._matched(layers, "inception_v3")
    assert all(layers[name] == [layer.scope] for layer, name in found.items())


def test_the_net_that_more_layers_fit_is_named():
    names = names_in_keras(MODELS["inception_resnet_v2"])
    layers = {name: [np.zeros(1)] for name in names.values()}
    with pytest.raises(UserError, match="not the weights of inception_v3 but of inception_resnet_v2"):
        to_slim(layers, "inception_v3")
    with pytest.raises(UserError, match=r"not the weights of resnet_v2_50: .* weights of inception_resnet_v2$"):
        to_slim(layers, "resnet_v2_50")


@pytest.mark.parametrize("name", ["mobilenet_v2_035", "mobilenet_v3_small"])
def test_old_names_are_found(name):
    """Those of Keras's published files: MobileNet v2's head was Logits, and v3's layers had TF-Slim's names."""
    rng = np.random.default_rng(0)
    values = {v: rng.random(s, np.float32) for v, s in NETS[name].variable_shapes(3).items()}
    layers = to_keras(values, name)
    old = {layer.names[0]: layer.names[-1] for layer in MODELS[name].layers}
    again, unused = to_slim({old[layer]: arrays for layer, arrays in layers.items()}, name)
    assert unused == {}
    assert again.keys() == values.keys()
    assert all(np.array_equal(again[v], values[v]) for v in values)
    assert ("Logits" in old.values(), "expanded_conv/depthwise/BatchNorm" in old.values()) == (True, "v3" in name)


def test_import_and_export_say_where_keras_computes_otherwise(tmp_path, monkeypatch, capsys):
    name = "mobilenet_v3_small"
    values = {v: np.ones(s, np.float32) for v, s in NETS[name].variable_shapes(3).items()}
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        layers = to_keras(values, name)
        file.attrs["layer_names"] = list(layers)
        for layer, arrays in layers.items():
            file.create_group(layer).attrs["weight_names"] = [str(i) for i in range(len(arrays))]
            for i, array in enumerate(arrays):
                file[layer][str(i)] = array
    arguments = ["import", str(tmp_path / "weights.h5"), "--net", name, "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["nets.weights", *arguments])
    command.main()
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1].startswith("note: Keras's gates are relu6(x + 3) / 6, ")
    assert f"fits {name}\n" in printed
    assert set(read_weights(tmp_path / "weights.h5")) == set(layers)
