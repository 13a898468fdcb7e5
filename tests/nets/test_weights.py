"""Reports on checkpoints, restoring parts of a checkpoint, and fetching published weights."""

import dataclasses
import functools
import hashlib
import http.server
import pathlib
import runpy
import sys
import tarfile
import threading

import numpy as np
import pytest

from checkpoints import shapes_of
from errors import UserError
from nets import NETS, weights
from nets.weights import (
    export_keras,
    fetch,
    head_width,
    input_channels,
    inspect,
    published,
    restorer,
    restoring,
    write_checkpoint,
)
from nets.weights.__main__ import main
from tfcompat import slim, tf

LENET = NETS["lenet"]


def values(num_classes=10, **changed):
    """Random values of lenet's variables; a keyword replaces one, None removes it."""
    rng = np.random.default_rng(0)
    made = {n: rng.normal(size=s).astype(np.float32) for n, s in LENET.variable_shapes(num_classes).items()}
    made |= {f"LeNet/{name.replace('__', '/')}": value for name, value in changed.items()}
    return {name: value for name, value in made.items() if value is not None}


def checkpoint(directory, content, form="V2"):
    """A checkpoint of these values: V2 with our writer, V1 with TensorFlow's Saver."""
    path = directory / "model.ckpt"
    if form == "V2":
        write_checkpoint(content, path)
    else:
        with tf.Graph().as_default(), tf.Session() as session:
            for name, value in content.items():
                tf.get_variable(name, initializer=value)
            session.run(tf.global_variables_initializer())
            saver = tf.train.Saver(write_version=tf.train.SaverDef.V1)
            saver.save(session, str(path), write_meta_graph=False, write_state=False)
    return str(path)


EXTRA = {"global_step": np.int64(7), "LeNet/mean_rgb": np.zeros(3, np.float32)}


@pytest.mark.parametrize("form", ["V1", "V2"])
def test_inspect_reports_the_net_that_fits(tmp_path, form):
    prefix = checkpoint(tmp_path, values() | EXTRA, form)
    assert (pathlib.Path(prefix).is_file()) == (form == "V1")
    report = inspect(prefix, None)
    assert f"{form} checkpoint, 10 variables" in report
    assert "fits lenet\n" in report
    assert "restored      8 variables" in report
    assert "unused        2 variables: " in report
    assert "LeNet/mean_rgb" in report
    assert "head LeNet/fc4: 10 outputs" in report
    assert "own preprocessing lenet, 28 px, 1 channels" in report
    assert f"--net lenet --init-from {prefix}" in report


def test_inspect_reports_missing_and_differing_variables(tmp_path):
    wrong = values(conv1__weights=np.zeros((3, 3, 1, 32), np.float32), fc3__biases=None)
    report = inspect(checkpoint(tmp_path, wrong), "lenet")
    assert "does not fit lenet" in report
    assert "missing       1 variables, 1,024 values: LeNet/fc3/biases" in report
    assert "LeNet/conv1/weights is [3, 3, 1, 32] there and [5, 5, 1, 32] in the net" in report
    assert "eval.py" not in report


@pytest.mark.parametrize(("width", "text"), [(1001, "background: label offset 1"), (1000, "label offset 0")])
def test_the_width_of_the_head_decides_the_label_offset(tmp_path, width, text):
    net = NETS["mobilenet_v1_025"]
    content = {n: np.zeros(s, np.float32) for n, s in net.variable_shapes(width).items()}
    prefix = checkpoint(tmp_path, content)
    assert head_width(shapes_of(prefix), net) == width
    report = inspect(prefix, None)  # the shapes decide which of the four widths it is
    assert "fits mobilenet_v1_025\n" in report
    assert text in report


@pytest.mark.parametrize("name", ["lenet", "mobilenet_v1_025", "preact_resnet_20"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_first_kernels_decide_the_channels(name, channels):
    shapes = dataclasses.replace(NETS[name], channels=channels).variable_shapes(10)
    assert input_channels(shapes, NETS[name]) == channels


@pytest.mark.parametrize("net", [None, "vgg_16"])
def test_a_scope_that_matches_nothing_is_an_error(tmp_path, net):
    prefix = checkpoint(tmp_path, {"Elsewhere/weights": np.zeros([2], np.float32)})
    with pytest.raises(UserError, match="Elsewhere"):
        inspect(prefix, net)


def restored(prefix, num_classes):
    """lenet's variables: zeros, except those that are restored."""
    with tf.Graph().as_default(), tf.Session() as session:
        inputs = tf.placeholder(tf.float32, [1, 28, 28, 1])
        LENET.build(inputs, num_classes, is_training=False, weight_decay=0.0)
        saver = restorer(prefix, LENET)
        for variable in slim.get_model_variables():
            session.run(variable.assign(tf.zeros_like(variable)))
        saver.restore(session, prefix)
        return session.run({v.op.name: v for v in slim.get_model_variables()})


def test_all_is_restored_where_the_classes_are_the_same(tmp_path, capsys):
    content = values()
    for name, value in restored(checkpoint(tmp_path, content), 10).items():
        np.testing.assert_array_equal(value, content[name], err_msg=name)
    assert "fresh         0 variables" in capsys.readouterr().out


def test_the_head_stays_fresh_where_the_classes_differ(tmp_path, capsys):
    content = values()
    for name, value in restored(checkpoint(tmp_path, content), 5).items():
        expected = np.zeros_like(value) if name.startswith("LeNet/fc4/") else content[name]
        np.testing.assert_array_equal(value, expected, err_msg=name)
    assert "fresh         2 variables, 5,125 values: LeNet/fc4/weights, LeNet/fc4/biases" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        (
            {"conv1__weights": np.zeros((3, 3, 1, 32), np.float32)},
            r"conv1/weights is \[3, 3, 1, 32\], the net needs",
        ),
        ({"fc3__biases": None}, "LeNet/fc3/biases is missing"),
    ],
)
def test_variables_outside_the_head_have_to_fit(tmp_path, changed, text):
    with pytest.raises(UserError, match=text):
        restored(checkpoint(tmp_path, values(**changed)), 5)


def test_a_checkpoint_of_another_net_is_an_error(tmp_path):
    with pytest.raises(UserError, match="nothing of LeNet; it holds the scopes Elsewhere"):
        restored(checkpoint(tmp_path, {"Elsewhere/weights": np.zeros([2], np.float32)}), 5)


@pytest.mark.parametrize("start", [b"\x89HDF\r\n", b"PK\x03\x04"])
def test_the_error_for_a_keras_file_names_import(tmp_path, start, monkeypatch):
    (tmp_path / "weights").write_bytes(start * 100)
    monkeypatch.setattr(sys, "argv", ["weights", "inspect", str(tmp_path / "weights")])
    with pytest.raises(UserError, match=r"nets\.weights import"):
        main()


def test_a_damaged_checkpoint_is_an_error(tmp_path, monkeypatch):
    prefix = checkpoint(tmp_path, values())
    data = pathlib.Path(f"{prefix}.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:1000])
    for command in (["inspect", prefix], ["export", prefix, "--net", "lenet", "--out", str(tmp_path / "x.weights.h5")]):
        monkeypatch.setattr(sys, "argv", ["weights", *command])
        with pytest.raises(UserError, match="cannot be read"):
            main()


def test_weights_whose_biases_do_not_fit_are_not_evaluated(tmp_path):
    report = inspect(checkpoint(tmp_path, values(fc4__biases=np.zeros(3, np.float32))), None)
    assert "fresh         1 variables, 10 values: LeNet/fc4/biases" in report
    assert "eval.py" not in report


def test_a_file_that_is_not_a_checkpoint_is_an_error(tmp_path):
    (tmp_path / "vgg_16.ckpt").write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(UserError, match=r"vgg_16\.ckpt cannot be read"):
        shapes_of(str(tmp_path / "vgg_16.ckpt"))


@pytest.fixture
def server(tmp_path):
    """An HTTP server on localhost; yields (directory that it serves, its address)."""
    directory = tmp_path / "served"
    directory.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=directory)
    handler.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield directory, f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


@pytest.fixture
def archive(server, tmp_path, monkeypatch):
    """An archive in TF-Slim's layout with random weights of lenet, published as lenet; and an empty cache."""
    directory, address = server
    (tmp_path / "made").mkdir()
    checkpoint(tmp_path / "made", values(), "V1")
    with tarfile.open(directory / "lenet.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "made/model.ckpt", "./lenet.ckpt")
        tar.add(tmp_path / "made", "./train.graph", recursive=False)
    digest = hashlib.sha256((directory / "lenet.tar.gz").read_bytes()).hexdigest()
    entry = published.Published("lenet", f"{address}lenet.tar.gz", f"sha256:{digest}")
    monkeypatch.setitem(published.PUBLISHED, "lenet", entry)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return directory / "lenet.tar.gz"


def test_fetched_weights_restore(archive, tmp_path):
    prefix = fetch("lenet")
    assert prefix.startswith(str(tmp_path / "cache"))
    for name, value in restored(prefix, 10).items():
        np.testing.assert_array_equal(value, values()[name], err_msg=name)
    archive.unlink()  # the second time nothing is downloaded
    assert fetch("lenet") == prefix


LAYOUTS = {  # names in an archive, of the checkpoint and of what lies beside it
    "mobilenet_v2": ("./m_1.0_224.ckpt", ["m_1.0_224.ckpt.meta", "m_1.0_224_frozen.pb", "._m_1.0_224.ckpt.index"]),
    "nasnet": ("model.ckpt", ["model.ckpt.meta", "checkpoint"]),
    "mobilenet_v3": (
        "v3/ema/model-540000",
        ["v3/ema/model-540000.meta", "v3/pristine/model.ckpt-540000.index", "v3/v3.pb"],
    ),
}


def packed(archive, monkeypatch, checkpoints, others=()):
    """Packs V2 checkpoints under these names, and other files, into the published archive."""
    with tarfile.open(archive, "w:gz") as tar:
        for name, prefix in checkpoints:
            for suffix in (".data-00000-of-00001", ".index"):
                tar.add(f"{prefix}{suffix}", f"{name}{suffix}")
        for name in others:
            tar.add(__file__, name)
    entry = published.PUBLISHED["lenet"]._replace(checksum=None)
    monkeypatch.setitem(published.PUBLISHED, "lenet", entry)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_archives_of_other_layouts(archive, tmp_path, monkeypatch, layout):
    (tmp_path / "new").mkdir()
    name, others = LAYOUTS[layout]
    packed(archive, monkeypatch, [(name, checkpoint(tmp_path / "new", values()))], others)
    prefix = fetch("lenet")
    assert pathlib.Path(prefix).name == pathlib.Path(name).name
    found = sorted(path.name.removeprefix(pathlib.Path(name).name) for path in pathlib.Path(prefix).parent.iterdir())
    assert found == [".data-00000-of-00001", ".index"]
    for variable, value in restored(prefix, 10).items():
        np.testing.assert_array_equal(value, values()[variable], err_msg=variable)


def test_an_archive_of_several_checkpoints_is_an_error(archive, tmp_path, monkeypatch):
    (tmp_path / "new").mkdir()
    prefix = checkpoint(tmp_path / "new", values())
    packed(archive, monkeypatch, [("model.ckpt-1", prefix), ("model.ckpt-2", prefix)])
    with pytest.raises(UserError, match=r"several checkpoints: model\.ckpt-1, model\.ckpt-2"):
        fetch("lenet")


def test_the_addresses_of_published_weights():
    of = {name: entry.url.rpartition("/")[2] for name, entry in published.PUBLISHED.items()}
    assert of["inception_resnet_v2"] == "inception_resnet_v2_2016_08_30.tar.gz"
    assert of["mobilenet_v2_035"] == "mobilenet_v2_0.35_224.tgz"
    assert of["mobilenet_v3_large_minimalistic"] == "v3-large-minimalistic_224_1.0_float.tgz"
    assert of["pnasnet_large"] == "pnasnet-5_large_2017_12_13.tar.gz"
    lengths = {"md5": 32, "sha256": 64, "sha384": 96}
    for entry in published.PUBLISHED.values():
        kind, _, digest = (entry.checksum or "").partition(":")
        assert len(digest) == lengths.get(kind, 0)


def test_a_download_with_a_wrong_checksum_is_an_error(archive, tmp_path):
    archive.write_bytes(archive.read_bytes()[:-10] + b"0123456789")
    with pytest.raises(UserError, match=r"could not be downloaded.*hash"):
        fetch("lenet")
    assert not list((tmp_path / "cache").rglob("*.ckpt*"))


def test_a_download_that_does_not_exist_is_an_error(archive):
    archive.unlink()
    with pytest.raises(UserError, match=r"could not be downloaded.*404"):
        fetch("lenet")


@pytest.mark.parametrize("content", ["no tar", "no checkpoint"])
def test_an_archive_without_a_checkpoint_is_an_error(archive, monkeypatch, content, tmp_path):
    if content == "no tar":
        archive.write_bytes(b"<html>" * 1000)
    else:
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(__file__, "README")
    entry = published.PUBLISHED["lenet"]._replace(checksum=None)
    monkeypatch.setitem(published.PUBLISHED, "lenet", entry)
    with pytest.raises(UserError, match=r"lenet\.tar\.gz (cannot be unpacked|holds no checkpoint)"):
        fetch("lenet")
    assert not list((tmp_path / "cache").rglob("lenet/*"))


def test_the_error_names_damaged_files_in_the_cache(archive, tmp_path):
    prefix = pathlib.Path(fetch("lenet"))
    prefix.write_bytes(prefix.read_bytes()[:500])
    with pytest.raises(UserError, match=r"cannot be read .* remove .* and fetch it again"):
        fetch("lenet")


def test_the_error_for_an_unknown_name_has_the_nearest_one():
    with pytest.raises(UserError, match="did you mean vgg_16"):
        fetch("vgg16")


def test_published_names_are_of_registered_nets():
    assert {entry.net for entry in published.PUBLISHED.values()} <= set(NETS)


def test_values_that_are_not_finite_are_not_exported(tmp_path):
    net = NETS["mobilenet_v1_025"]
    content = {n: np.full(s, np.nan, np.float32) for n, s in net.variable_shapes(5).items()}
    with pytest.raises(UserError, match="Conv2d_0/weights is not finite"):
        export_keras(checkpoint(tmp_path, content), "mobilenet_v1_025", str(tmp_path / "new.weights.h5"))
    assert not (tmp_path / "new.weights.h5").exists()


def test_the_command_line(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["weights", "inspect", checkpoint(tmp_path, values())])
    runpy.run_path(str(pathlib.Path(weights.__file__).with_name("__main__.py")), run_name="__main__")
    out, err = capfd.readouterr()
    assert err == ""
    assert "fits lenet" in out


def test_a_mistake_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["weights", "inspect", str(tmp_path), "--net", "lenett"])
    with pytest.raises(UserError, match=r"did you mean lenet\?"):
        main()


def shaped(directory, name):
    """A checkpoint of zeros in the shapes of a published one."""
    shapes = NETS[name].variable_shapes(1001)
    return checkpoint(directory, {name: np.zeros(shape, np.float32) for name, shape in shapes.items()})


@pytest.mark.parametrize(
    ("name", "built"),
    [
        pytest.param("mobilenet_v2_035", None, marks=pytest.mark.slow),
        ("nasnet_mobile", ["nasnet_mobile"]),
        pytest.param("pnasnet_large", ["pnasnet_large"], marks=pytest.mark.slow),
    ],
)
def test_inspect_builds_the_nets_that_it_may_be(tmp_path, monkeypatch, name, built):
    prefix, compared, tried = shaped(tmp_path, name), restoring.compared, []

    def remembering(stored, net):
        tried.extend(key for key, each in NETS.items() if each is net)
        return compared(stored, net)

    monkeypatch.setattr(restoring, "compared", remembering)
    assert f"\nfits {name}\n" in inspect(prefix)
    assert tried == (built or [key for key in NETS if key.startswith("mobilenet_v2")])


def test_a_checkpoint_of_scoped_names_is_no_reason_to_build_nets_without_scope(tmp_path, monkeypatch):
    monkeypatch.setattr(restoring, "compared", lambda stored, net: pytest.fail(f"{net} is built"))
    with pytest.raises(UserError, match="has nothing of any net"):
        inspect(checkpoint(tmp_path, {"Elsewhere/weights": np.zeros([2], np.float32)}))


def test_the_error_for_a_net_without_scope_names_it(tmp_path):
    prefix = checkpoint(tmp_path, {"conv0/weights": np.zeros([3, 3, 3, 32], np.float32)})
    with tf.Graph().as_default():
        tf.get_variable("conv0/weights", [3, 3, 3, 32], collections=[tf.GraphKeys.MODEL_VARIABLES])
        tf.get_variable("conv1/weights", [1], collections=[tf.GraphKeys.MODEL_VARIABLES])
        with pytest.raises(UserError, match="does not fit the net: conv1/weights is missing"):
            restorer(prefix, NETS["nasnet_mobile"])
