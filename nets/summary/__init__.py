"""The layers of a net in the order of computation, as values and as a table: python -m nets.summary NAME."""

import dataclasses
import itertools
import re
import sys

import errors
import nets
from sizes import PictureSize, sides
from tfcompat import tf, upstream

# Graph operations that get a line, and the name of their kind.
KINDS = {
    "Conv2D": "conv",
    "DepthwiseConv2dNative": "depthwise",
    "MatMul": "dense",
    "MaxPool": "max pool",
    "AvgPool": "average pool",
    "FusedBatchNormV3": "batch norm",
    "Mean": "average pool",
    "LRN": "local response norm",
    "AddV2": "add",
    "ConcatV2": "concat",
}
WEIGHTED = ("Conv2D", "DepthwiseConv2dNative", "MatMul")
NAMED_BY_AUTHOR = ("Mean", "LRN", "AddV2", "ConcatV2")  # the others are named SCOPE/TYPE, with a unique SCOPE
# The block of a name without scopes: res2a_branch2b and bn2a_branch2b are in res2a, Conv2d_1_depthwise in Conv2d_1.
FLAT_BLOCKS = ((r"(?:res|bn)(\d[a-z])_branch\w+", r"res\1"), (r"(Conv2d_\d+)_(?:depth|point)wise", r"\1"))


@dataclasses.dataclass(kw_only=True)
class Layer:
    """A line of the table."""

    index: int
    name: str  # scope below the net's
    kind: str
    detail: str  # kernel, stride, groups
    shape: list[int]  # of the output: [height, width, channels] or [units]
    inputs: list[int]  # indices of the layers it reads; -1 is the picture
    multiply_adds: int
    auxiliary: bool  # the logits do not depend on it; it only helps training
    parameters: int = 0  # trainable
    moving: int = 0  # moving averages of batch norm: saved, but not trained
    block: str = ""  # unit, module or stack of the layer

    @property
    def size(self) -> str:
        """The output's shape as text."""
        return "×".join(f"{side:,}" for side in self.shape)

    @property
    def does(self) -> str:
        """Kind and detail as text."""
        return f"{self.kind} {self.detail}".rstrip()


@dataclasses.dataclass(frozen=True)
class Summary:
    """A net's layers in the order of computation."""

    title: str
    family: str  # first line of the source file
    picture: str  # shape of the input
    layers: list[Layer]

    def total(self, field: str, auxiliary: bool = True) -> int:
        """Sum of a field over the layers, with or without those of auxiliary heads."""
        return sum(getattr(layer, field) for layer in self.layers if auxiliary or not layer.auxiliary)


def summarize(name: str, num_classes: int = 1000, image_size: PictureSize | None = None) -> Summary:
    """Lists the layers of a registered net for a picture of a size in pixels; None for the net's default.

    Raises UserError for an unknown net, and if the picture is too small for it.
    """
    net = nets.find(name)
    height, width = sides(net.image_size if image_size is None else image_size)
    for flag, value in (("--num-classes", num_classes), ("--image-size", height), ("--image-size", width)):
        if not 1 <= value <= 100_000:
            raise errors.UserError(f"{flag} {value}: must be at least 1 and at most 100,000")
    with tf.Graph().as_default():
        pictures = tf.placeholder(tf.float32, [1, height, width, net.channels])
        logits, end_points = net.build(pictures, num_classes, is_training=False, weight_decay=0.0)
        ends = {key.removeprefix(net.prefix): tensor.op for key, tensor in end_points.items()}
        layers = _layers(pictures.op, logits.op, ends, net.prefix)
    family = sys.modules[getattr(net.function, "func", net.function).__module__].__doc__.splitlines()[0]
    picture = f"{height}×{width}×{net.channels}"
    return Summary(f"{name}, pictures of {picture}, {num_classes:,} classes", family, picture, layers)


def _layers(pictures: tf.Operation, logits: tf.Operation, ends: dict[str, tf.Operation], scope: str) -> list[Layer]:
    needed, everything = upstream([logits]), upstream([logits, *ends.values()])
    counts, variables = _multiply_adds(), tf.global_variables()
    # Where variables have no common scope, as in NASNet, operations may have one.
    roots = {op.name.partition("/")[0] for op in everything if op.type in KINDS}
    scope = f"{roots.pop()}/" if not scope and len(roots) == 1 else scope
    layers: list[Layer] = []
    owner = {pictures: -1}  # operations that depend on the pictures, to the index of their layer
    for op in tf.get_default_graph().get_operations():  # in order of creation: inputs come first
        sources = [owner[tensor.op] for tensor in op.inputs if tensor.op in owner]
        if not sources or op not in everything:
            continue
        owner[op] = sources[0]
        name = (op.name if op.type in NAMED_BY_AUTHOR else op.name.rpartition("/")[0]).removeprefix(scope)
        name = name.removesuffix("/separable_conv2d")  # its depthwise half; the other has the layer's name
        skipped = {
            "FusedBatchNormV3": layers and name == f"{layers[sources[0]].name}/BatchNorm",  # counts with its layer
            "Mean": op.inputs[0].shape.as_list()[1:3] == [1, 1],  # nothing to average
            "AddV2": len(sources) == 1,
        }
        if op.type in KINDS and not skipped.get(op.type):
            owner[op] = len(layers)
            layers.append(
                Layer(
                    index=len(layers),
                    name=name,
                    kind=KINDS[op.type],
                    detail=_detail(op),
                    shape=op.outputs[0].shape.as_list()[1:],
                    inputs=sources,
                    multiply_adds=counts[op.name] if op.type in WEIGHTED else 0,
                    auxiliary=op not in needed,
                )
            )
        read = upstream([tensor.op for tensor in op.inputs if tensor.op not in owner])
        for variable in (v for v in variables if v.handle.op in read):
            field = "parameters" if variable.trainable else "moving"
            setattr(layers[owner[op]], field, getattr(layers[owner[op]], field) + variable.shape.num_elements())
    for end in sorted(ends, key=len):  # the sum at the end of a unit gets the unit's longest name
        if (index := owner.get(ends[end], -1)) >= 0 and layers[index].kind in ("add", "concat"):
            layers[index].name = end
    single = {layer.name for layer in layers if layer.kind in ("conv", "depthwise")}
    units = {end for end in ends.keys() - single if any(x.name.startswith(f"{end}/") for x in layers)}
    units = sorted(units, key=len)
    for layer in layers:
        layer.block = layer.name.partition("/")[0]
        for unit in (unit for unit in units if f"{layer.name}/".startswith(f"{unit}/")):
            layer.block = unit
        for pattern, block in FLAT_BLOCKS:
            layer.block = re.sub(f"^{pattern}$", block, layer.block)
    return layers


def _multiply_adds() -> dict[str, int]:
    """Multiply-adds of the default graph's operations by name: half of what TensorFlow's profiler counts for each.

    The profiler's total is not used: it includes biases, pools and the random initial values.
    """
    builder = tf.profiler.ProfileOptionBuilder(tf.profiler.ProfileOptionBuilder.float_operation())
    pending = [tf.profiler.profile(tf.get_default_graph(), cmd="scope", options=builder.with_empty_output().build())]
    counts = {}
    while pending:
        node = pending.pop()
        counts[node.name] = node.float_ops // 2
        pending += node.children
    return counts


def _detail(op: tf.Operation) -> str:
    shape = op.inputs[0].shape.as_list()
    if op.type == "Mean":
        return f"{shape[1]}×{shape[2]}"
    if op.type not in ("Conv2D", "DepthwiseConv2dNative", "MaxPool", "AvgPool"):
        return ""
    kernel = op.get_attr("ksize")[1:] if "Pool" in op.type else op.inputs[1].shape.as_list()
    stride = op.get_attr("strides")[1]
    groups = shape[3] // kernel[2] if op.type == "Conv2D" else 1
    return (
        f"{kernel[0]}×{kernel[1]}"
        + (f", stride {stride}" if stride > 1 else "")
        + (f", {groups} groups" if groups > 1 else "")
    )


def runs(layers: list[Layer]) -> list[list[list[Layer]]]:
    """The blocks of the layers; consecutive equal blocks are in one list."""

    def signature(block: list[Layer]) -> list:
        return [(x.does, x.shape, x.parameters, x.auxiliary, [x.index - i for i in x.inputs]) for x in block]

    blocks = [list(block) for _, block in itertools.groupby(layers, key=lambda layer: layer.block)]
    return [list(run) for _, run in itertools.groupby(blocks, key=signature)]


def in_words(number: int) -> str:
    """1234567 becomes 1.23 million, and 8160 becomes 8,160."""
    if number < 1e4:
        return f"{number:,}"
    return f"{number / 1e9:,.2f} billion" if number >= 1e9 else f"{number / 1e6:,.2f} million"


def table(summary: Summary) -> str:
    """Title, layers and totals, to print."""
    rows = [("layer", "kind", "output", "parameters", "multiply-adds")]
    for first, *others in runs(summary.layers):
        for x in first:
            does = x.does + (" (auxiliary)" if x.auxiliary else "")
            rows.append((x.name, does, x.size, *(f"{n:,}" if n else "" for n in (x.parameters, x.multiply_adds))))
        if others:
            sums = [sum(getattr(x, field) for o in others for x in o) for field in ("parameters", "multiply_adds")]
            rows.append((f"… {others[-1][0].block}", f"{len(others)} more like it", "", *(f"{n:,}" for n in sums)))
    a, b, c, d, e = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [f"{r[0]:{a}}  {r[1]:{b}}  {r[2]:>{c}}  {r[3]:>{d}}  {r[4]:>{e}}".rstrip() for r in rows]
    rule = "-" * (a + b + c + d + e + 8)
    return "\n".join([summary.title, summary.family, "", lines[0], rule, *lines[1:], rule, *_totals(summary)])


def _totals(summary: Summary) -> list[str]:
    trained, moving, work = (summary.total(field) for field in ("parameters", "moving", "multiply_adds"))
    lines = [
        f"trainable parameters     {trained:>15,}  ({in_words(trained)})",
        f"non-trainable parameters {moving:>15,}  (moving averages of batch norm)",
        f"multiply-adds            {work:>15,}  ({in_words(work)})",
        f"size on disk             {4 * (trained + moving) / 1e6:>15,.1f}  MB (float32)",
    ]
    if any(layer.auxiliary for layer in summary.layers):
        trained, work = (summary.total(field, auxiliary=False) for field in ("parameters", "multiply_adds"))
        lines.append(
            f"without the auxiliary heads, which only help training: {in_words(trained)} trainable parameters, "
            f"{in_words(work)} multiply-adds"
        )
    return lines
