"""MobileNet v1: each 3×3 convolution split into one per channel (depthwise) and a 1×1 over the channels (pointwise).

Howard et al., MobileNets (arXiv:1704.04861), table 1. As in TF-Slim: batch norm of decay 0.9997 and epsilon 0.001 and a
ReLU6 after every convolution, weights from a truncated normal of deviation 0.09, no weight decay on depthwise weights,
at least 8 channels at any width, dropout that keeps 0.999 before the logits, SAME padding. The head is the mean over
the whole last map, so any size is possible. All widths have the scope MobilenetV1, as in the published checkpoints.
"""

from tfcompat import batch_norm, dropout, slim, tf

WEIGHT_DECAY = 4e-5
ROWS = (  # width and stride of the 13 separable convolutions
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)
SUFFIXES = {"": 1.0, "_075": 0.75, "_050": 0.5, "_025": 0.25}  # TF-Slim's names for the width multipliers


def mobilenet_v1_arg_scope(weight_decay: float = WEIGHT_DECAY) -> dict:
    """Initializer, regularizer, activation and batch norm settings; the net adds is_training to them."""
    with (
        slim.arg_scope(
            [slim.conv2d, slim.separable_conv2d],
            weights_initializer=tf.truncated_normal_initializer(stddev=0.09),
            activation_fn=tf.nn.relu6,
            normalizer_fn=batch_norm,
        ),
        slim.arg_scope([slim.conv2d], weights_regularizer=slim.l2_regularizer(weight_decay)),
        slim.arg_scope([batch_norm], decay=0.9997, epsilon=0.001, scale=True) as scope,
    ):
        return scope


def mobilenet_v1(
    inputs: tf.Tensor,
    num_classes: int,
    is_training: "bool | tf.Tensor",
    scope: str,
    width: float = 1.0,
    dropout_keep_prob: float = 0.999,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds the net; the width multiplier is the factor of all numbers of channels."""

    def channels(number: int) -> int:
        return max(int(number * width), 8)

    with tf.variable_scope(scope, "MobilenetV1", [inputs]) as sc:
        collection = sc.original_name_scope + "_end_points"
        with (
            slim.arg_scope([slim.conv2d, slim.separable_conv2d, dropout], outputs_collections=collection),
            slim.arg_scope([batch_norm, dropout], is_training=is_training),
        ):
            net = slim.conv2d(inputs, channels(32), 3, 2, scope="Conv2d_0")
            for i, (num_outputs, stride) in enumerate(ROWS, start=1):
                # Without num_outputs, only the depthwise convolution.
                net = slim.separable_conv2d(net, None, 3, stride=stride, scope=f"Conv2d_{i}_depthwise")
                net = slim.conv2d(net, channels(num_outputs), 1, scope=f"Conv2d_{i}_pointwise")
            with tf.variable_scope("Logits"):
                net = tf.reduce_mean(net, [1, 2], keepdims=True, name="AvgPool_1a")
                net = dropout(net, dropout_keep_prob, scope="Dropout_1b")
                net = slim.conv2d(net, num_classes, 1, activation_fn=None, normalizer_fn=None, scope="Conv2d_1c_1x1")
                logits = tf.squeeze(net, [1, 2], name="SpatialSqueeze")
        return logits, slim.utils.convert_collection_to_dict(collection)
