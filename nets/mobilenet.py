"""MobileNet v2 and v3: blocks that expand the channels, convolve each by itself, and project them to a few again.

- v2: Sandler et al. (arXiv:1801.04381), table 2. Blocks are linear at their narrow ends, ReLU6 within.
- v3: Howard et al. (arXiv:1905.02244), tables 1 and 2: hard swish in the later blocks, a gate for each channel
  (squeeze-and-excitation) in some; the minimalistic nets have neither, and 3×3 kernels throughout.

As in TF-Slim: batch norm with gamma after each convolution but the gates', decay 0.997, epsilon 0.001; weights from a
truncated normal of deviation 0.09; no weight decay on depthwise kernels; dropout keeps 0.8 before the logits; widths
are multiples of 8, never more than a tenth below the width times the multiplier. Where the published checkpoints depart
from the papers: v2's last 1×1 has 1,280 channels at all multipliers below 1, and a v3 gate is relu6(x + 3) · 0.16667.
The mean is over the whole last map, so any size is possible. The widths of v2 have one scope, as do the variants of v3.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tfcompat import batch_norm, dropout, slim, tf

WEIGHT_DECAY = 4e-5
GATE_SLOPE = 0.16667  # of v3: the published graphs round a sixth
V2_WIDTHS = {"_140": 1.4, "_130": 1.3, "": 1.0, "_075": 0.75, "_050": 0.5, "_035": 0.35}  # by TF-Slim's suffixes


class Block(NamedTuple):
    """An inverted residual block."""

    expansion: float  # factor of the input's channels
    width: int
    kernel: int = 3
    stride: int = 1
    gate: bool = False  # squeeze-and-excitation
    swish: bool = False  # hard swish in the place of ReLU


class Body(NamedTuple):
    """A net: a 3×3 convolution of stride 2, blocks, a 1×1 convolution, and in v3 a dense layer after the mean."""

    first: int
    blocks: tuple[Block, ...]
    last: int
    dense: int | None = None
    swish: bool = False  # in the layers outside of the blocks


def _v2() -> Body:
    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    blocks = (Block(t, c, stride=s if i == 0 else 1) for t, c, n, s in rows for i in range(n))
    return Body(32, tuple(blocks), 1280)


_LARGE = Body(
    16,
    (
        Block(1, 16),
        Block(4, 24, stride=2),
        Block(3, 24),
        Block(3, 40, 5, 2, gate=True),
        Block(3, 40, 5, gate=True),
        Block(3, 40, 5, gate=True),
        Block(6, 80, stride=2, swish=True),
        Block(2.5, 80, swish=True),
        Block(184 / 80, 80, swish=True),
        Block(184 / 80, 80, swish=True),
        Block(6, 112, gate=True, swish=True),
        Block(6, 112, gate=True, swish=True),
        Block(6, 160, 5, 2, gate=True, swish=True),
        Block(6, 160, 5, gate=True, swish=True),
        Block(6, 160, 5, gate=True, swish=True),
    ),
    *(960, 1280),
    swish=True,
)
_SMALL = Body(
    16,
    (
        Block(1, 16, stride=2, gate=True),
        Block(72 / 16, 24, stride=2),
        Block(88 / 24, 24),
        Block(4, 40, 5, 2, gate=True, swish=True),
        Block(6, 40, 5, gate=True, swish=True),
        Block(6, 40, 5, gate=True, swish=True),
        Block(3, 48, 5, gate=True, swish=True),
        Block(3, 48, 5, gate=True, swish=True),
        Block(6, 96, 5, 2, gate=True, swish=True),
        Block(6, 96, 5, gate=True, swish=True),
        Block(6, 96, 5, gate=True, swish=True),
    ),
    *(576, 1024),
    swish=True,
)


def _minimalistic(body: Body) -> Body:
    blocks = (block._replace(kernel=3, gate=False, swish=False) for block in body.blocks)
    return body._replace(blocks=tuple(blocks), swish=False)


V2 = _v2()
V3 = {  # with the width multiplier
    "large": (_LARGE, 1.0),
    "large_075": (_LARGE, 0.75),
    "small": (_SMALL, 1.0),
    "small_075": (_SMALL, 0.75),
    "large_minimalistic": (_minimalistic(_LARGE), 1.0),
    "small_minimalistic": (_minimalistic(_SMALL), 1.0),
}


def mobilenet_arg_scope(weight_decay: float = WEIGHT_DECAY) -> dict:
    """Initializer, regularizer and batch norm settings; the net adds is_training to them."""
    with (
        slim.arg_scope(
            [slim.conv2d, slim.separable_conv2d],
            weights_initializer=tf.truncated_normal_initializer(stddev=0.09),
            normalizer_fn=batch_norm,
        ),
        slim.arg_scope([slim.conv2d], weights_regularizer=slim.l2_regularizer(weight_decay)),
        slim.arg_scope([batch_norm], decay=0.997, epsilon=0.001, scale=True) as scope,
    ):
        return scope


def hard_swish(x: tf.Tensor) -> tf.Tensor:
    """x · relu6(x + 3) / 6, of any shape (arXiv:1905.02244, §5.2)."""
    with tf.name_scope("hard_swish"):
        return x * tf.nn.relu6(x + 3.0) * np.float32(1 / 6)


def divisible(width: float, by: int = 8) -> int:
    """The multiple of `by` nearest to a width, at least `by`, and no more than a tenth below the width."""
    rounded = max(by, int(width + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * width else rounded


def _gated(net: tf.Tensor) -> tf.Tensor:
    """Each channel of [N, H, W, C] times a gate from the means of all channels."""
    channels = net.shape.as_list()[3]
    with tf.variable_scope("squeeze_excite"), slim.arg_scope([slim.conv2d], normalizer_fn=None):
        means = tf.reduce_mean(net, [1, 2], keepdims=True)
        squeezed = slim.conv2d(means, divisible(channels / 4), 1, activation_fn=tf.nn.relu, scope="Conv")
        gate = slim.conv2d(
            squeezed, channels, 1, activation_fn=lambda x: tf.nn.relu6(x + 3.0) * GATE_SLOPE, scope="Conv_1"
        )
        return net * gate


@slim.add_arg_scope
def inverted_residual(
    inputs: tf.Tensor,
    block: Block,
    width: int,
    activation: Callable,
    outputs_collections: str | None = None,
    scope: str | None = None,
) -> tf.Tensor:
    """Expansion by 1×1, a convolution of each channel, projection by 1×1; [N, H, W, C] to [N, H', W', width].

    The input is added where its shape is that of the output (arXiv:1801.04381, figure 4).
    """
    channels = inputs.shape.as_list()[3]
    inner = divisible(channels * block.expansion) if block.expansion != 1 else channels
    with (
        tf.variable_scope(scope, "expanded_conv", [inputs]) as sc,
        slim.arg_scope([slim.conv2d, slim.separable_conv2d], activation_fn=activation),
    ):
        net = slim.conv2d(inputs, inner, 1, scope="expand") if inner > channels else inputs
        # Without num_outputs, only the depthwise convolution.
        net = slim.separable_conv2d(net, None, block.kernel, stride=block.stride, scope="depthwise")
        net = _gated(net) if block.gate else net
        net = slim.conv2d(net, width, 1, activation_fn=None, scope="project")
        if block.stride == 1 and channels == width:
            net = net + inputs
        return slim.utils.collect_named_outputs(outputs_collections, sc.name, net)


def mobilenet(
    inputs: tf.Tensor,
    num_classes: int,
    is_training: "bool | tf.Tensor",
    scope: str,
    body: Body,
    width: float = 1.0,
    dropout_keep_prob: float = 0.8,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds a net of v2 or v3; `width` is the factor of all numbers of channels."""
    plain = tf.nn.relu6 if body.dense is None else tf.nn.relu
    outer = hard_swish if body.swish else plain
    with tf.variable_scope(scope, "Mobilenet", [inputs]) as sc:
        collection = sc.original_name_scope + "_end_points"
        with (
            slim.arg_scope(
                [slim.conv2d, slim.separable_conv2d, inverted_residual, dropout], outputs_collections=collection
            ),
            slim.arg_scope([batch_norm, dropout], is_training=is_training),
        ):
            net = slim.conv2d(inputs, divisible(body.first * width), 3, 2, activation_fn=outer, scope="Conv")
            for i, block in enumerate(body.blocks):
                activation = hard_swish if block.swish else plain
                name = f"expanded_conv_{i}" if i else "expanded_conv"
                net = inverted_residual(net, block, divisible(block.width * width), activation, scope=name)
            # Narrow nets keep the layer before the logits wide (§3.3 of v2's experiments).
            wide = max(width, 1.0)
            last = body.last * (wide if body.dense is None else width)
            net = slim.conv2d(net, divisible(last), 1, activation_fn=outer, scope="Conv_1")
            if body.dense is not None:
                net = tf.reduce_mean(net, [1, 2], keepdims=True, name="AvgPool2D")
                dense = divisible(body.dense * wide)
                net = slim.conv2d(net, dense, 1, normalizer_fn=None, activation_fn=outer, scope="Conv_2")
            with tf.variable_scope("Logits"):
                if body.dense is None:
                    net = tf.reduce_mean(net, [1, 2], keepdims=True, name="AvgPool")
                net = dropout(net, dropout_keep_prob, scope="Dropout")
                net = slim.conv2d(net, num_classes, 1, activation_fn=None, normalizer_fn=None, scope="Conv2d_1c_1x1")
                logits = tf.squeeze(net, [1, 2], name="SpatialSqueeze")
        return logits, slim.utils.convert_collection_to_dict(collection)
