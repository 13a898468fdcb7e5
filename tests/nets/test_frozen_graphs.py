"""Checkpoints that are recovered from frozen graphs."""

import pathlib
import re
import sys

import numpy as np
import pytest

import tiny_net  # noqa: F401 – registers its net
from checkpoints import locate, shapes_of
from errors import UserError
from exporting.freezing import frozen
from nets import NETS
from nets.weights import head_width, import_frozen
from nets.weights.__main__ import main
from tfcompat import tf

TINY = NETS["tiny"]
NORM = "tiny/Conv/BatchNorm"
REAL = pathlib.Path(__file__).resolve().parents[3] / "shared/data/weights"


def freeze(net=TINY, use_resource=True, classes=5, scope=None, fold=False):
    """(GraphDef, values by name) of a net with random weights, frozen by TensorFlow's own function."""
    rng = np.random.default_rng(0)
    with tf.Graph().as_default(), tf.Session() as session:
        with tf.variable_scope(tf.get_variable_scope(), use_resource=use_resource):
            size = max(net.image_size, net.smallest_size)
            images = tf.placeholder(tf.float32, [None, size, size, net.channels], "images")
            if scope:
                with tf.variable_scope(scope):
                    logits = net.build(images, classes, False, 0.0)[0]
            else:
                logits = net.build(images, classes, False, 0.0)[0]
        output = tf.identity(logits, "output")
        values = {}
        for variable in tf.global_variables():
            values[variable.op.name] = np.abs(rng.normal(size=variable.shape)).astype(np.float32)
            variable.load(values[variable.op.name], session)
        if fold:
            return frozen(session, [images], [output]), values
        return tf.graph_util.convert_variables_to_constants(session, session.graph_def, ["output"]), values


def constant(name, array, dtype=None):
    """A Const node."""
    node = tf.NodeDef(name=name, op="Const")
    node.attr["dtype"].type = tf.as_dtype(dtype or array.dtype).as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array, dtype))
    return node


def without(graph, pattern):
    """The graph without the nodes whose whole names match."""
    kept = [node for node in graph.node if not re.fullmatch(pattern, node.name)]
    return tf.GraphDef(node=kept)


def imported(graph, directory, net="tiny"):
    """(values in the recovered checkpoint, the printed lines)."""
    (directory / "graph.pb").write_bytes(graph.SerializeToString())
    lines = import_frozen(directory / "graph.pb", net, directory / "out")
    reader = tf.train.NewCheckpointReader(str(directory / "out/model.ckpt-0"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}, "\n".join(lines)


def assert_equal(found, values):
    assert set(found) == set(values)
    for name, value in values.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("use_resource", [True, False])
def test_constants_with_the_variables_names(tmp_path, use_resource):
    graph, values = freeze(use_resource=use_resource)
    assert ("tiny/logits/weights/read" in {node.name for node in graph.node}) == (not use_resource)
    assert_equal(imported(graph, tmp_path)[0], values)


@pytest.mark.parametrize("suffix", ["/read", "/Read/ReadVariableOp"])
def test_constants_that_identities_were_folded_into(tmp_path, suffix):
    graph, values = freeze(use_resource=False)
    graph = without(graph, ".*/read")
    for node in graph.node:
        node.name += suffix if node.name in values else ""
    assert_equal(imported(graph, tmp_path)[0], values)


def test_a_scope_around_the_net_is_left_out(tmp_path):
    graph, values = freeze(use_resource=False)
    for node in graph.node:
        node.name = f"module/{node.name}"
        node.input[:] = [f"module/{name}" for name in node.input]
    found, lines = imported(graph, tmp_path)
    assert_equal(found, values)
    assert "names begin with module/" in lines


def quantized(graph, names, keep_nodes=True):
    """Stores float constants in 8 bits, as graph_transforms' quantize_weights does; without the nodes that decode."""
    values = {node.name: tf.make_ndarray(node.attr["value"].tensor) for node in graph.node if node.name in names}
    graph = without(graph, "|".join(names))
    for name, value in values.items():
        low, high = value.min(), value.max()
        codes = np.round((value - low) / (high - low) * 255).astype(np.uint8)
        graph.node.append(constant(f"{name}_quantized_const", codes, tf.quint8))
        graph.node.append(constant(f"{name}_quantized_min", low))
        graph.node.append(constant(f"{name}_quantized_max", high))
        if keep_nodes:
            inputs = [f"{name}_quantized_{part}" for part in ("const", "min", "max")]
            node = graph.node.add(name=name, op="Dequantize", input=inputs)
            node.attr["T"].type, node.attr["mode"].s = tf.quint8.as_datatype_enum, b"MIN_FIRST"
    return graph


def test_weights_of_8_bits_are_recovered_and_reported(tmp_path):
    graph, values = freeze()
    found, lines = imported(quantized(graph, ["tiny/Conv/weights"]), tmp_path)
    step = np.ptp(values["tiny/Conv/weights"]) / 255
    np.testing.assert_allclose(found["tiny/Conv/weights"], values["tiny/Conv/weights"], atol=step * 1.01, rtol=0)
    assert not np.array_equal(found["tiny/Conv/weights"], values["tiny/Conv/weights"])
    assert "(quint8), so not as exact as they were trained: tiny/Conv/weights" in lines
    assert_equal(*({n: v for n, v in d.items() if n != "tiny/Conv/weights"} for d in (found, values)))


def test_weights_of_16_bits_are_recovered_and_reported(tmp_path):
    graph, values = freeze(use_resource=False)
    half = values["tiny/Conv/weights"].astype(np.float16)
    graph = without(graph, "tiny/Conv/weights")
    graph.node.append(constant("tiny/Conv/weights", half))
    found, lines = imported(graph, tmp_path)
    np.testing.assert_array_equal(found["tiny/Conv/weights"], half.astype(np.float32))
    assert "(float16)" in lines


def test_8_bits_that_nothing_decodes_are_named(tmp_path):
    graph, _ = freeze(use_resource=False)
    with pytest.raises(UserError, match=r"weights is missing \(its weights are quantised: .*_const is quint8"):
        imported(quantized(graph, ["tiny/Conv/weights"], keep_nodes=False), tmp_path)
    assert not (tmp_path / "out").exists()


def test_what_the_graph_holds_beside_the_net_is_reported(tmp_path):
    graph, values = freeze()
    graph.node.append(constant("final_training_ops/weights", np.ones([5, 2], np.float32)))
    graph.node.append(constant("final_training_ops/shape", np.array([1, 2])))
    graph.node.add(name="act_quant", op="FakeQuantWithMinMaxVars")
    found, lines = imported(graph, tmp_path)
    assert_equal(found, values)
    assert f"beside the net: 2 constants, 14 values: {NORM}/Const, final_training_ops/weights" in lines
    assert "constants that are no weights (numbers, shapes)" in lines
    assert "rounds to 8 bits in 1 places" in lines


def test_folded_batch_norm_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"batch norm is folded .*1 of 1 layers .*tiny/Conv/BatchNorm; .*folded"):
        imported(freeze(fold=True)[0], tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mark", [[], ["tiny/Conv/Conv2D_bn_offset"]])
def test_folded_weights_under_their_old_name_are_refused(tmp_path, mark):
    graph, _ = freeze()
    graph = without(graph, f"{NORM}/.*")
    graph.node.extend(constant(name, np.ones(4, np.float32)) for name in mark)
    with pytest.raises(UserError, match=f"batch norm is folded.*{(mark or ['the weights of tiny/Conv'])[0]}"):
        imported(graph, tmp_path)


def test_variables_that_are_missing_or_do_not_fit_are_named(tmp_path):
    graph, _ = freeze()
    with pytest.raises(UserError, match=f"graph.pb does not fit tiny: {NORM}/beta is missing"):
        imported(without(graph, f"{NORM}/beta"), tmp_path)
    wrong = without(graph, "tiny/Conv/weights")
    wrong.node.append(constant("tiny/Conv/weights", np.ones([5, 5, 3, 4], np.float32)))
    with pytest.raises(UserError, match=r"Conv/weights is \[5, 5, 3, 4\], the net needs \[3, 3, 3, 4\]"):
        imported(wrong, tmp_path)
    wrong = without(graph, f"{NORM}/beta")
    wrong.node.append(constant(f"{NORM}/beta", np.full(4, np.nan, np.float32)))
    with pytest.raises(UserError, match="beta is not finite"):
        imported(wrong, tmp_path)
    wrong = without(graph, f"{NORM}/beta")
    wrong.node.append(constant(f"{NORM}/beta", np.zeros(4, np.int32)))
    with pytest.raises(UserError, match="beta is int32; the net needs float32"):
        imported(wrong, tmp_path)


def test_a_shape_that_its_bytes_do_not_have_is_an_error(tmp_path):
    graph, _ = freeze()
    (node,) = (node for node in graph.node if node.name == "tiny/Conv/weights")
    node.attr["value"].tensor.tensor_content = b"\0" * 5
    with pytest.raises(UserError, match="tiny/Conv/weights cannot be decoded"):
        imported(graph, tmp_path)


def test_a_cycle_is_no_endless_loop(tmp_path):
    graph, values = freeze()
    for name, other in (("a", "b"), ("b", "a")):
        graph.node.add(name=name, op="Identity", input=[other])
    assert_equal(imported(graph, tmp_path)[0], values)


def test_a_graph_without_its_head_is_for_fine_tuning(tmp_path):
    graph, values = freeze()
    found, _ = imported(without(graph, "tiny/logits/.*"), tmp_path)
    assert_equal(found, {name: value for name, value in values.items() if "logits" not in name})
    assert head_width(shapes_of(str(tmp_path / "out/model.ckpt-0")), TINY) is None


def unfrozen(text):
    with tf.Graph().as_default() as graph:
        tf.get_variable("tiny/Conv/weights", [3, 3, 3, 4])
        definition = graph.as_graph_def()
    return str(definition).encode() if text else definition.SerializeToString()


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("train.pbtxt", unfrozen(text=True), "is not frozen: its 1 variables have no values; give the checkpoint"),
        ("graph.pb", unfrozen(text=False), "is not frozen: its 1 variables have no values; give the checkpoint"),
        ("graph.pbtxt", b"node {", "is damaged, or no graph"),
        ("graph.pb", freeze()[0].SerializeToString()[:-500], "is damaged, or no graph"),
        ("graph.pb", b"\x0a\xff\xff", "is damaged, or no graph"),
        ("graph.pb", b"\x12\x00", "holds no operation"),
        ("graph.pb", b"", "empty; get it again"),
        ("graph.pb", b"<html>not found</html>", "a web page"),
        ("saved_model.pb", b"\x08\x01\x12\x02ab", "the graph of a SavedModel; give its directory"),
        ("model.pb", b"\x08\x01\x12\x02ab", "the graph of a SavedModel; give its directory"),
    ],
)
def test_another_file_is_one_clear_line(tmp_path, monkeypatch, name, content, text):
    (tmp_path / name).write_bytes(content)
    arguments = ["weights", "import", str(tmp_path / name), "--net", "tiny", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(UserError, match=text) as failure:
        main()
    assert "\n" not in str(failure.value)
    assert not (tmp_path / "out").exists()


def test_a_graph_of_another_net_names_its_scopes(tmp_path):
    with pytest.raises(UserError, match="has nothing of LeNet: its constants have the scopes tiny"):
        imported(freeze()[0], tmp_path, "lenet")


@pytest.mark.parametrize("name", ["graph.pb", "graph"])
def test_the_command_line(tmp_path, monkeypatch, capsys, name):
    graph, _ = freeze()
    (tmp_path / name).write_bytes(graph.SerializeToString())
    with pytest.raises(UserError, match="a frozen graph; convert it to a checkpoint with python -m"):
        locate(str(tmp_path / name))
    arguments = ["weights", "import", str(tmp_path / name), "--net", "tiny", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", arguments)
    main()
    assert "fits tiny" in capsys.readouterr().out
    with pytest.raises(UserError, match="out"):  # it holds files
        main()
    monkeypatch.setattr(sys, "argv", [*arguments[:-1], str(tmp_path / "a[b")])
    with pytest.raises(UserError, match="wildcards"):
        main()


def test_the_real_graph(tmp_path):
    path = REAL / "retrained_graph.pb"
    if not path.exists():
        pytest.skip(f"needs {path}, which is not published here")
    lines = import_frozen(path, "mobilenet_v1", tmp_path / "out")
    assert "2 constants, 2,004 values: final_training_ops/weights/final_weights" in lines[0]
    reader = tf.train.NewCheckpointReader(str(tmp_path / "out/model.ckpt-0"))
    with np.load(REAL / "mobilenet_v1_1.0_224_slim.npz") as expected:
        arrays = {name.replace("|", "/"): expected[name] for name in expected.files}
    assert_equal({name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}, arrays)


def test_no_other_operation_of_a_graph_is_run(tmp_path):
    """A file that would write another one, as an input of what decodes a variable."""
    net, victim = TINY, tmp_path / "written"
    with tf.Graph().as_default() as graph:
        for name, shape in net.variable_shapes(5).items():
            if name == "tiny/Conv/weights":
                with tf.control_dependencies([tf.raw_ops.WriteFile(filename=str(victim), contents="x")]):
                    half = tf.constant(np.zeros(shape, np.float16))
                tf.cast(half, tf.float32, name=name)
            else:
                tf.constant(np.zeros(shape, np.float32), name=name)
    path = tmp_path / "graph.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(UserError, match=r"cannot be decoded .it depends on WriteFile, which no frozen variable does"):
        import_frozen(str(path), "tiny", tmp_path / "out")
    assert not victim.exists()
