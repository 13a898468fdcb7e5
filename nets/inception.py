"""Inception v2, v3, v4 and Inception-ResNet v2, of TF-Slim's names.

- `inception_v2`: GoogLeNet with batch norm (arXiv:1502.03167), two 3×3 in the place of each 5×5. TF-Slim's first layer
  is a separable convolution of 8 filters for each colour, with biases, not the paper's 7×7.
- `inception_v3`: convolutions factored into 1×7 and 7×1, 1×3 and 3×1 (arXiv:1512.00567, §5 and 6).
- `inception_v4`, `inception_resnet_v2`: arXiv:1602.07261, §3.1 to 3.3.

Batch norm without gamma after each convolution, decay 0.9997, epsilon 0.001. The papers do not give initial weights; as
in TF-Slim they are scaled by the fan-in, in inception_resnet_v2 Xavier's; inception_v2's reductions have truncated
normals of deviation 0.09, its projections of 0.1. Dropout keeps 0.8 before the logits. The auxiliary head, of weight
0.4, is after the last 17×17 map. Heads average over the whole last map, so any size is possible from the smallest on;
TF-Slim's kernels of the auxiliary heads are 5×5 at 299 pixels, and here at any size.

A layer of the tables below is written 'NAME WIDTH [/STRIDE] [V]': the name ends in the kernel, and Conv2d_ before a
number is left out; V is VALID padding, else SAME. 'a, b' is a then b; 'a & b' are both of the same input,
concatenated.
"""

import functools
import re
from typing import NamedTuple

from tfcompat import batch_norm, dropout, slim, tf

WEIGHT_DECAY = 4e-5
AUXILIARY_LOSS_WEIGHT = 0.4
REDUCTION_STDDEV, PROJECTION_STDDEV = 0.09, 0.1  # of inception_v2: a 1×1 before other layers, and after a pool


class Layer(NamedTuple):
    """A convolution or a pool."""

    scope: str
    kernel: tuple[int, int]
    width: int | None  # None for a pool
    stride: int
    padding: str

    @classmethod
    @functools.cache
    def of(cls, text: str) -> "Layer":
        """Reads 'NAME[=KERNEL] [WIDTH] [/STRIDE] [V]'; the kernel is given where the name has another."""
        match = re.fullmatch(r"(\w*?(\dx\d))(?:=(\dx\d))?(?: (\d+))?(?: /(\d))?( V)?", text)
        name, in_name, kernel, width, stride, valid = match.groups()
        height, breadth = map(int, (kernel or in_name).split("x"))
        scope = f"Conv2d_{name}" if name[0].isdigit() else name
        return cls(scope, (height, breadth), width and int(width), int(stride or 1), "VALID" if valid else "SAME")


class Residual(NamedTuple):
    """Blocks of Inception-ResNet: input + scale * 1×1 convolution of the branches, then a ReLU."""

    scope: str  # of all of them, '' for none
    name: str
    count: int
    branches: tuple[str, ...]
    scale: float
    relu: bool = True


class Head(NamedTuple):
    """The end of a net: mean over the map, dropout, logits by a 1×1 convolution or a dense layer."""

    pool: str
    dropout: str
    logits: str
    dense: bool


class Auxiliary(NamedTuple):
    """A head on an inner layer: 5×5 mean of stride 3, 1×1, 5×5, logits."""

    after: str
    pool: str
    fifth: str  # the 5×5 convolution
    logits: str
    dense: bool
    stddevs: tuple[float, float] | None = None  # of its last two layers


def _module_v2(one: int, three: tuple[int, int], double: tuple[int, int], pool: tuple[str, int]) -> tuple[str, ...]:
    return (
        f"0a_1x1 {one}",
        f"0a_1x1 {three[0]}, 0b_3x3 {three[1]}",
        f"0a_1x1 {double[0]}, 0b_3x3 {double[1]}, 0c_3x3 {double[1]}",
        f"{pool[0]}Pool_0a_3x3, 0b_1x1 {pool[1]}",
    )


def _reduction_v2(three: tuple[int, int], double: tuple[int, int]) -> tuple[str, ...]:
    return (
        f"0a_1x1 {three[0]}, 1a_3x3 {three[1]} /2",
        f"0a_1x1 {double[0]}, 0b_3x3 {double[1]}, 1a_3x3 {double[1]} /2",
        "MaxPool_1a_3x3 /2",
    )


def _five_v3(pool: int, first: str = "0a_1x1", five: str = "0b_5x5") -> tuple[str, ...]:
    return (
        "0a_1x1 64",
        f"{first} 48, {five} 64",
        "0a_1x1 64, 0b_3x3 96, 0c_3x3 96",
        f"AvgPool_0a_3x3, 0b_1x1 {pool}",
    )


def _seven_v3(width: int) -> tuple[str, ...]:
    return (
        "0a_1x1 192",
        f"0a_1x1 {width}, 0b_1x7 {width}, 0c_7x1 192",
        f"0a_1x1 {width}, 0b_7x1 {width}, 0c_1x7 {width}, 0d_7x1 {width}, 0e_1x7 192",
        "AvgPool_0a_3x3, 0b_1x1 192",
    )


def _wide_v3(second: str) -> tuple[str, ...]:
    return (
        "0a_1x1 320",
        f"0a_1x1 384, 0b_1x3 384 & {second} 384",
        "0a_1x1 448, 0b_3x3 384, 0c_1x3 384 & 0d_3x1 384",
        "AvgPool_0a_3x3, 0b_1x1 192",
    )


_FIVES_V4 = (
    "0a_1x1 96",
    "0a_1x1 64, 0b_3x3 96",
    "0a_1x1 64, 0b_3x3 96, 0c_3x3 96",
    "AvgPool_0a_3x3, 0b_1x1 96",
)
_SEVENS_V4 = (
    "0a_1x1 384",
    "0a_1x1 192, 0b_1x7 224, 0c_7x1 256",
    "0a_1x1 192, 0b_7x1 192, 0c_1x7 224, 0d_7x1 224, 0e_1x7 256",
    "AvgPool_0a_3x3, 0b_1x1 128",
)
_EIGHTS_V4 = (
    "0a_1x1 256",
    "0a_1x1 384, 0b_1x3 256 & 0c_3x1 256",
    "0a_1x1 384, 0b_3x1 448, 0c_1x3 512, 0d_1x3 256 & 0e_3x1 256",
    "AvgPool_0a_3x3, 0b_1x1 256",
)
_STEM = "1a_3x3 32 /2 V, 2a_3x3 32 V, 2b_3x3 64"
_STEM_V3 = f"{_STEM}, MaxPool_3a_3x3 /2 V, 3b_1x1 80 V, 4a_3x3 192 V, MaxPool_5a_3x3 /2 V"

# What follows on another: layers, or a module's scope and branches, or residual blocks.
BODIES: dict[str, tuple[str | tuple[str, tuple[str, ...]] | Residual, ...]] = {
    "inception_v2": (
        "MaxPool_2a_3x3 /2, 2b_1x1 64, 2c_3x3 192, MaxPool_3a_3x3 /2",
        ("Mixed_3b", _module_v2(64, (64, 64), (64, 96), ("Avg", 32))),
        ("Mixed_3c", _module_v2(64, (64, 96), (64, 96), ("Avg", 64))),
        ("Mixed_4a", _reduction_v2((128, 160), (64, 96))),
        ("Mixed_4b", _module_v2(224, (64, 96), (96, 128), ("Avg", 128))),
        ("Mixed_4c", _module_v2(192, (96, 128), (96, 128), ("Avg", 128))),
        ("Mixed_4d", _module_v2(160, (128, 160), (128, 160), ("Avg", 96))),
        ("Mixed_4e", _module_v2(96, (128, 192), (160, 192), ("Avg", 96))),
        ("Mixed_5a", _reduction_v2((128, 192), (192, 256))),
        ("Mixed_5b", _module_v2(352, (192, 320), (160, 224), ("Avg", 128))),
        ("Mixed_5c", _module_v2(352, (192, 320), (192, 224), ("Max", 128))),
    ),
    "inception_v3": (
        _STEM_V3,
        ("Mixed_5b", _five_v3(32)),
        ("Mixed_5c", _five_v3(64, "0b_1x1", "Conv_1_0c_5x5")),  # names of the published checkpoint
        ("Mixed_5d", _five_v3(64)),
        ("Mixed_6a", ("1a_1x1=3x3 384 /2 V", "0a_1x1 64, 0b_3x3 96, 1a_1x1=3x3 96 /2 V", "MaxPool_1a_3x3 /2 V")),
        ("Mixed_6b", _seven_v3(128)),
        ("Mixed_6c", _seven_v3(160)),
        ("Mixed_6d", _seven_v3(160)),
        ("Mixed_6e", _seven_v3(192)),
        (
            "Mixed_7a",
            (
                "0a_1x1 192, 1a_3x3 320 /2 V",
                "0a_1x1 192, 0b_1x7 192, 0c_7x1 192, 1a_3x3 192 /2 V",
                "MaxPool_1a_3x3 /2 V",
            ),
        ),
        ("Mixed_7b", _wide_v3("0b_3x1")),
        ("Mixed_7c", _wide_v3("0c_3x1")),
    ),
    "inception_v4": (
        _STEM,
        ("Mixed_3a", ("MaxPool_0a_3x3 /2 V", "0a_3x3 96 /2 V")),
        ("Mixed_4a", ("0a_1x1 64, 1a_3x3 96 V", "0a_1x1 64, 0b_1x7 64, 0c_7x1 64, 1a_3x3 96 V")),
        ("Mixed_5a", ("1a_3x3 192 /2 V", "MaxPool_1a_3x3 /2 V")),
        *((f"Mixed_5{letter}", _FIVES_V4) for letter in "bcde"),
        ("Mixed_6a", ("1a_3x3 384 /2 V", "0a_1x1 192, 0b_3x3 224, 1a_3x3 256 /2 V", "MaxPool_1a_3x3 /2 V")),
        *((f"Mixed_6{letter}", _SEVENS_V4) for letter in "bcdefgh"),
        (
            "Mixed_7a",
            (
                "0a_1x1 192, 1a_3x3 192 /2 V",
                "0a_1x1 256, 0b_1x7 256, 0c_7x1 320, 1a_3x3 320 /2 V",
                "MaxPool_1a_3x3 /2 V",
            ),
        ),
        *((f"Mixed_7{letter}", _EIGHTS_V4) for letter in "bcd"),
    ),
    "inception_resnet_v2": (
        _STEM_V3,
        (
            "Mixed_5b",
            (
                "1x1 96",
                "0a_1x1 48, 0b_5x5 64",
                "0a_1x1 64, 0b_3x3 96, 0c_3x3 96",
                "AvgPool_0a_3x3, 0b_1x1 64",
            ),
        ),
        Residual("Repeat", "block35", 10, ("1x1 32", "0a_1x1 32, 0b_3x3 32", "0a_1x1 32, 0b_3x3 48, 0c_3x3 64"), 0.17),
        ("Mixed_6a", ("1a_3x3 384 /2 V", "0a_1x1 256, 0b_3x3 256, 1a_3x3 384 /2 V", "MaxPool_1a_3x3 /2 V")),
        Residual("Repeat_1", "block17", 20, ("1x1 192", "0a_1x1 128, 0b_1x7 160, 0c_7x1 192"), 0.1),
        (
            "Mixed_7a",
            (
                "0a_1x1 256, 1a_3x3 384 /2 V",
                "0a_1x1 256, 1a_3x3 288 /2 V",
                "0a_1x1 256, 0b_3x3 288, 1a_3x3 320 /2 V",
                "MaxPool_1a_3x3 /2 V",
            ),
        ),
        Residual("Repeat_2", "block8", 9, ("1x1 192", "0a_1x1 192, 0b_1x3 224, 0c_3x1 256"), 0.2),
        Residual("", "Block8", 1, ("1x1 192", "0a_1x1 192, 0b_1x3 224, 0c_3x1 256"), 1.0, relu=False),
        "7b_1x1 1536",
    ),
}
HEADS = {
    "inception_v2": Head("AvgPool_1a_7x7", "Dropout_1b", "Conv2d_1c_1x1", dense=False),
    "inception_v3": Head("AvgPool_1a_8x8", "Dropout_1b", "Conv2d_1c_1x1", dense=False),
    "inception_v4": Head("AvgPool_1a", "Dropout_1b", "Logits", dense=True),
    "inception_resnet_v2": Head("AvgPool_1a_8x8", "Dropout", "Logits", dense=True),
}
AUXILIARY = {
    "inception_v3": Auxiliary(
        "Mixed_6e", "AvgPool_1a_5x5", "Conv2d_2a_5x5", "Conv2d_2b_1x1", dense=False, stddevs=(0.01, 0.001)
    ),
    "inception_v4": Auxiliary("Mixed_6h", "AvgPool_1a_5x5", "Conv2d_2a", "Aux_logits", dense=True),
    "inception_resnet_v2": Auxiliary("Repeat_1", "Conv2d_1a_3x3", "Conv2d_2a_5x5", "Logits", dense=True),
}


def inception_arg_scope(weight_decay: float = WEIGHT_DECAY) -> dict:
    """Batch norm, initializer and regularizer of inception_v2, v3 and v4."""
    with (
        slim.arg_scope([slim.conv2d, slim.fully_connected], weights_regularizer=slim.l2_regularizer(weight_decay)),
        slim.arg_scope(
            [slim.conv2d], weights_initializer=slim.variance_scaling_initializer(), normalizer_fn=batch_norm
        ),
        slim.arg_scope([batch_norm], decay=0.9997, epsilon=0.001) as scope,
    ):
        return scope


def inception_resnet_v2_arg_scope(weight_decay: float = WEIGHT_DECAY) -> dict:
    """The same with Xavier's initial weights; TF-Slim regularizes the biases of this net too."""
    regularizer = slim.l2_regularizer(weight_decay)
    layers = [slim.conv2d, slim.fully_connected]
    with (
        slim.arg_scope(layers, weights_regularizer=regularizer, biases_regularizer=regularizer),
        slim.arg_scope([slim.conv2d], normalizer_fn=batch_norm),
        slim.arg_scope([batch_norm], decay=0.9997, epsilon=0.001) as scope,
    ):
        return scope


def _layer(net: tf.Tensor, layer: Layer, stddev: float | None = None) -> tf.Tensor:
    place = {"stride": layer.stride, "padding": layer.padding, "scope": layer.scope}
    if layer.width is None:
        pool = slim.max_pool2d if layer.scope.startswith("Max") else slim.avg_pool2d
        return pool(net, layer.kernel, **place)
    initial = {"weights_initializer": tf.truncated_normal_initializer(stddev=stddev)} if stddev else {}
    return slim.conv2d(net, layer.width, layer.kernel, **place, **initial)


def _chain(net: tf.Tensor, text: str, with_stddevs: bool = False) -> tf.Tensor:
    """The layers of a branch, [N, H, W, C] to [N, H', W', C']; with_stddevs: initial values of inception_v2."""
    words = text.split(", ")
    for i, word in enumerate(words):
        layers = [Layer.of(each) for each in word.split(" & ")]
        stddev = None
        if with_stddevs and layers[0].kernel == (1, 1):
            after_pool = i > 0 and "Pool" in words[i - 1]
            stddev = PROJECTION_STDDEV if after_pool else REDUCTION_STDDEV if i + 1 < len(words) else None
        outputs = [_layer(net, layer, stddev) for layer in layers]
        net = tf.concat(outputs, 3) if len(outputs) > 1 else outputs[0]
    return net


def _branches(net: tf.Tensor, branches: tuple[str, ...], with_stddevs: bool = False) -> tf.Tensor:
    outputs = []
    for i, text in enumerate(branches):
        with tf.variable_scope(f"Branch_{i}"):
            outputs.append(_chain(net, text, with_stddevs))
    return tf.concat(outputs, 3)


@slim.add_arg_scope
def inception_module(
    inputs: tf.Tensor,
    branches: tuple[str, ...],
    with_stddevs: bool = False,
    outputs_collections: str | None = None,
    scope: str | None = None,
) -> tf.Tensor:
    """Branches of layers, concatenated along the channels: [N, H, W, C] to [N, H', W', C']."""
    with tf.variable_scope(scope, "Mixed", [inputs]) as sc:
        return slim.utils.collect_named_outputs(outputs_collections, sc.name, _branches(inputs, branches, with_stddevs))


@slim.add_arg_scope
def residual_block(
    inputs: tf.Tensor, blocks: Residual, outputs_collections: str | None = None, scope: str | None = None
) -> tf.Tensor:
    """input + scale * 1×1 convolution of the branches, and a ReLU; [N, H, W, C] (arXiv:1602.07261, §3.3)."""
    with tf.variable_scope(scope, "Block", [inputs]) as sc:
        mixed, width = _branches(inputs, blocks.branches), inputs.shape.as_list()[3]
        residual = slim.conv2d(mixed, width, 1, normalizer_fn=None, activation_fn=None, scope="Conv2d_1x1")
        net = inputs + blocks.scale * residual
        net = tf.nn.relu(net) if blocks.relu else net
        return slim.utils.collect_named_outputs(outputs_collections, sc.name, net)


def inception(
    inputs: tf.Tensor,
    num_classes: int,
    is_training: "bool | tf.Tensor",
    scope: str,
    variant: str,
    dropout_keep_prob: float = 0.8,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds a net of BODIES. The end point SCOPE/AuxLogits/logits has the auxiliary head's, [N, num_classes]."""
    heads, auxiliary = {}, AUXILIARY.get(variant)
    with tf.variable_scope(scope, "Inception", [inputs]) as sc:
        collection = sc.original_name_scope + "_end_points"
        layers = [slim.conv2d, slim.separable_conv2d, slim.max_pool2d, slim.avg_pool2d]
        layers += [slim.fully_connected, inception_module, residual_block, dropout]
        with (
            slim.arg_scope(layers, outputs_collections=collection),
            slim.arg_scope([batch_norm, dropout], is_training=is_training),
        ):
            net, of_v2 = inputs, variant == "inception_v2"
            if of_v2:  # 8 depthwise filters for each colour, then 64 of 1×1
                initial = tf.truncated_normal_initializer(stddev=1.0)
                options = {"depth_multiplier": 8, "stride": 2, "weights_initializer": initial}
                net = slim.separable_conv2d(net, 64, 7, **options, scope="Conv2d_1a_7x7")
            for row in BODIES[variant]:
                if isinstance(row, str):
                    net = _chain(net, row, of_v2)
                    continue
                name = row.scope if isinstance(row, Residual) else row[0]
                if isinstance(row, Residual):
                    net = _residual_blocks(net, row)
                else:
                    net = inception_module(net, row[1], of_v2, scope=name)
                if auxiliary and name == auxiliary.after:
                    heads[f"{sc.name}/AuxLogits/logits"] = _auxiliary_logits(net, num_classes, auxiliary)
            logits = _logits(net, num_classes, HEADS[variant], dropout_keep_prob)
        return logits, {**slim.utils.convert_collection_to_dict(collection), **heads}


def _residual_blocks(net: tf.Tensor, blocks: Residual) -> tf.Tensor:
    if not blocks.scope:
        return residual_block(net, blocks, scope=blocks.name)
    with tf.variable_scope(blocks.scope):
        for i in range(1, blocks.count + 1):
            net = residual_block(net, blocks, scope=f"{blocks.name}_{i}")
    return net


def _logits(net: tf.Tensor, num_classes: int, head: Head, keep_prob: float) -> tf.Tensor:
    """Logits [N, num_classes] of a map [N, H, W, C]."""
    with tf.variable_scope("Logits"):
        net = tf.reduce_mean(net, [1, 2], keepdims=True, name=head.pool)
        net = dropout(net, keep_prob, scope=head.dropout)
        return _classified(net, num_classes, head.logits, head.dense)


def _classified(net: tf.Tensor, num_classes: int, scope: str, dense: bool, **initial: object) -> tf.Tensor:
    """Logits [N, num_classes] of [N, 1, 1, C], by a dense layer or a 1×1 convolution."""
    if dense:
        return slim.fully_connected(slim.flatten(net), num_classes, activation_fn=None, scope=scope)
    net = slim.conv2d(net, num_classes, 1, activation_fn=None, normalizer_fn=None, **initial, scope=scope)
    return tf.squeeze(net, [1, 2], name="SpatialSqueeze")


def _auxiliary_logits(net: tf.Tensor, num_classes: int, head: Auxiliary) -> tf.Tensor:
    """Logits [N, num_classes] of a map of at least 17×17."""
    fifth, last = (
        [{"weights_initializer": tf.truncated_normal_initializer(stddev=stddev)} for stddev in head.stddevs]
        if head.stddevs
        else ({}, {})
    )
    with tf.variable_scope("AuxLogits"):
        net = slim.avg_pool2d(net, 5, stride=3, padding="VALID", scope=head.pool)
        net = slim.conv2d(net, 128, 1, scope="Conv2d_1b_1x1")
        net = slim.conv2d(net, 768, 5, padding="VALID", **fifth, scope=head.fifth)  # 5×5 is the whole map at 299
        net = tf.reduce_mean(net, [1, 2], keepdims=True)  # the logits are linear in it
        return _classified(net, num_classes, head.logits, head.dense, **last)
