"""Restores what fits of a checkpoint into a net, and reports what it holds and which nets it fits."""

import os
from collections import Counter

import numpy as np

import nets
from checkpoints import Comparison, Shapes, check_restorable, compare, shapes_of
from errors import UserError
from nets import Net
from tfcompat import slim, tf


def head_width(stored: Shapes, net: Net) -> int | None:
    """Number of outputs of the net's main head in a checkpoint; None if the checkpoint has no such head."""
    head = [name for name in stored if name.startswith(net.new_scopes[0]) and name.endswith("/weights")]
    return stored[head[0]][-1] if len(head) == 1 and stored[head[0]] else None


def input_channels(stored: Shapes, net: Net) -> int:
    """Number of channels of the pictures that a checkpoint's net takes: the depth of its first kernels."""
    kernels = (shape for name, shape in stored.items() if name.startswith(net.prefix) and len(shape) == 4)
    return next((shape[2] for shape in kernels if shape[2] in (1, 3)), net.channels)


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


def inspect(prefix: str, net_name: str | None = None) -> str:
    """The report on a checkpoint, for one net or for the registered net that it fits best.

    Raises UserError if it holds nothing of the net, or of any net.
    """
    stored = shapes_of(prefix)
    scopes = {name.split("/")[0] for name in stored}
    names = (
        [net_name] if net_name else [name for name, net in nets.NETS.items() if net.scope in scopes or not net.scope]
    )
    found = {name: _compared(stored, nets.find(name)) for name in names}
    if not any(one.restored for one, _ in found.values()):
        known = ", ".join(sorted({nets.find(name).scope for name in names or nets.NETS}))
        held = ", ".join(sorted(scopes)[:8])
        raise UserError(f"{prefix} has nothing of {net_name or 'any net'}: it holds the scopes {held}, not {known}")
    failures = {name: (one.mismatched, one.missing, one.fresh, one.unused) for name, (one, _) in found.items()}
    best = min(found, key=lambda name: [len(part) for part in failures[name]])
    net, (one, wanted) = nets.find(best), found[best]
    form = "V2" if os.path.exists(prefix + ".index") else "V1"
    count = sum(int(np.prod(shape)) for shape in stored.values())
    fits = not (one.missing or one.mismatched)
    lines = [
        f"{prefix}: {form} checkpoint, {len(stored)} variables, {count:,} values",
        f"{'fits' if fits else 'does not fit'} {best}",
        describe(one, wanted),
        *(f"    {name} is {stored[name]} there and {wanted[name]} in the net" for name in one.mismatched[:5]),
        *_advice(prefix, best, head_width(stored, net), fits, whole=fits and not one.fresh),
    ]
    others = [name for name in found if name != best]
    if others:
        lines.append(f"also under the scope {net.scope}: {', '.join(others)}; --net NAME compares with one of them")
    return "\n".join(lines)


def _compared(stored: dict[str, list[int]], net: Net) -> tuple[Comparison, dict[str, list[int]]]:
    wanted = net.variable_shapes(head_width(stored, net) or 1000)
    return compare(stored, wanted, net.new_scopes), wanted


def _advice(prefix: str, name: str, width: int | None, fits: bool, whole: bool) -> list[str]:
    net = nets.find(name)
    head = net.new_scopes[0]
    if width is None:
        lines = [f"no head under {head}: good for fine-tuning only"]
    else:
        first = "of which output 0 is background" if width == 1001 else "output 0 is the first class"
        lines = [f"head {head}: {width:,} outputs, {first}: label offset {int(width == 1001)}"]
    lines.append(f"the net's own preprocessing {net.preprocessing}, {net.image_size} px, {net.channels} channels")
    if whole:
        lines.append(f"evaluate:   python eval.py --ckpt {prefix} --net {name} --data DATA")
    if fits:
        tune = f"--net {name} --init-from {prefix} --train-only {' '.join(net.heads)} --learning-rate 0.01"
        lines.append(f"fine-tune:  python train.py folder --source PICTURES {tune}")
    return lines
