"""OverFeat, the fast model: five convolutions, three pools of 2×2, three dense layers stored as convolutions.

Sermanet et al. (arXiv:1312.6229), table 1, as in TF-Slim: 64 filters in the first layer where the paper has 96, initial
weights of Xavier, truncated normals of deviation 0.005 in the dense layers, whose biases start at 0.1. A larger picture
gives a map of logits, which is averaged.
"""

from nets.layers import dense_conv2d, dense_head
from tfcompat import dropout, slim, tf

WEIGHT_DECAY = 5e-4


def overfeat_arg_scope(weight_decay: float = WEIGHT_DECAY) -> dict:
    """Regularizer and initializers."""
    with (
        slim.arg_scope(
            [slim.conv2d, dense_conv2d],
            weights_regularizer=slim.l2_regularizer(weight_decay, "regularizer/l2"),
            biases_initializer=tf.zeros_initializer(),
        ),
        slim.arg_scope(
            [dense_conv2d],
            weights_initializer=tf.truncated_normal_initializer(stddev=0.005),
            biases_initializer=tf.constant_initializer(0.1),
        ),
        slim.arg_scope([slim.max_pool2d], kernel_size=2) as scope,
    ):
        return scope


def overfeat(
    inputs: tf.Tensor, num_classes: int, is_training: "bool | tf.Tensor", scope: str, dropout_keep_prob: float = 0.5
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds the net."""
    layers = [slim.conv2d, dense_conv2d, slim.max_pool2d, dropout]
    with tf.variable_scope(scope, "overfeat", [inputs]) as sc:
        collection = sc.original_name_scope + "_end_points"
        with (
            slim.arg_scope(layers, outputs_collections=collection),
            slim.arg_scope([dropout], keep_prob=dropout_keep_prob, is_training=is_training),
        ):
            net = slim.conv2d(inputs, 64, 11, 4, padding="VALID", scope="conv1")
            net = slim.max_pool2d(net, scope="pool1")
            net = slim.conv2d(net, 256, 5, padding="VALID", scope="conv2")
            net = slim.max_pool2d(net, scope="pool2")
            for i, width in enumerate((512, 1024, 1024), start=3):
                net = slim.conv2d(net, width, 3, scope=f"conv{i}")
            net = slim.max_pool2d(net, scope="pool5")
            logits = dense_head(net, num_classes, 6, (3072, 4096))
        return logits, slim.utils.convert_collection_to_dict(collection)
