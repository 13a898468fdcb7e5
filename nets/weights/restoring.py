"""Restores what fits of a checkpoint into a net, and reports what it holds and which nets it fits."""

import os
from collections import Counter
from typing import NamedTuple

import numpy as np

import nets
from channels import USUAL
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
    kernels = {name: shape for name, shape in stored.items() if name.startswith(f"{net.scope}/") and len(shape) == 4}
    usual = next((shape[2] for shape in kernels.values() if shape[2] in USUAL), None)
    if usual:
        return usual
    # Another depth may be that of a later layer; to build the net, which tells the first one, takes seconds.
    first = _first_kernel(net.variable_shapes(head_width(stored, net) or 1000))
    return stored[first][2] if first in kernels else net.channels


def _first_kernel(shapes: Shapes) -> str | None:
    """The name of the first convolution's weights, of shapes in the order in which a net makes them; None for none."""
    return next((name for name, shape in shapes.items() if len(shape) == 4 and name.endswith("/weights")), None)


class Restorer(NamedTuple):
    """Restores variables from a checkpoint, of which some may be adapted to other pictures."""

    saver: tf.train.Saver
    adapted: dict[tf.Variable, np.ndarray]  # their values

    def restore(self, session: tf.Session, prefix: str) -> None:
        """Sets the variables."""
        self.saver.restore(session, prefix)
        for variable, value in self.adapted.items():
            variable.load(value, session)


def restorer(prefix: str, net: Net, adapt_channels: str | None = None) -> Restorer:
    """A restorer of the variables of the current graph's net from a checkpoint.

    adapt_channels, 'mean' or 'zeros', fits the first convolution to the number of channels of the pictures, as
    `adapted_kernel`. Prints which variables are restored. Raises UserError if the checkpoint has nothing of the net, or
    lacks variables that are not in the net's head, or where there is nothing to adapt.
    """
    variables = {variable.op.name: variable for variable in slim.get_model_variables()}
    wanted, stored = {name: variable.shape.as_list() for name, variable in variables.items()}, shapes_of(prefix)
    found = compare(stored, wanted, net.new_scopes)
    first = _first_kernel(wanted)
    kernels = [first] if first in found.mismatched and _differ_in_channels(stored[first], wanted[first]) else []
    adapted = {}
    for name in kernels if adapt_channels else ():
        channels, weights = wanted[name][2], tf.train.load_variable(prefix, name)
        adapted[variables.pop(name)] = adapted_kernel(weights, channels, adapt_channels)
        found.mismatched.remove(name)
        print(f"adapted {name} from {weights.shape[2]} to {channels} channels: {adapt_channels}")
    print(f"weights from {prefix}:\n{describe(found, wanted)}", flush=True)
    try:
        check_restorable(prefix, variables, net.new_scopes, net.scope)
    except UserError as error:
        if not kernels or adapt_channels:
            raise
        depths = f"{stored[kernels[0]][2]} channels, and the data {wanted[kernels[0]][2]}"
        raise UserError(
            f"{error}. The weights are for {depths}: --adapt-channels mean fits them to each other"
        ) from None
    if adapt_channels and not adapted:
        raise UserError(f"--adapt-channels {adapt_channels}: no convolution of {prefix} needs it; leave it out")
    return Restorer(tf.train.Saver({name: variables[name] for name in found.restored}), adapted)


def _differ_in_channels(stored: list[int], wanted: list[int]) -> bool:
    """Whether two shapes are those of one convolution for pictures of different numbers of channels."""
    return len(stored) == len(wanted) == 4 and [*stored[:2], stored[3]] == [*wanted[:2], wanted[3]]


def adapted_kernel(weights: np.ndarray, channels: int, how: str) -> np.ndarray:
    """The weights [H, W, S, N] of a first convolution for pictures of S channels, as [H, W, channels, N].

    mean: each channel gets the mean over the S channels, times S / channels, so that the response to a grey picture,
    whose channels are equal, stays the same. For one channel that is the sum, as in timm's adapt_input_conv, which
    repeats R, G, B for more. zeros: RGB keep their weights, further channels start at zero. Raises UserError for zeros
    from or to less than RGB, and for weights that are not finite.
    """
    depth = weights.shape[2]
    if not np.isfinite(weights).all():
        raise UserError("the weights of the first convolution are not finite")
    if how == "mean":
        mean = weights.mean(2, keepdims=True, dtype=np.float64) * (depth / channels)
        return np.repeat(mean, channels, 2).astype(weights.dtype)
    if depth != 3 or channels < 3:
        raise UserError(
            f"--adapt-channels zeros adds channels to RGB; the weights are for {depth} channels, and the data have "
            f"{channels}: use mean"
        )
    return np.concatenate(
        [weights, np.zeros_like(weights, shape=(*weights.shape[:2], channels - 3, weights.shape[3]))], 2
    )


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
    names = [net_name] if net_name else [name for name, net in nets.NETS.items() if net.scope in scopes]
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
        *_advice(prefix, best, stored, fits, whole=fits and not one.fresh),
    ]
    others = [name for name in found if name != best]
    if others:
        lines.append(f"also under the scope {net.scope}: {', '.join(others)}; --net NAME compares with one of them")
    return "\n".join(lines)


def _compared(stored: dict[str, list[int]], net: Net) -> tuple[Comparison, dict[str, list[int]]]:
    wanted = dict(net.variable_shapes(head_width(stored, net) or 1000))
    kernel = _first_kernel(wanted)
    if kernel in stored and _differ_in_channels(stored[kernel], wanted[kernel]):
        wanted[kernel] = stored[kernel]  # of a net for pictures of other channels
    return compare(stored, wanted, net.new_scopes), wanted


def _advice(prefix: str, name: str, stored: Shapes, fits: bool, whole: bool) -> list[str]:
    net = nets.find(name)
    width, channels = head_width(stored, net), input_channels(stored, net)
    head = net.new_scopes[0]
    if width is None:
        lines = [f"no head under {head}: good for fine-tuning only"]
    else:
        first = "of which output 0 is background" if width == 1001 else "output 0 is the first class"
        lines = [f"head {head}: {width:,} outputs, {first}: label offset {int(width == 1001)}"]
    lines.append(f"the net's own preprocessing {net.preprocessing}, {net.image_size} px, {channels} channels")
    if whole:
        lines.append(f"evaluate:   python eval.py --ckpt {prefix} --net {name} --data DATA")
    if fits:
        tune = f"--net {name} --init-from {prefix} --train-only {' '.join(net.heads)} --learning-rate 0.01"
        lines.append(f"fine-tune:  python train.py folder --source PICTURES {tune}")
    return lines
