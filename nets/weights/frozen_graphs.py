"""Frozen graphs: recovers the checkpoint that a GraphDef was frozen from, out of its constants.

TensorFlow's freeze_graph, retrain.py and TF-Slim's archives turn each variable into a constant of the same name, which
a node NAME/read passes on. Years of models exist in this form only. What cannot be recovered is batch norm that was
folded into the convolutions afterwards: the product of weights and scale does not say what either was.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from google.protobuf import text_format
from google.protobuf.message import DecodeError

import nets
from checkpoints import FROZEN, check_new, foreign, write_checkpoint
from errors import UserError
from files import MOST_BYTES, atomic_directory
from nets import Net
from nets.weights.restoring import Comparison, Shapes, compared, listed
from tfcompat import tf

PASSING = ("Identity", "Dequantize", "Cast")  # operations whose output is their first input, in another form
VARIABLES = ("Variable", "VariableV2", "VarHandleOp")
READ = re.compile(r"/(read|Read/ReadVariableOp)$")  # fold_constants leaves constants of these names
FOLDED = re.compile(r"fold|_bn_offset$|batchnorm/(mul|sub)$", re.IGNORECASE)
EIGHT_BITS = (tf.quint8, tf.qint8, tf.uint8, tf.int8)
SHORT_FLOATS = (tf.float16, tf.bfloat16)


class Value(NamedTuple):
    """A value that a graph holds: a node, and the constant that it passes on, which may be the node itself."""

    node: tf.NodeDef
    constant: tf.NodeDef

    @property
    def shape(self) -> list[int]:
        """Its shape, without decoding it: a small file can claim any size."""
        return [dimension.size for dimension in self.constant.attr["value"].tensor.tensor_shape.dim]

    @property
    def stored(self) -> tf.DType:
        """The type of the constant."""
        return tf.as_dtype(self.constant.attr["dtype"].type)


def is_graph(path: str) -> bool:
    """Whether a file is a GraphDef, by its content or, where that is damaged or text, by its name; no SavedModel."""
    return os.path.isfile(path) and (foreign(path) or "").startswith(FROZEN)


def import_frozen(path: "str | os.PathLike", net_name: str, out: "str | os.PathLike") -> list[str]:
    """Recovers a net's variables from a frozen graph into the checkpoint OUT/model.ckpt-0 with TF-Slim's names.

    Makes the directory OUT, which may exist only if it is empty. The net's heads may be missing. Returns lines about
    what the graph holds beside the net, and what was stored in fewer bits. Raises UserError if the file is no graph or
    is damaged, does not fit the net, has no values or folded batch norm, or the directory holds files.
    """
    check_new(out)
    with atomic_directory(out) as partial:
        values, lines = recover(os.fspath(path), nets.find(net_name))
        write_checkpoint(values, Path(partial) / "model.ckpt-0")
    return lines


def recover(path: str, net: Net) -> tuple[dict[str, np.ndarray], list[str]]:
    """The values of a net's variables in a frozen graph, by their names, and a report. Raises as `import_frozen`."""
    graph = read_graph(path)
    held = held_values(graph)
    outer = outer_scope(held, net)
    inner = {name.removeprefix(outer): value for name, value in held.items() if name.startswith(outer)}
    found, wanted = compared({name: value.shape for name, value in inner.items()}, net)
    _check(path, graph, net, inner, found, wanted)
    chosen = {name: inner[name] for name in found.restored}
    values = {}
    for name, value in chosen.items():
        try:
            array = _decoded(value, graph)
        except (ValueError, TypeError, tf.errors.OpError) as error:
            raise UserError(f"{path}: {outer}{name} cannot be decoded ({str(error).splitlines()[0][:200]})") from None
        if array.dtype != np.float32 or not np.isfinite(array).all():
            wrong = f"is {array.dtype}; the net needs float32" if array.dtype != np.float32 else "is not finite"
            raise UserError(f"{path}: {outer}{name} {wrong}")
        values[name] = array
    return values, _report(graph, outer, held, chosen)


def read_graph(path: str) -> tf.GraphDef:
    """The graph in a file, binary or text. Raises UserError."""
    if os.path.getsize(path) > MOST_BYTES:
        raise UserError(f"{path} is larger than {MOST_BYTES >> 30} GiB, which no GraphDef can be")
    content, graph = Path(path).read_bytes(), tf.GraphDef()
    try:
        if path.lower().endswith(".pbtxt"):
            text_format.Parse(content.decode(), graph)
        else:
            graph.ParseFromString(content)
    except (DecodeError, text_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error).splitlines()[0][:200]
        raise UserError(f"{path} is damaged, or no graph of TensorFlow's ({reason}); get it again") from None
    if not any(node.name and node.op for node in graph.node):
        raise UserError(f"{path} is no graph of TensorFlow's: it holds no operation")
    return graph


def held_values(graph: tf.GraphDef) -> dict[str, Value]:
    """What a graph holds, by the names of the variables that it was. Constants come before nodes that pass them on."""
    nodes = {node.name: node for node in graph.node}
    values = {}
    for node in graph.node:
        constant = node
        for _ in range(4):  # Const, Dequantize, Identity at most; a damaged graph may have a cycle
            if constant is not None and constant.op in PASSING and constant.input:
                constant = nodes.get(constant.input[0].partition(":")[0])
        if constant is not None and constant.op == "Const":
            name = READ.sub("", node.name)
            if name == node.name or name not in values:
                values[name] = Value(node, constant)
    return values


def outer_scope(names: Iterable[str], net: Net) -> str:
    """What precedes the net's own names in a graph's: "", or for example module/ of TensorFlow Hub, import/."""
    first = net.prefix or net.new_scopes[0]
    places = ((name, f"/{name}".find(f"/{first}")) for name in names)
    found = Counter(name[:place] for name, place in places if place >= 0)
    return found.most_common(1)[0][0] if found else ""


def _decoded(value: Value, graph: tf.GraphDef) -> np.ndarray:
    """The array of a value; TensorFlow computes it if it is stored in another form."""
    if value.node is value.constant:
        array = tf.make_ndarray(value.constant.attr["value"].tensor)
    else:
        part = tf.graph_util.extract_sub_graph(graph, [value.node.name])
        # A range or a control input could be any operation, such as one that writes a file.
        if others := {node.op for node in part.node}.difference(PASSING, ["Const"]):
            raise ValueError(f"it depends on {', '.join(sorted(others))}, which no frozen variable does")
        with tf.Graph().as_default(), tf.Session() as session:
            (result,) = tf.import_graph_def(part, return_elements=[f"{value.node.name}:0"], name="")
            array = session.run(result)
    array = np.asarray(array)
    if list(array.shape) != value.shape:
        raise ValueError(f"it is {list(array.shape)}, not {value.shape}")
    return array.astype(np.float32) if tf.as_dtype(array.dtype) in SHORT_FLOATS else array


def _check(path: str, graph: tf.GraphDef, net: Net, inner: dict[str, Value], found: Comparison, wanted: Shapes) -> None:
    """Raises UserError, which says why, where a graph does not hold all of a net but its heads."""
    named = net.scope or "the net"
    if not (found.restored or found.mismatched):
        variables = sum(node.op in VARIABLES for node in graph.node)
        if variables:
            unfrozen = f"{path} is not frozen: its {variables:,} variables have no values"
            raise UserError(f"{unfrozen}; give the checkpoint that was saved beside it to --init-from or --ckpt")
    if marks := _folded(inner, found, wanted):
        raise UserError(
            f"{path}: batch norm is folded into the convolutions ({marks}), as export.py and TensorFlow's "
            "fold_batch_norms and optimize_for_inference do it: weights and scale cannot be separated again. Give the "
            "checkpoint, or the graph as it was frozen"
        )
    if not (found.restored or found.mismatched):
        scopes = ", ".join(sorted({name.split("/")[0] for name in inner})[:8])
        raise UserError(f"{path} has nothing of {named}: its constants have the scopes {scopes or 'of no name'}")
    problems = [f"{name} is {inner[name].shape}, the net needs {wanted[name]}" for name in found.mismatched]
    problems += [f"{name} is missing{_in_eight_bits(name, inner)}" for name in found.missing]
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(f"{path} does not fit {named}: {'; '.join(problems[:3])}{more}")


def _folded(inner: dict[str, Value], found: Comparison, wanted: Shapes) -> str | None:
    """Where a graph has folded batch norm, in words; None if it has not, or lacks the layers altogether."""
    norms = {name.rpartition("/")[0] for name in wanted if name.endswith("/moving_mean")}
    parts = {norm: [name for name in wanted if name.rpartition("/")[0] == norm] for norm in norms}
    lost = sorted(norm for norm, names in parts.items() if set(names) <= set(found.missing))
    marks = sorted(name for name in inner if FOLDED.search(name))
    convolutions = [norm for norm in lost if any(f"{norm.rpartition('/')[0]}/" in name for name in found.restored)]
    if not lost or not (marks or convolutions):
        return None
    example = f"{marks[0]} is there" if marks else f"the weights of {convolutions[0].rpartition('/')[0]} are there"
    return f"{len(lost)} of {len(norms)} layers have none of its variables, such as {lost[0]}; {example}"


def _in_eight_bits(name: str, inner: dict[str, Value]) -> str:
    short = [other for other in inner if other.startswith(f"{name}_") and inner[other].stored in EIGHT_BITS]
    return f" (its weights are quantised: {short[0]} is {inner[short[0]].stored.name})" if short else ""


def _report(graph: tf.GraphDef, outer: str, held: dict[str, Value], chosen: dict[str, Value]) -> list[str]:
    """Lines about what is remarkable in a graph whose net was found."""
    lines = [f"the graph's names begin with {outer}, which is left out"] if outer else []
    short = {name: value for name, value in chosen.items() if value.stored in (*EIGHT_BITS, *SHORT_FLOATS)}
    if short:
        types = ", ".join(sorted({value.stored.name for value in short.values()}))
        lines.append(f"stored in fewer bits ({types}), so not as exact as they were trained: {listed(list(short))}")
    simulated = sum(node.op.startswith("FakeQuant") for node in graph.node)
    if simulated:
        lines.append(f"the graph rounds to 8 bits in {simulated} places (FakeQuant…); the net here does not")
    used = {value.constant.name for value in chosen.values()}
    rest = {value.constant.name: value for value in held.values() if value.constant.name not in used}
    arrays = {name: value for name, value in rest.items() if np.prod(value.shape) > 1 and value.stored.is_floating}
    if arrays:
        count = sum(int(np.prod(value.shape)) for value in arrays.values())
        lines.append(f"not used, beside the net: {len(arrays)} constants, {count:,} values: {listed(list(arrays))}")
    if len(rest) > len(arrays):
        lines.append(f"not used: {len(rest) - len(arrays)} constants that are no weights (numbers, shapes)")
    return lines
