"""Converts the graph of a session to one without variables, which other runtimes read.

Values that do not depend on the inputs become constants: variables, and results that are computed from variables alone,
such as the halves of weights that are split for two groups. Batch norm is folded into the convolution before it, where
there is one; batch norm of pre-activation has none.
"""

from collections import Counter

import numpy as np

from tfcompat import tf, upstream

CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
BATCH_NORM = "FusedBatchNormV3"


def frozen(session: tf.Session, inputs: list[tf.Tensor], outputs: list[tf.Tensor]) -> tf.GraphDef:
    """The graph from placeholders to outputs, which keep their names; an output is the first of its operation."""
    dependent = _dependent(inputs, outputs)
    constants = {
        _name(tensor, dependent): tensor for op in dependent for tensor in op.inputs if tensor.op not in dependent
    }
    values = session.run(constants)
    nodes = []
    for op in session.graph.get_operations():  # inputs come first
        if op in dependent:
            node = tf.NodeDef()
            node.CopyFrom(op.node_def)
            del node.input[:]
            node.input.extend(_name(tensor, dependent) for tensor in op.inputs)
            nodes.append(node)
    _fold_batch_norm(nodes, values)
    _subtract_mean_as_batch_norm(nodes, values)
    graph = tf.GraphDef(versions=session.graph.as_graph_def().versions)
    for name in {name: None for node in nodes for name in node.input if name in values}:
        array = np.asarray(values[name])
        node = graph.node.add(name=name, op="Const")
        node.attr["dtype"].type = tf.as_dtype(array.dtype).as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array))
    graph.node.extend(nodes)
    names = [tensor.op.name for tensor in outputs]
    # Removes identities, such as those that dropout leaves.
    return tf.graph_util.remove_training_nodes(tf.graph_util.extract_sub_graph(graph, names), names)


def _dependent(inputs: list[tf.Tensor], outputs: list[tf.Tensor]) -> set[tf.Operation]:
    """Operations between inputs and outputs, both included."""
    needed = upstream([tensor.op for tensor in outputs])
    between = needed & {tensor.op for tensor in inputs}
    for op in outputs[0].graph.get_operations():  # in the order they were built in, so inputs come first
        if op in needed and any(tensor.op in between for tensor in op.inputs):
            between.add(op)
    return between


def _name(tensor: tf.Tensor, dependent: set[tf.Operation]) -> str:
    """The name of a node's input in the frozen graph; the value of a variable gets the name of the variable."""
    if tensor.op in dependent:
        return tensor.name.removesuffix(":0")
    if tensor.op.type == "ReadVariableOp":
        return tensor.op.inputs[0].op.name
    return tensor.name.removesuffix(":0").replace(":", "_output_")


def _fold_batch_norm(nodes: list[tf.NodeDef], values: dict[str, np.ndarray]) -> None:
    """Scales the weights of convolutions instead of their outputs. Changes both arguments.

    TensorFlow's optimize_for_inference takes half a minute for this in inception_v1: it loops over single numbers.
    """
    by_name = {node.name: node for node in nodes}
    uses = Counter(name for node in nodes for name in node.input)
    for node in nodes:
        if node.op != BATCH_NORM or node.attr["is_training"].b or not set(node.input[1:]) <= set(values):
            continue
        gamma, beta, mean, variance = (values[name].astype(np.float64) for name in node.input[1:])
        scale = gamma / np.sqrt(variance + node.attr["epsilon"].f)
        before = by_name.get(node.input[0])
        if before is not None and before.op == "BiasAdd" and uses[before.name] == 1 and before.input[1] in values:
            mean = mean - values[before.input[1]]
            before = by_name.get(before.input[0])
        if before is None or before.op not in CONVOLUTIONS or uses[before.name] != 1 or before.input[1] not in values:
            continue
        weights = values[before.input[1]]
        depthwise = before.op == "DepthwiseConv2dNative"  # [H, W, C, multiplier], with C * multiplier outputs
        folded = weights * (scale.reshape(weights.shape[2:]) if depthwise else scale)
        before.input[1] = f"{before.name}/folded_weights"
        values[before.input[1]] = folded.astype(np.float32)
        values[f"{node.name}/folded_biases"] = (beta - mean * scale).astype(np.float32)
        node.CopyFrom(
            tf.NodeDef(
                name=node.name,
                op="BiasAdd",
                input=[before.name, f"{node.name}/folded_biases"],
                attr={"T": node.attr["T"], "data_format": node.attr["data_format"]},
            )
        )


def _subtract_mean_as_batch_norm(nodes: list[tf.NodeDef], values: dict[str, np.ndarray]) -> None:
    """Replaces placeholder - mean, for the mean of each channel, by a batch norm. Changes both arguments.

    The result is the same, but OpenCV 5.0 subtracts a vector correctly from a single picture only: with three pictures
    it gives other numbers, with seven an error.
    """
    placeholders = {node.name for node in nodes if node.op == "Placeholder"}
    for node in nodes:
        mean = values.get(node.input[1]) if node.op == "Sub" and node.input[0] in placeholders else None
        if mean is None or np.ndim(mean) != 1:
            continue
        ones, zeros = np.ones_like(mean), np.zeros_like(mean)
        parts = {"scale": ones, "offset": zeros, "mean": mean, "variance": ones}
        values |= {f"{node.name}/{name}": value for name, value in parts.items()}
        kind, images = tf.AttrValue(type=tf.float32.as_datatype_enum), node.input[0]
        attributes = {"T": kind, "U": kind, "epsilon": tf.AttrValue(f=0.0), "is_training": tf.AttrValue(b=False)}
        names = [images, *(f"{node.name}/{name}" for name in parts)]
        node.CopyFrom(tf.NodeDef(name=node.name, op=BATCH_NORM, input=names, attr=attributes))
