"""PyTorch's state dicts in our nets: names and shapes of every model, layouts by hand, files, wrappers and errors.

test_torch_peers.py compares logits with torchvision's and timm's.
"""

import gzip
import json
import pathlib
import pickle
import re
import struct
import sys
import types
import zipfile

import numpy as np
import pytest

import files
from checkpoints import shapes_of
from errors import UserError
from nets import NETS
from nets.weights import __main__ as command
from nets.weights import array_checks, torch_files
from nets.weights.torch_files import choose, import_torch, matched, read_state_dict, to_slim
from nets.weights.torch_layers import DIFFERENT, MODELS
from tfcompat import tf

with gzip.open(pathlib.Path(__file__).parents[1] / "golden/torch_state_dicts.json.gz") as file:
    GOLDEN = json.load(file)  # made by torch_models.py: library, model, names and shapes
RESNET, VGG = GOLDEN["torchvision"]["resnet18"], GOLDEN["torchvision"]["vgg11"]
BUILT_SLOWLY = ("densenet", "resnet34", "resnetv2")


def net_of(model):
    """The name of our net for a model."""
    families = (("resnetv2_", "resnet_v2_"), ("resnet", "resnet_v1_"), ("densenet", "densenet_"), ("vgg", "vgg_"))
    return next(re.sub(f"^{theirs}(?=\\d)", ours, model) for theirs, ours in families if model.startswith(theirs))


ALL = [
    pytest.param(library, model, marks=pytest.mark.slow if model.startswith(BUILT_SLOWLY) else ())
    for library, models in GOLDEN.items()
    for model in models
]


def test_every_model_is_in_the_golden_file():
    assert {net_of(model) for models in GOLDEN.values() for model in models} == set(MODELS)


def test_reasons_are_of_nets_that_exist():
    others = [name for name in NETS if name not in MODELS]
    assert [start for start in DIFFERENT if not any(name.startswith(start) for name in others)] == []


@pytest.mark.parametrize(("library", "model"), [(library, model) for library in GOLDEN for model in GOLDEN[library]])
def test_layers_are_the_models(library, model):
    table = MODELS[net_of(model)]
    names = torch_files._names(GOLDEN[library][model], table)
    assert {name.rpartition(".")[0] for name in names} == {layer.name for layer in table.layers}


@pytest.mark.parametrize(("library", "model"), ALL)
def test_every_array_becomes_the_variable_of_its_shape(library, model):
    held = GOLDEN[library][model]
    uses, unused = matched(held, net_of(model))
    assert unused == []
    assert sorted(use.name for use in uses) == sorted(name for name in held if "num_batches" not in name)
    assert {use.variable for use in uses} == set(NETS[net_of(model)].variable_shapes(1000))


def without(shapes, *starts):
    return {name: shape for name, shape in shapes.items() if not name.startswith(starts)}


def with_classes(shapes, classes, head="fc"):
    return shapes | {f"{head}.weight": [classes, shapes[f"{head}.weight"][1]], f"{head}.bias": [classes]}


@pytest.fixture(scope="module")
def resnet():
    """A state dict of resnet18 with five classes, with different numbers in every array."""
    rng = np.random.default_rng(0)
    shapes = with_classes(RESNET, 5)
    return {name: rng.random(shape, np.float32) if shape else np.int64(7) for name, shape in shapes.items()}


def test_values_of_a_resnet(resnet):
    values, unused = to_slim({name: np.asarray(array) for name, array in resnet.items()}, "resnet_v1_18")
    assert unused == []
    unit = "resnet_v1_18/block3/unit_1/basic_v1"
    expected = {
        "resnet_v1_18/conv1/weights": resnet["conv1.weight"].transpose(2, 3, 1, 0),
        f"{unit}/shortcut/weights": resnet["layer3.0.downsample.0.weight"].transpose(2, 3, 1, 0),
        f"{unit}/shortcut/BatchNorm/gamma": resnet["layer3.0.downsample.1.weight"],
        f"{unit}/conv2/BatchNorm/beta": resnet["layer3.0.bn2.bias"],
        f"{unit}/conv2/BatchNorm/moving_mean": resnet["layer3.0.bn2.running_mean"],
        f"{unit}/conv1/BatchNorm/moving_variance": resnet["layer3.0.bn1.running_var"],
        "resnet_v1_18/logits/weights": resnet["fc.weight"].T[None, None],
        "resnet_v1_18/logits/biases": resnet["fc.bias"],
    }
    for name, value in expected.items():
        np.testing.assert_array_equal(values[name], value)


class TinyNet:
    """Stands for a net of three layers: a convolution with batch norm, and a dense layer of a map of 1×2."""

    prefix = "tiny/"

    def variable_shapes(self, num_classes):
        return {
            "tiny/conv/weights": [1, 3, 2, 2],
            "tiny/norm/gamma": [2], "tiny/norm/beta": [2],
            "tiny/norm/moving_mean": [2], "tiny/norm/moving_variance": [2],
            "tiny/fc/weights": [1, 2, 2, num_classes], "tiny/fc/biases": [num_classes],
        }  # fmt: skip


@pytest.fixture
def tiny(monkeypatch):
    layer = torch_files.Layer
    layers = [layer("conv", "c", "conv"), layer("norm", "n", "norm"), layer("dense", "fc", "fc", in_head=True)]
    monkeypatch.setitem(MODELS, "tiny", torch_files.Model(layers))
    monkeypatch.setattr(torch_files.nets, "find", lambda name: TinyNet())
    dense = [[0, 1, 2, 3], [10, 11, 12, 13], [20, 21, 22, 23]]  # [O, I·H·W]: of output o, channel c, column x: 10o+2c+x
    arrays = {
        "c.weight": [[[[0, 1, 2]], [[10, 11, 12]]], [[[100, 101, 102]], [[110, 111, 112]]]],  # 100·O + 10·I + W
        "n.weight": [1, 2], "n.bias": [3, 4], "n.running_mean": [5, 6], "n.running_var": [7, 8],
        "fc.weight": dense, "fc.bias": [1, 2, 3],
    }  # fmt: skip
    return {name: np.array(values, np.float32) for name, values in arrays.items()}


def test_layouts_by_hand(tiny):
    values, _ = to_slim(tiny, "tiny")
    # [H, W, I, O]: columns, then input channels, then outputs
    assert values["tiny/conv/weights"].tolist() == [
        [[[0, 100], [10, 110]], [[1, 101], [11, 111]], [[2, 102], [12, 112]]]
    ]
    assert values["tiny/fc/weights"].tolist() == [[[[0, 10, 20], [2, 12, 22]], [[1, 11, 21], [3, 13, 23]]]]
    assert [values[f"tiny/norm/{part}"].tolist() for part in ("gamma", "beta", "moving_mean", "moving_variance")] == [
        [1, 2], [3, 4], [5, 6], [7, 8],
    ]  # fmt: skip
    as_convolution = tiny | {"fc.weight": tiny["fc.weight"].reshape(3, 2, 1, 2)}  # timm's VGG
    np.testing.assert_array_equal(to_slim(as_convolution, "tiny")[0]["tiny/fc/weights"], values["tiny/fc/weights"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"n.bias": np.array([3, np.nan], np.float32)},
            r"n\.bias of the file holds numbers that are not finite, for tiny/",
        ),
        ({"n.bias": np.array([3, 4])}, r"n\.bias of the file is int64, not a float, for tiny/norm/beta"),
        ({"n.bias": np.ones(3, np.float32)}, r"n\.bias of the file is \[3\]; tiny/norm/beta \[2\] needs \[2\]: give"),
        (
            {"fc.weight": np.ones((3, 5), np.float32)},
            r"fc\.weight of the file is \[3, 5\]; tiny/fc/weights \[1, 2, 2, 3\] needs \[3, 2, 1, 2\] or \[3, 4\]: ",
        ),
        ({"c.weight": np.ones((2, 6), np.float32)}, r"c\.weight of the file is \[2, 6\]; .* needs \[2, 2, 1, 3\]: "),
        ({"c.bias": np.ones(2, np.float32)}, r"not the weights of tiny: it also has c\.bias"),
        ({"fc.bias": None}, r"not the weights of tiny: it lacks fc\.bias$"),
        ({"module.n.bias": np.ones(2, np.float32)}, r"the file has n\.bias twice, as n\.bias and as module\.n\.bias"),
    ],
)
def test_errors_of_arrays(tiny, change, message):
    arrays = {name: array for name, array in (tiny | change).items() if array is not None}
    with pytest.raises(UserError, match=message):
        to_slim(arrays, "tiny")


def test_what_may_differ(tiny):
    extra = {
        "module._orig_mod.c.weight": np.ones((2, 1, 1, 3), np.float32),
        "n_averaged": np.int64(3),
        "extra": tiny["n.bias"],
    }
    arrays = without(tiny, "c.", "fc.") | extra | {"n.num_batches_tracked": np.int64(3)}
    values, unused = to_slim(arrays, "tiny")
    assert values["tiny/conv/weights"].shape == (1, 3, 1, 2)  # grey pictures
    assert not any(name.startswith("tiny/fc") for name in values)
    assert unused == ["extra"]


def test_parts_of_vggs_head_may_be_missing():
    def scopes(shapes):
        return {use.variable.split("/")[1] for use in matched(shapes, "vgg_11")[0] if "/fc" in use.variable}

    assert scopes(VGG) == {"fc6", "fc7", "fc8"}
    assert scopes(without(VGG, "classifier.6")) == {"fc6", "fc7"}
    assert scopes(without(VGG, "classifier")) == set()
    assert scopes(without(GOLDEN["timm"]["vgg11"], "head")) == {"fc6", "fc7"}
    with pytest.raises(UserError, match=r"it lacks classifier\.0\.weight, classifier\.0\.bias$"):
        matched(without(VGG, "classifier.0"), "vgg_11")


def test_old_names_of_densenet():
    held = GOLDEN["torchvision"]["densenet121"]
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): shape for name, shape in held.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    table = MODELS["densenet_121"]
    assert set(torch_files._names(old, table)) == set(torch_files._names(held, table))


@pytest.mark.parametrize(
    ("net", "held", "message"),
    [
        # A deeper ResNet of basic units has all layers of a shallower one, in the same shapes.
        ("resnet_v1_18", GOLDEN["torchvision"]["resnet34"], r"also has layer1\.2\.conv1.* looks like resnet_v1_34"),
        ("resnet_v1_18", RESNET | {"layer1.0.conv3.weight": [256, 64, 1, 1]}, r"it also has layer1\.0\.conv3\.weight"),
        ("vgg_13", VGG, r"not the weights of vgg_13: it lacks features\.2\.weight.* looks like vgg_11"),
        ("vgg_11", VGG | {"features.1.running_mean": [64]}, r"vgg_11: it also has features\.1\.running_mean"),
        ("vgg_11", {"epoch": [3]}, r"vgg_11: it lacks features\.0\.weight, .* and 13 more, and it has epoch$"),
    ],
)
def test_weights_of_other_nets(net, held, message):
    with pytest.raises(UserError, match=message):
        matched(held, net)


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        ("resnet_v1_50", "stride of a block in its first unit"),
        ("resnet_v2_101", "torchvision has no v2"),
        ("resnet50_keras", "3×3 convolution"),
        ("inception_v3", "gamma"),
        ("inception_v1", "3×3 convolutions where the paper and TF-Slim have 5×5"),
        ("mobilenet_v2_140", "only below and right"),
        ("mobilenet_v3_small", "only below and right"),
        ("alexnet_v2", "pads 2 pixels"),
        ("vgg_16_transfer", "import the file for vgg_16"),
        ("lenet", "unknown net with PyTorch weights 'lenet'"),
    ],
)
def test_nets_of_another_architecture_are_refused_with_the_reason(net, reason, tmp_path):
    with pytest.raises(UserError, match=f"{reason}.*vgg_16"):
        import_torch(tmp_path / "none.pth", net, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_wrappers_as_timms_loader_takes_them():
    plain, raw, averaged = {"a": 1}, {"a": 2}, {"a": 3}
    assert choose(plain) == (plain, [])
    assert choose({"state_dict": raw, "epoch": 3}) == (raw, ["the weights under state_dict are used"])
    assert choose({"model": raw, "model_ema": averaged})[0] is averaged
    line = "the weights under state_dict_ema are used; state_dict are not"
    assert choose({"state_dict": raw, "state_dict_ema": averaged}) == (averaged, [line])
    assert choose({"state_dict_ema": None, "state_dict": raw})[0] is raw
    with pytest.raises(ValueError, match="it holds a list, and no dict"):
        choose([1])


# Files


@pytest.fixture
def no_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # import torch then raises ImportError
    monkeypatch.setitem(sys.modules, "safetensors", None)


def safetensors_file(path, arrays, kind="F32"):
    """Writes the format by hand: the length of the header, the header, the bytes."""
    header, data = {}, b""
    for name, array in arrays.items():
        content = array if isinstance(array, bytes) else array.tobytes()
        shape = [len(content) // 2] if isinstance(array, bytes) else list(array.shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def zip_file(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return path


def test_kinds_of_files(tmp_path):
    kinds = {
        zip_file(tmp_path / "a.pth", data_pkl=b"x"): True,
        zip_file(tmp_path / "a.npz", a_npy=b"x"): False,
        zip_file(tmp_path / "a.keras", config_json=b"x"): False,
        safetensors_file(tmp_path / "a.bin", {"a": np.ones(2, np.float32)}): True,
        tmp_path / "missing.pth": False,
        tmp_path: False,
    }
    (tmp_path / "old.pth").write_bytes(pickle.dumps({}, 2))
    for path, expected in {**kinds, tmp_path / "old.pth": True}.items():
        assert torch_files.is_state_dict(str(path)) == expected, path


def test_missing_packages(no_torch, tmp_path):
    with pytest.raises(
        UserError, match=r"pip install torch, or convert .*weights_only=True\), 'FILE\.safetensors'\)\"$"
    ):
        read_state_dict(str(zip_file(tmp_path / "a.pth", data_pkl=b"x")))
    with pytest.raises(UserError, match=r"a\.bin: to read it, pip install safetensors"):
        read_state_dict(str(safetensors_file(tmp_path / "a.bin", {"a": np.ones(2, np.float32)})))


def test_a_pytorch_that_runs_code_is_refused(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(__version__="2.5.1+cpu"))
    with pytest.raises(UserError, match=r"PyTorch 2\.5\.1\+cpu .*CVE-2025-32434.*torch>=2\.6"):
        read_state_dict(str(zip_file(tmp_path / "a.pth", data_pkl=b"x")))


def test_a_zip_that_fills_the_memory(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(__version__="2.10.0"))
    monkeypatch.setattr(torch_files, "check_unpacked", lambda archive: files.check_unpacked(archive, 1000))
    with pytest.raises(UserError, match=r"a\.pth: cannot be read .*unpacks to more than 1,000 bytes"):
        read_state_dict(str(zip_file(tmp_path / "a.pth", data_pkl=b"x" * 2000)))


def test_a_safetensors_file(tmp_path, resnet, monkeypatch, capsys):
    pytest.importorskip("safetensors", reason="pip install -r requirements-torch.txt")
    arrays = {f"module.{name}": array for name, array in resnet.items() if np.ndim(array)}
    path = safetensors_file(tmp_path / "weights.bin", arrays | {"more.weight": resnet["fc.bias"]})
    arguments = ["weights", "import", str(path), "--net", "resnet_v1_18", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", arguments)
    command.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "not used: more.weight: resnet_v1_18 has no such layer"
    assert "fits resnet_v1_18" in lines
    assert "--preprocessing torchvision" in lines[-1]
    assert shapes_of(f"{tmp_path}/out/model.ckpt-0") == NETS["resnet_v1_18"].variable_shapes(5)
    read = tf.train.load_variable(f"{tmp_path}/out/model.ckpt-0", "resnet_v1_18/logits/weights")
    np.testing.assert_array_equal(read[0, 0], resnet["fc.weight"].T)


@pytest.mark.parametrize(
    ("kind", "content", "values", "line"),
    [
        ("F16", np.array([1, 0.5], np.float16).tobytes(), [1, 0.5], "converted from float16 to float32"),
        ("BF16", b"\x80\x3f\x49\x40", [1, 3.140625], "converted from bfloat16 to float32"),
    ],
)
def test_short_floats(kind, content, values, line, tmp_path):
    pytest.importorskip("safetensors", reason="pip install -r requirements-torch.txt")
    arrays, lines = read_state_dict(str(safetensors_file(tmp_path / "a.safetensors", {"a": content}, kind)))
    assert arrays["a"].dtype == np.float32
    assert arrays["a"].tolist() == values
    assert lines == [line]


def test_damaged_and_large_safetensors(tmp_path, monkeypatch):
    pytest.importorskip("safetensors", reason="pip install -r requirements-torch.txt")
    path = safetensors_file(tmp_path / "a.safetensors", {"a": np.ones(200, np.float32)})
    monkeypatch.setattr(array_checks, "MOST_BYTES", 799)
    with pytest.raises(UserError, match=r"a\.safetensors: cannot be read as a state dict \(its arrays take .*at most"):
        read_state_dict(str(path))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"a\.safetensors: cannot be read as a state dict \(.*\); get it again"):
        import_torch(path, "resnet_v1_18", tmp_path / "out")
    assert [found.name for found in tmp_path.iterdir()] == ["a.safetensors"]
