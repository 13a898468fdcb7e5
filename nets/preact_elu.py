"""Pre-activation ELU blocks of one width at full resolution, and a convolution as the classifier.

The residual unit of He et al., Identity mappings in deep residual networks (arXiv:1603.05027), with the activation of
Clevert, Unterthiner and Hochreiter (arXiv:1511.07289): no pools and no change of width, so every shortcut is the
identity. Batch norm without gamma, slim's default, with decay 0.9, for short runs; SAME convolutions with biases, He's
initializer (arXiv:1502.01852).
"""

from tfcompat import batch_norm, slim, tf

WEIGHT_DECAY = 1e-4


def preact_elu_arg_scope(weight_decay: float = WEIGHT_DECAY) -> dict:
    """Initializer, regularizer and batch norm settings; the net adds is_training to them."""
    with (
        slim.arg_scope(
            [slim.conv2d],
            activation_fn=None,
            weights_initializer=slim.variance_scaling_initializer(),
            weights_regularizer=slim.l2_regularizer(weight_decay),
        ),
        slim.arg_scope([batch_norm], decay=0.9, epsilon=1e-5, activation_fn=tf.nn.elu) as scope,
    ):
        return scope


@slim.add_arg_scope
def preact_elu_block(
    inputs: tf.Tensor, kernel_size: int, outputs_collections: str | None = None, scope: str | None = None
) -> tf.Tensor:
    """Batch norm, ELU and convolution, twice, plus the input. inputs is [N, H, W, C], and so is the output."""
    with tf.variable_scope(scope, "preact_elu_block", [inputs]) as sc:
        net = inputs
        for i in (1, 2):
            net = batch_norm(net, scope=f"norm{i}")
            net = slim.conv2d(net, inputs.shape[3], kernel_size, scope=f"conv{i}")
        return slim.utils.collect_named_outputs(outputs_collections, sc.name, net + inputs)


def preact_elu(
    inputs: tf.Tensor,
    num_classes: int,
    is_training: "bool | tf.Tensor",
    scope: str,
    blocks: int = 5,
    width: int = 64,
    kernel_size: int = 3,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds the net: a number of blocks, all with maps of `width` channels and the same side of the kernels."""
    with tf.variable_scope(scope, "preact_elu", [inputs]) as sc:
        collection = sc.original_name_scope + "_end_points"
        with (
            slim.arg_scope([slim.conv2d, preact_elu_block], outputs_collections=collection),
            slim.arg_scope([batch_norm], is_training=is_training),
        ):
            net = slim.conv2d(inputs, width, kernel_size, scope="conv1")
            net = slim.repeat(net, blocks, preact_elu_block, kernel_size, scope="blocks")
            net = slim.conv2d(net, num_classes, kernel_size, scope="logits")
        logits = tf.reduce_mean(net, [1, 2], name="pool")
        return logits, slim.utils.convert_collection_to_dict(collection)
