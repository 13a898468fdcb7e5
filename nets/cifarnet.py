"""CifarNet, of TensorFlow's CIFAR-10 tutorial and TF-Slim: two convolutions with normalisation, three dense layers.

As in TF-Slim: weights from truncated normals (0.05 in the convolutions, 0.04 in the dense layers, 1/192 in the logits),
biases of the dense layers 0.1, weight decay on fc3 and fc4 only, dropout after fc3. Derived from Krizhevsky's
cuda-convnet (2012).
"""

from tfcompat import dropout, slim, tf

WEIGHT_DECAY = 0.004


def cifarnet_arg_scope(weight_decay: float = WEIGHT_DECAY) -> dict:
    """Initializers and regularizer."""
    with (
        slim.arg_scope([slim.conv2d], weights_initializer=tf.truncated_normal_initializer(stddev=0.05)),
        slim.arg_scope(
            [slim.fully_connected],
            biases_initializer=tf.constant_initializer(0.1),
            weights_initializer=tf.truncated_normal_initializer(stddev=0.04),
            weights_regularizer=slim.l2_regularizer(weight_decay),
        ),
        slim.arg_scope([slim.max_pool2d], kernel_size=2, stride=2) as scope,
    ):
        return scope


def _normalised(net: tf.Tensor) -> tf.Tensor:
    """Local response normalisation over 9 channels, with cuda-convnet's constants."""
    return tf.nn.lrn(net, 4, bias=1.0, alpha=0.001 / 9.0, beta=0.75)


def cifarnet(
    inputs: tf.Tensor, num_classes: int, is_training: "bool | tf.Tensor", scope: str, dropout_keep_prob: float = 0.5
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds the net; the shape of fc3 depends on the picture size."""
    layers = [slim.conv2d, slim.fully_connected, slim.max_pool2d, dropout]
    with tf.variable_scope(scope, "CifarNet", [inputs]) as sc:
        collection = sc.original_name_scope + "_end_points"
        with slim.arg_scope(layers, outputs_collections=collection):
            net = slim.max_pool2d(slim.conv2d(inputs, 64, 5, scope="conv1"), scope="pool1")
            net = slim.conv2d(_normalised(net), 64, 5, scope="conv2")
            net = slim.max_pool2d(_normalised(net), scope="pool2")
            net = slim.fully_connected(slim.flatten(net), 384, scope="fc3")
            net = dropout(net, dropout_keep_prob, is_training=is_training, scope="dropout3")
            net = slim.fully_connected(net, 192, scope="fc4")
            logits = slim.fully_connected(
                *(net, num_classes),
                activation_fn=None,
                biases_initializer=tf.zeros_initializer(),
                weights_initializer=tf.truncated_normal_initializer(stddev=1 / 192),
                weights_regularizer=None,
                scope="logits",
            )
        return logits, slim.utils.convert_collection_to_dict(collection)
