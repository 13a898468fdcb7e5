"""AlexNet: five convolutions, three overlapping max pools, three dense layers.

`alexnet_v2` is TF-Slim's: the single-tower form of Krizhevsky, One weird trick for parallelizing convolutional neural
networks (arXiv:1404.5997), without the local response normalisation of 2012, Xavier instead of Gaussian initializers.
`alexnet_mnist` is the net of Krizhevsky, Sutskever and Hinton (NIPS 2012) brought to 28×28×1 pictures: its widths and
its normalisation, first stride 1 instead of 4, one tower instead of two groups.

What both share, as in TF-Slim: biases 0.1 (the classifier's 0), SAME convolutions but for the first, VALID pools of 3
with stride 2, dropout after each of the two hidden dense layers. The dense layers are stored as convolutions, so larger
inputs give a map of logits, which is averaged. Weights start from Xavier's initializer, in dense layers from a
truncated normal of deviation 0.005, in alexnet_v2; from He's (arXiv:1502.01852) in alexnet_mnist, where the halving of
the signal at each ReLU and its division by the normalisation cost the first 150 steps otherwise.
"""

from collections.abc import Callable
from typing import NamedTuple

from nets.layers import dense_conv2d
from tfcompat import dropout, slim, tf

WEIGHT_DECAY = 5e-4


class _Row(NamedTuple):
    conv1_width: int
    conv1_stride: int
    widths: tuple[int, int, int, int]  # of conv2 to conv5
    local_response_norm: bool  # after the first two convolutions, §3.3
    fc6_kernel: int  # side of the map that the last pool leaves at the default image size
    convolution_initializer: Callable
    dense_initializer: Callable


VARIANTS = {
    "alexnet_v2": _Row(
        *(64, 4, (192, 384, 384, 256), False, 5),
        slim.xavier_initializer(),
        tf.truncated_normal_initializer(stddev=0.005),
    ),
    "alexnet_mnist": _Row(
        *(96, 1, (256, 384, 384, 256), True, 1),
        slim.variance_scaling_initializer(),
        slim.variance_scaling_initializer(),
    ),
}


def alexnet_arg_scope(weight_decay: float = WEIGHT_DECAY) -> dict:
    """Activation, initial biases, regularizer and padding of all variants."""
    with (
        slim.arg_scope(
            [slim.conv2d, dense_conv2d],
            activation_fn=tf.nn.relu,
            biases_initializer=tf.constant_initializer(0.1),
            weights_regularizer=slim.l2_regularizer(weight_decay),
        ),
        slim.arg_scope([slim.conv2d], padding="SAME"),
        slim.arg_scope([slim.max_pool2d], kernel_size=3, stride=2, padding="VALID") as scope,
    ):
        return scope


def local_response_norm(net: tf.Tensor) -> tf.Tensor:
    """§3.3 with the constants of 2012. TensorFlow does not divide alpha by the window (Caffe does)."""
    return tf.nn.local_response_normalization(net, depth_radius=2, bias=2.0, alpha=1e-4, beta=0.75)


def alexnet(
    inputs: tf.Tensor,
    num_classes: int,
    is_training: "bool | tf.Tensor",
    scope: str,
    variant: str,
    dropout_keep_prob: float = 0.5,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds a row of VARIANTS.

    Args:
        inputs: pictures [N, H, W, C], float32, preprocessed.
        num_classes: width of the logits.
        is_training: whether dropout is active.
        scope: variable scope; the published names start with it.
        variant: key of VARIANTS.
        dropout_keep_prob: share of units that dropout keeps.

    Returns:
        Logits [N, num_classes], and the output of every layer by its scope name.
    """
    row = VARIANTS[variant]
    with tf.variable_scope(scope, variant, [inputs]) as sc:
        collection = sc.original_name_scope + "_end_points"
        with (
            slim.arg_scope([slim.conv2d, dense_conv2d, slim.max_pool2d, dropout], outputs_collections=collection),
            slim.arg_scope([slim.conv2d], weights_initializer=row.convolution_initializer),
        ):
            net = slim.conv2d(inputs, row.conv1_width, 11, row.conv1_stride, padding="VALID", scope="conv1")
            if row.local_response_norm:
                net = local_response_norm(net)
            net = slim.max_pool2d(net, scope="pool1")
            net = slim.conv2d(net, row.widths[0], 5, scope="conv2")
            if row.local_response_norm:
                net = local_response_norm(net)
            net = slim.max_pool2d(net, scope="pool2")
            for i, width in enumerate(row.widths[1:], start=3):
                net = slim.conv2d(net, width, 3, scope=f"conv{i}")
            net = slim.max_pool2d(net, scope="pool5")

            with (
                slim.arg_scope([dense_conv2d], weights_initializer=row.dense_initializer),
                slim.arg_scope([dropout], keep_prob=dropout_keep_prob, is_training=is_training),
            ):
                net = dense_conv2d(net, 4096, row.fc6_kernel, scope="fc6")
                net = dropout(net, scope="dropout6")
                net = dense_conv2d(net, 4096, 1, scope="fc7")
                net = dropout(net, scope="dropout7")
                net = dense_conv2d(
                    net, num_classes, 1, activation_fn=None, biases_initializer=tf.zeros_initializer(), scope="fc8"
                )
        logits = tf.reduce_mean(net, [1, 2], name="logits")
        return logits, slim.utils.convert_collection_to_dict(collection)
