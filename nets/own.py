"""A user's own net: FILE.py:NAME, a function like those of this package, or a Net of one.

    def my_net(inputs, num_classes, is_training, scope):
        with tf.variable_scope(scope, "my_net", [inputs]):
            ...
            return logits, {"my_net/block1": net}

All fields of its record but the function have defaults: see nets.record and `_completed`. Nets of TF-Slim's time work
as they are: logits may be [N, 1, 1, num_classes], and variables may be made by tf.get_variable or tf.layers.
"""

import dataclasses
import sys
from collections import deque
from collections.abc import Callable
from functools import cache

import own_code
from errors import UserError
from nets.record import Net
from sizes import sides
from tfcompat import dropout, slim, tf, upstream

CLASSES = 7  # of the trial build


@cache
def own_net(name: str) -> Net:
    """The record of a user's net, of an absolute name FILE.py:NAME that own_code has allowed.

    Builds the net once, in a graph of its own. Prints a line where its random ops would make a resumed run differ.
    Raises UserError where the file fails or the function does not do what a net must.
    """
    found = own_code.load(name, "net")
    if not (callable(found) or isinstance(found, Net)):
        raise UserError(f"{name} is a {type(found).__name__}; it must be a function that builds a net, or a nets.Net")
    net = found if isinstance(found, Net) else Net(function=found)
    file, _ = own_code.split(name)
    return _completed(dataclasses.replace(net, function=_checked(net.function, name, file)), name)


def _checked(function: Callable, name: str, file: str) -> Callable:
    """The function with its result checked, and with errors that name the line in the user's file."""

    def build(
        inputs: tf.Tensor, num_classes: int, is_training: "bool | tf.Tensor", scope: str
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        try:
            result = function(inputs, num_classes, is_training=is_training, scope=scope)
        except own_code.FAILURES as error:
            raise own_code.mistake(file, error) from error
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
            raise UserError(
                f"{name} must return a pair: logits [N, num_classes], and a dict of end points, such as {{}}"
            )
        logits, end_points = result
        shape = logits.shape.as_list() if tf.is_tensor(logits) and logits.shape.rank else None
        if shape and len(shape) == 4 and shape[1:3] == [1, 1]:
            logits, shape = tf.squeeze(logits, [1, 2]), [shape[0], shape[3]]
        if shape is None or len(shape) != 2 or shape[1] != num_classes:
            given = f"has logits of shape {shape}" if shape else "returns no tensor as its logits"
            raise UserError(f"{name} {given}; they must be [N, num_classes], here [{inputs.shape[0]}, {num_classes}]")
        known = slim.get_model_variables()
        for variable in tf.global_variables(f"{scope}/"):  # not made by slim's layers
            if not any(variable is other for other in known):
                tf.add_to_collection(tf.GraphKeys.MODEL_VARIABLES, variable)
        return logits, end_points

    return build


def _completed(net: Net, name: str) -> Net:
    """The record with the fields that follow from the graph: heads and learning_rate."""
    with tf.Graph().as_default() as graph:
        tf.set_random_seed(0)
        images = tf.placeholder(tf.float32, [2, *sides(net.image_size), net.channels])
        with slim.arg_scope([dropout], seed=tf.constant([0, 0])):
            logits, _ = net.build(images, CLASSES, True, net.weight_decay)
        variables = {variable.op.name: variable for variable in tf.global_variables()}
        outside = [each for each in variables if not each.startswith(net.prefix)]
        if outside or not variables:
            found = f"makes {outside[0]}" if outside else "has no variables"
            remedy = f'with tf.variable_scope(scope, "{net.scope}", [inputs]):'
            raise UserError(f"{name} {found}; all its variables must be in the scope that it is given: {remedy}")
        drawn = sorted(op.type for op in upstream([logits.op]) if op.op_def.is_stateful and "Random" in op.type)
        if drawn:
            print(
                f"{name} draws random numbers by {', '.join(dict.fromkeys(drawn))}, from slim.dropout or tf.random: a "
                "run that is stopped and resumed will differ from one that is not; use tfcompat.dropout",
                file=sys.stderr,
            )
        heads = net.heads or (_head(graph, logits).removeprefix(net.prefix),)
    has_batch_norm = any(each.endswith(("/moving_mean", "/moving_variance")) for each in variables)
    return dataclasses.replace(net, heads=heads, learning_rate=net.learning_rate or (0.1 if has_batch_norm else 0.01))


def _head(graph: tf.Graph, logits: tf.Tensor) -> str:
    """The scope of the variables nearest to the logits: those of the last layer."""
    handles = {variable.op: variable.op.name for variable in tf.global_variables()}
    queue, seen = deque([logits.op]), {logits.op}
    while queue:
        operation = queue.popleft()
        if operation in handles:
            scope, _, last = handles[operation].rpartition("/")
            return scope if "/" in scope else f"{scope}/{last}"
        for before in (tensor.op for tensor in operation.inputs):
            if before not in seen:
                seen.add(before)
                queue.append(before)
    raise UserError("the logits do not depend on any variable")
