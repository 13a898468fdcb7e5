"""DenseNet: each unit adds 32 channels to all that the units before it have made.

Huang et al., Densely connected convolutional networks (arXiv:1608.06993), table 1, DenseNet-BC: batch norm and ReLU
before each convolution, a 1×1 to 128 channels before each 3×3, and transitions that halve the channels. TF-Slim has no
DenseNet; layers are those of keras.applications and torchvision: 3×3 pads of zeros before the strided stem, batch norm
of epsilon 1.001e-5 (torchvision's is 1e-5) and decay 0.99, He's initializer (arXiv:1502.01852), no biases but the
logits'. Any input size is possible.
"""

from tfcompat import batch_norm, slim, tf

WEIGHT_DECAY = 1e-4
UNITS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}
GROWTH = 32


def densenet_arg_scope(weight_decay: float = WEIGHT_DECAY) -> dict:
    """Initializer, regularizer and batch norm settings; convolutions have no biases and no activation."""
    with (
        slim.arg_scope(
            [slim.conv2d],
            weights_regularizer=slim.l2_regularizer(weight_decay),
            weights_initializer=slim.variance_scaling_initializer(),
            biases_initializer=None,
            activation_fn=None,
        ),
        slim.arg_scope([batch_norm], decay=0.99, epsilon=1.001e-5, scale=True, activation_fn=tf.nn.relu) as scope,
    ):
        return scope


@slim.add_arg_scope
def dense_unit(inputs: tf.Tensor, outputs_collections: str | None = None, scope: str | None = None) -> tf.Tensor:
    """The input and 32 channels more, [N, H, W, C] to [N, H, W, C + 32]."""
    with tf.variable_scope(scope, "unit", [inputs]) as sc:
        net = slim.conv2d(batch_norm(inputs, scope="preact"), 4 * GROWTH, 1, scope="conv1")
        net = slim.conv2d(batch_norm(net, scope="norm"), GROWTH, 3, scope="conv2")
        return slim.utils.collect_named_outputs(outputs_collections, sc.name, tf.concat([inputs, net], 3))


def densenet(
    inputs: tf.Tensor, num_classes: int, is_training: "bool | tf.Tensor", scope: str, depth: int
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds the net of a depth in UNITS."""
    with tf.variable_scope(scope, f"densenet_{depth}", [inputs]) as sc:
        collection = sc.original_name_scope + "_end_points"
        with (
            slim.arg_scope([slim.conv2d, slim.max_pool2d, slim.avg_pool2d, dense_unit], outputs_collections=collection),
            slim.arg_scope([batch_norm], is_training=is_training),
        ):
            net = tf.pad(inputs, [[0, 0], [3, 3], [3, 3], [0, 0]])
            net = slim.conv2d(net, 2 * GROWTH, 7, 2, padding="VALID", scope="conv1")
            net = tf.pad(batch_norm(net, scope="conv1/norm"), [[0, 0], [1, 1], [1, 1], [0, 0]])
            net = slim.max_pool2d(net, 3, 2, scope="pool1")
            for i, units in enumerate(UNITS[depth], start=1):
                with tf.variable_scope(f"block{i}") as block:
                    for unit in range(1, units + 1):
                        net = dense_unit(net, scope=f"unit_{unit}")
                    slim.utils.collect_named_outputs(collection, block.name, net)
                if i < len(UNITS[depth]):
                    with tf.variable_scope(f"transition{i}"):
                        half = net.shape.as_list()[3] // 2
                        net = slim.conv2d(batch_norm(net, scope="preact"), half, 1, scope="conv")
                        net = slim.avg_pool2d(net, 2, 2, scope="pool")
            net = batch_norm(net, scope="postnorm")
            net = tf.reduce_mean(net, [1, 2], keepdims=True, name="pool5")
            net = slim.conv2d(net, num_classes, 1, biases_initializer=tf.zeros_initializer(), scope="logits")
        return tf.squeeze(net, [1, 2], name="squeeze"), slim.utils.convert_collection_to_dict(collection)
