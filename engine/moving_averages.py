"""Two ways in which batch norm spoils a training without an error, found in the graph."""

import math

from errors import UserError
from tfcompat import tf

TOO_MUCH = 0.1  # share of their initial values in the moving averages at the end


def check_values(graph: tf.Graph) -> None:
    """Raises UserError where a layer in training mode normalizes a single value: the result is 0 whatever the picture.

    That is so for a batch of one picture and maps of 1×1.
    """
    for operation in graph.get_operations():
        if operation.type.startswith("FusedBatchNormV") and operation.get_attr("is_training"):
            shape = operation.inputs[0].shape.as_list()
            if shape[:3] == [1, 1, 1]:
                raise UserError(
                    f"{operation.name.rpartition('/')[0]} normalizes a single value, which gives 0 for any picture; "
                    "use --batch-size 2 or more, a larger --image-size, or --batch-norm-updates none with --init-from"
                )


def lag(graph: tf.Graph, steps: int) -> str | None:
    """Says how much of their initial values the moving averages hold after a number of steps; None for a small share.

    Validation uses them. With the decay of Inception and MobileNet, 0.9997, that is half after 2,300 steps.
    """
    updates = [getattr(each, "op", each) for each in graph.get_collection(tf.GraphKeys.UPDATE_OPS)]
    rates = [share for operation in updates if (share := _share(operation))]
    decay = 1 - min(rates, default=1)
    if decay**steps <= TOO_MUCH:
        return None
    needed = math.ceil(math.log(TOO_MUCH) / math.log(decay))
    return (
        f"batch norm's moving averages (decay {decay:.6g}), which validation uses, will hold {decay**steps:.0%} of "
        f"their initial values after {steps:,} steps: expect a validation far worse than training. Train for "
        f"{needed:,} steps or more, or start from published weights with --init-from"
    )


def _share(operation: tf.Operation) -> float | None:
    """1 - decay of an update of a moving average; None for another operation."""
    if operation.type != "AssignSubVariableOp" or operation.inputs[1].op.type != "Mul":
        return None
    # The second factor is the difference of the constants 1 and decay.
    differences = [factor.op for factor in operation.inputs[1].op.inputs if factor.op.type == "Sub"]
    pairs = [[tf.get_static_value(part) for part in difference.inputs] for difference in differences]
    return next((float(one - decay) for one, decay in pairs if one is not None and decay is not None), None)
