"""LeNet as in TF-Slim: two convolutions with pools, then two dense layers.

LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition (1998), in TF-Slim's modern
form: ReLU, max pools, full connections, dropout. TF-Slim's names, widths and initializer; no weight decay.
"""

from tfcompat import dropout, slim, tf


def lenet_arg_scope(weight_decay: float = 0.0) -> dict:
    """Initializer and regularizer."""
    with slim.arg_scope(
        [slim.conv2d, slim.fully_connected],
        weights_initializer=tf.truncated_normal_initializer(stddev=0.1),
        weights_regularizer=slim.l2_regularizer(weight_decay),
    ) as scope:
        return scope


def lenet(
    inputs: tf.Tensor, num_classes: int, is_training: "bool | tf.Tensor", scope: str, dropout_keep_prob: float = 0.5
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds the net."""
    with tf.variable_scope(scope, "LeNet", [inputs]) as sc:
        collection = sc.original_name_scope + "_end_points"
        with slim.arg_scope(
            [slim.conv2d, slim.fully_connected, slim.max_pool2d, dropout], outputs_collections=collection
        ):
            net = slim.conv2d(inputs, 32, 5, scope="conv1")
            net = slim.max_pool2d(net, 2, scope="pool1")
            net = slim.conv2d(net, 64, 5, scope="conv2")
            net = slim.max_pool2d(net, 2, scope="pool2")
            net = slim.fully_connected(slim.flatten(net), 1024, scope="fc3")
            net = dropout(net, dropout_keep_prob, is_training=is_training, scope="dropout3")
            logits = slim.fully_connected(net, num_classes, activation_fn=None, scope="fc4")
        return logits, slim.utils.convert_collection_to_dict(collection)
