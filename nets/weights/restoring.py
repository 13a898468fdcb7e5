"""Restores what fits of a checkpoint into a net, and reports what it holds and which nets it fits."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

import nets
from channels import USUAL
from checkpoints import Comparison, Shapes, averages, check_restorable, compare, shapes_of, sources
from errors import UserError
from nets import Net
from sizes import sides
from tfcompat import slim, tf


def head_width(stored: Shapes, net: Net) -> int | None:
    """Number of outputs of the net's main head in a checkpoint; None if the checkpoint has no such head."""
    head = [name for name in stored if name.startswith(net.new_scopes[0]) and name.endswith("/weights")]
    return stored[head[0]][-1] if len(head) == 1 and stored[head[0]] else None


def input_channels(stored: Shapes, net: Net) -> int:
    """Number of channels of the pictures that a checkpoint's net takes: the depth of its first kernels."""
    kernels = {name: shape for name, shape in stored.items() if name.startswith(net.prefix) and len(shape) == 4}
    usual = next((shape[2] for shape in kernels.values() if shape[2] in USUAL), None)
    if usual:
        return usual
    # Another depth may be that of a later layer; to build the net, which tells the first one, takes seconds.
    first = _first_kernel(net.variable_shapes(head_width(stored, net) or 1000))
    return stored[first][2] if first in kernels else net.channels


def _first_kernel(shapes: Shapes) -> str | None:
    """The name of the first convolution's weights, of shapes in the order in which a net makes them; None for none."""
    return next((name for name, shape in shapes.items() if len(shape) == 4 and name.endswith("/weights")), None)


def absent_heads(stored: Shapes, net: Net) -> tuple[str, ...]:
    """Scopes of the net's auxiliary heads of which a checkpoint has nothing: frozen graphs and Keras leave them out."""
    scopes = [f"{net.prefix}{name.removesuffix('/logits')}/" for name in net.auxiliary]
    return tuple(scope for scope in scopes if not _has(stored, scope))


def _has(stored: Shapes, beginning: str) -> bool:
    return any(name.startswith(beginning) for name in stored)


def may_be_fresh(stored: Shapes, net: Net) -> tuple[str, ...]:
    """Beginnings of the names of variables that need not be restored from a checkpoint."""
    return (*net.new_scopes, *absent_heads(stored, net))


class Restorer(NamedTuple):
    """Restores variables from a checkpoint, of which some may be adapted to other pictures."""

    saver: tf.train.Saver
    adapted: dict[tf.Variable, np.ndarray]  # their values

    def restore(self, session: tf.Session, prefix: str) -> None:
        """Sets the variables."""
        self.saver.restore(session, prefix)
        for variable, value in self.adapted.items():
            variable.load(value, session)


def restorer(prefix: str, net: Net, adapt_channels: str | None = None, ema: bool = False) -> Restorer:
    """A restorer of the variables of the current graph's net from a checkpoint.

    adapt_channels, 'mean' or 'zeros', fits the first convolution to the number of channels of the pictures, as
    `adapted_kernel`. With ema, variables whose moving averages are in the checkpoint get these. Prints which variables
    are restored. Raises UserError if the checkpoint has nothing of the net, or lacks variables that are not in the
    net's heads, or where there is nothing to adapt.
    """
    variables = {variable.op.name: variable for variable in slim.get_model_variables()}
    wanted, held = {name: variable.shape.as_list() for name, variable in variables.items()}, shapes_of(prefix)
    source = sources(held, ema)
    stored = {name: held[key] for name, key in source.items()}
    fresh = may_be_fresh(stored, net)
    found = compare(stored, wanted, fresh)
    first = _first_kernel(wanted)
    kernels = [first] if first in found.mismatched and _differ_in_channels(stored[first], wanted[first]) else []
    adapted = {}
    for name in kernels if adapt_channels else ():
        channels, weights = wanted[name][2], tf.train.load_variable(prefix, source[name])
        adapted[variables.pop(name)] = adapted_kernel(weights, channels, adapt_channels)
        found.mismatched.remove(name)
        print(f"adapted {name} from {weights.shape[2]} to {channels} channels: {adapt_channels}")
    count = sum(source[name] != name for name in found.restored)
    average = f", EMA weights of {count} variables (--no-ema for the raw ones)" if count else ""
    print(f"weights from {prefix}{average}:\n{describe(found, wanted)}", flush=True)
    try:
        named = {source.get(name, name): variable for name, variable in variables.items()}
        check_restorable(prefix, named, fresh, net.scope)
    except UserError as error:
        if not kernels or adapt_channels:
            raise
        depths = f"{stored[kernels[0]][2]} channels, and the data {wanted[kernels[0]][2]}"
        raise UserError(
            f"{error}. The weights are for {depths}: --adapt-channels mean fits them to each other"
        ) from None
    if adapt_channels and not adapted:
        raise UserError(f"--adapt-channels {adapt_channels}: no convolution of {prefix} needs it; leave it out")
    return Restorer(tf.train.Saver({source[name]: variables[name] for name in found.restored}), adapted)


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
        which = f": {listed(names, wanted)}" if names and title != "restored" else ""
        lines.append(f"  {title:<10}{len(names):>5} variables{amount}{which}")
    return "\n".join(lines)


def listed(names: list[str], among: Iterable[str] = ()) -> str:
    """Names in a line: up to six; or their scope, where it is not that of all `among`; or how many there are of each
    kind."""
    if len(names) <= 6:
        return ", ".join(names)
    scope = os.path.commonpath(names)
    if scope and not all(name.startswith(f"{scope}/") for name in among):
        return f"all under {scope}"
    # Optimizer slots and averages have the names of their variables as scopes: the last part says enough.
    kinds = Counter(name.rsplit("/", 1)[-1] for name in names)
    listed = [f"{count} × …/{kind}" for kind, count in kinds.most_common(5)]
    return ", ".join([*listed, *(["…"] if len(kinds) > 5 else [])])


_USED = "used where it is in no run directory; --no-ema for the raw ones, and in a run --ema for these"


def inspect(prefix: str, net_name: str | None = None, preprocessing: str | None = None) -> str:
    """The report on a checkpoint, for one net or for the registered net that it fits best.

    preprocessing is what the weights expect, where that is known; None for the net's own.

    Raises UserError if it holds nothing of the net, or of any net.
    """
    held = shapes_of(prefix)
    stored = {name: held[source] for name, source in sources(held, ema=True).items()}
    scopes = {name.split("/")[0] for name in stored}
    names = [net_name] if net_name else [name for name, net in nets.NETS.items() if _may_be(net, stored, scopes)]
    # First the nets whose heads are there; of equal ones the first is the first in the registry.
    names.sort(key=lambda name: sum(not _has(stored, head) for head in nets.find(name).new_scopes))
    found = {}
    for name in names:
        one, _ = found[name] = compared(stored, nets.find(name))
        if one.restored and not (one.missing or one.mismatched or any(fresh in stored for fresh in one.fresh)):
            break  # the others cannot fit better, and to build one takes seconds
    if not any(one.restored for one, _ in found.values()):
        known = ", ".join(sorted({nets.find(name).scope for name in names or nets.NETS} - {""}))
        there = ", ".join(sorted(scopes)[:8])
        raise UserError(f"{prefix} has nothing of {net_name or 'any net'}: it holds the scopes {there}, not {known}")
    failures = {name: (one.mismatched, one.missing, one.fresh, one.unused) for name, (one, _) in found.items()}
    best = min(found, key=lambda name: [len(part) for part in failures[name]])
    net, (one, wanted) = nets.find(best), found[best]
    form = "V2" if os.path.exists(prefix + ".index") else "V1"
    count = sum(int(np.prod(shape)) for shape in held.values())
    averaged = set(averages(held)) & set(wanted)
    fresh = [name for name in one.fresh if not name.startswith(absent_heads(stored, net))]  # those eval.py leaves out
    fits = not (one.missing or one.mismatched)
    lines = [
        f"{prefix}: {form} checkpoint, {len(held)} variables, {count:,} values",
        f"{'fits' if fits else 'does not fit'} {best}",
        describe(one, wanted),
        *([f"  EMA weights of {len(averaged)} of {len(wanted)} variables: {_USED}"] if averaged else []),
        *(f"    {name} is {stored[name]} there and {wanted[name]} in the net" for name in one.mismatched[:5]),
        *_advice(prefix, best, stored, preprocessing, fits=fits, whole=fits and not fresh),
    ]
    others = [name for name in names if name != best]
    if others:
        where = f"under the scope {net.scope}" if net.scope else "with names like these"
        lines.append(f"also {where}: {', '.join(others)}; --net NAME compares with one of them")
    return "\n".join(lines)


def _may_be(net: Net, stored: Shapes, scopes: set[str]) -> bool:
    """Whether a checkpoint may be a net's: by its scope, or by its first variable if its names have none."""
    if net.scope:
        return net.scope in scopes
    name, shape = _first_variable(net)
    return name in stored and (stored[name] == shape or _differ_in_channels(stored[name], shape))


def _first_variable(net: Net) -> tuple[str, list[int]]:
    """Name and shape of the first variable that a net makes. The rest of it, which takes seconds, is not built."""

    class Found(Exception):
        pass

    def stop(getter: Callable, name: str, shape: Sequence[int], **options: object) -> None:
        raise Found(name, list(shape))

    with tf.Graph().as_default(), tf.variable_scope(tf.get_variable_scope(), custom_getter=stop):
        images = tf.placeholder(tf.float32, [1, *sides(net.image_size), net.channels])
        try:
            net.build(images, 1000, is_training=False, weight_decay=0.0)
        except Found as found:
            return found.args
    raise ValueError(f"{net} has no variables")


def compared(stored: dict[str, list[int]], net: Net) -> tuple[Comparison, dict[str, list[int]]]:
    """What of a net can be restored from stored variables, and the shapes that it needs for their classes and channels.

    Its heads, and auxiliary heads that are not stored at all, may be fresh.
    """
    wanted = dict(net.variable_shapes(head_width(stored, net) or 1000))
    kernel = _first_kernel(wanted)
    if kernel in stored and _differ_in_channels(stored[kernel], wanted[kernel]):
        wanted[kernel] = stored[kernel]  # of a net for pictures of other channels
    return compare(stored, wanted, may_be_fresh(stored, net)), wanted


def _advice(prefix: str, name: str, stored: Shapes, preprocessing: str | None, *, fits: bool, whole: bool) -> list[str]:
    net = nets.find(name)
    other = f" --preprocessing {preprocessing}" if preprocessing not in (None, net.preprocessing) else ""
    width, channels = head_width(stored, net), input_channels(stored, net)
    head = net.new_scopes[0]
    if width is None:
        lines = [f"no head under {head}: good for fine-tuning only"]
    else:
        first = "of which output 0 is background" if width == 1001 else "output 0 is the first class"
        lines = [f"head {head}: {width:,} outputs, {first}: label offset {int(width == 1001)}"]
    lines.append(f"the net's own preprocessing {net.preprocessing}, {net.image_size} px, {channels} channels")
    if whole:
        lines.append(f"evaluate:   python eval.py --ckpt {prefix} --net {name} --data DATA{other}")
    if fits:
        absent = tuple(scope.removeprefix(net.prefix) for scope in absent_heads(stored, net))
        heads = [scope.removesuffix("/") for scope in absent]  # all of them is fresh
        heads = [*(head for head in net.heads if not f"{head}/".startswith(absent)), *heads]
        tune = f"--net {name} --init-from {prefix} --train-only {' '.join(heads)} --learning-rate 0.01{other}"
        lines.append(f"fine-tune:  python train.py folder --source PICTURES {tune}")
    return lines
