"""Restores what fits of a checkpoint into the net of the current graph."""

from collections import Counter

import numpy as np

from checkpoints import Comparison, Shapes, check_restorable, compare, shapes_of
from nets import Net
from tfcompat import slim, tf


def head_width(stored: Shapes, net: Net) -> int | None:
    """Number of outputs of the net's main head in a checkpoint; None if the checkpoint has no such head."""
    head = [name for name in stored if name.startswith(net.new_scopes[0]) and name.endswith("/weights")]
    return stored[head[0]][-1] if len(head) == 1 and stored[head[0]] else None


def restorer(prefix: str, net: Net) -> tf.train.Saver:
    """A saver for the variables of the current graph's net that can be restored from a checkpoint.

    Prints which variables are restored. Raises UserError if the checkpoint has nothing of the net, or lacks variables
    that are not in the net's head.
    """
    variables = {variable.op.name: variable for variable in slim.get_model_variables()}
    wanted = {name: variable.shape.as_list() for name, variable in variables.items()}
    found = compare(shapes_of(prefix), wanted, net.new_scopes)
    print(f"weights from {prefix}:\n{describe(found, wanted)}", flush=True)
    check_restorable(prefix, variables, net.new_scopes, net.scope)
    return tf.train.Saver({name: variables[name] for name in found.restored})


def describe(found: Comparison, wanted: Shapes) -> str:
    """A comparison as a table of five lines. wanted are the shapes of the net's variables."""
    lines = []
    for title, names in zip(("restored", "fresh", "missing", "differing", "unused"), found, strict=True):
        values = sum(int(np.prod(wanted[name])) for name in names if name in wanted)
        amount = f", {values:,} values" if values else ""
        listed = f": {_listed(names)}" if names and title != "restored" else ""
        lines.append(f"  {title:<10}{len(names):>5} variables{amount}{listed}")
    return "\n".join(lines)


def _listed(names: list[str]) -> str:
    if len(names) <= 6:
        return ", ".join(names)
    # Optimizer slots and averages have the names of their variables as scopes: the last part says enough.
    kinds = Counter(name.rsplit("/", 1)[-1] for name in names)
    listed = [f"{count} × …/{kind}" for kind, count in kinds.most_common(5)]
    return ", ".join([*listed, *(["…"] if len(kinds) > 5 else [])])
