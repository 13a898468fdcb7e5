"""Pre-activation ResNets for small pictures: batch norm and ReLU come first, so the sums form an identity path.

He, Zhang, Ren and Sun, Identity mappings in deep residual networks (arXiv:1603.05027), figure 4(e), on the CIFAR layout
of Deep residual learning (arXiv:1512.03385, §4.2): a 3×3 convolution, three stages of units at 1, ½ and ¼ of the size,
global average pool. If the shape changes, the shortcut is a strided 1×1 convolution of the activated input, as in the
authors' code for the bottleneck nets; the CIFAR nets of 2015 pad with zeros instead.

He's initializer (arXiv:1502.01852), SAME convolutions without biases (batch norm or the sum follows), batch norm of
decay 0.9 and epsilon 1e-5 as in the authors' Torch code, no dropout, weight decay on all weights.

The `plain` variants have no shortcuts, all else equal. At depth 56 they learn worse than at depth 20, which shows the
effect of the shortcuts (arXiv:1512.03385, figure 6).
"""

from typing import NamedTuple

from tfcompat import batch_norm, slim, tf

WEIGHT_DECAY = 1e-4
WIDTHS = (16, 32, 64)


class _Row(NamedTuple):
    units: int  # in each of the three stages
    bottleneck: bool = False
    residual: bool = True


VARIANTS = {
    "preact_resnet_20": _Row(3),
    "preact_resnet_56": _Row(9),
    "preact_resnet_110": _Row(18),
    "preact_resnet_164": _Row(18, bottleneck=True),
    "plain_20": _Row(3, residual=False),
    "plain_56": _Row(9, residual=False),
}


def preact_resnet_arg_scope(weight_decay: float = WEIGHT_DECAY) -> dict:
    """Initializer, regularizer, padding and batch norm settings; the net adds is_training to them."""
    with (
        slim.arg_scope(
            [slim.conv2d, slim.fully_connected],
            weights_initializer=slim.variance_scaling_initializer(),
            weights_regularizer=slim.l2_regularizer(weight_decay),
            activation_fn=None,
        ),
        slim.arg_scope([slim.conv2d], biases_initializer=None, padding="SAME"),
        slim.arg_scope([batch_norm], decay=0.9, epsilon=1e-5, scale=True, activation_fn=tf.nn.relu) as scope,
    ):
        return scope


@slim.add_arg_scope
def preact_unit(
    inputs: tf.Tensor,
    width: int,
    stride: int,
    bottleneck: bool,
    residual: bool = True,
    outputs_collections: str | None = None,
    scope: str | None = None,
) -> tf.Tensor:
    """Two 3×3 convolutions, or 1×1, 3×3 and a four times wider 1×1, each after batch norm and ReLU, plus the input
    unless `residual` is false.

    inputs is [N, H, W, C]; the output [N, ⌈H/stride⌉, ⌈W/stride⌉, width, or 4 · width with a bottleneck].
    """
    with tf.variable_scope(scope, "preact_unit", [inputs]) as sc:
        width_out = 4 * width if bottleneck else width
        preact = batch_norm(inputs, scope="preact")
        shortcut = inputs
        if residual and (stride != 1 or inputs.shape[3] != width_out):
            shortcut = slim.conv2d(preact, width_out, 1, stride, scope="shortcut")
        with slim.arg_scope([slim.conv2d], normalizer_fn=batch_norm):
            if bottleneck:
                net = slim.conv2d(preact, width, 1, scope="conv1")
                net = slim.conv2d(net, width, 3, stride, scope="conv2")
            else:
                net = slim.conv2d(preact, width, 3, stride, scope="conv1")
        last = ("conv3", 1) if bottleneck else ("conv2", 3)
        net = slim.conv2d(net, width_out, last[1], scope=last[0])
        if residual:
            net = shortcut + net
        return slim.utils.collect_named_outputs(outputs_collections, sc.name, net)


def preact_resnet(
    inputs: tf.Tensor, num_classes: int, is_training: "bool | tf.Tensor", scope: str, variant: str
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds a row of VARIANTS; the number in its name counts the layers with weights, without shortcuts."""
    row = VARIANTS[variant]
    with tf.variable_scope(scope, variant, [inputs]) as sc:
        collection = sc.original_name_scope + "_end_points"
        with (
            slim.arg_scope([slim.conv2d, slim.fully_connected, preact_unit], outputs_collections=collection),
            slim.arg_scope([batch_norm], is_training=is_training),
        ):
            net = slim.conv2d(inputs, WIDTHS[0], 3, scope="conv1")
            for i, width in enumerate(WIDTHS, start=1):
                strides = (1 if i == 1 else 2,) + (1,) * (row.units - 1)
                units = [(width, stride, row.bottleneck, row.residual) for stride in strides]
                net = slim.stack(net, preact_unit, units, scope=f"block{i}")
            net = batch_norm(net, scope="postnorm")
            net = tf.reduce_mean(net, [1, 2], name="pool")
            logits = slim.fully_connected(net, num_classes, scope="logits")
        return logits, slim.utils.convert_collection_to_dict(collection)
