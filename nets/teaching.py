"""Two small nets from posts on cats and dogs, each for one idea. In the posts they have one logit, for a sigmoid.

`inception_strided`: an inception module (arXiv:1409.4842) directly on the picture. Each of its four branches halves the
size and is flattened into a dense layer of 256 units; these are concatenated.

`residual_cnn`: a residual block, a plain block and a residual block, each of two 3×3 convolutions and a max pool. The
shortcut (arXiv:1512.03385) is a strided 1×1 convolution to the size after the pool; the sum has no activation.

Both have ReLU, SAME padding, Glorot's uniform initializer and zero biases, as in Keras; no dropout. A strided 1×1
convolution is computed as an unstrided one of every second row and column, which is equal: on pictures of 3 channels
under bf16, TensorFlow 2.21 with oneDNN crashes in the gradient of the strided one.
"""

from tfcompat import slim, tf

UNITS = 256


def teaching_arg_scope(weight_decay: float = 0.0) -> dict:
    """Regularizer, and SAME pools."""
    with (
        slim.arg_scope([slim.conv2d, slim.fully_connected], weights_regularizer=slim.l2_regularizer(weight_decay)),
        slim.arg_scope([slim.max_pool2d, slim.avg_pool2d], padding="SAME") as scope,
    ):
        return scope


def inception_strided(
    inputs: tf.Tensor, num_classes: int, is_training: "bool | tf.Tensor", scope: str, width: int = 32
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds the net with `width` channels in every convolution. is_training has no effect."""
    with tf.variable_scope(scope, "inception_strided", [inputs]) as sc:
        collection = sc.original_name_scope + "_end_points"
        with slim.arg_scope([slim.conv2d, slim.fully_connected, slim.avg_pool2d], outputs_collections=collection):
            with tf.variable_scope("branch0"):
                branch0 = slim.conv2d(inputs[:, ::2, ::2], width, 1, scope="conv_1x1")
            with tf.variable_scope("branch1"):
                branch1 = slim.conv2d(inputs, width, 1, scope="conv_1x1")
                branch1 = slim.conv2d(branch1, width, 3, 2, scope="conv_3x3")
            with tf.variable_scope("branch2"):
                branch2 = slim.avg_pool2d(inputs, 3, 2, scope="pool_3x3")
                branch2 = slim.conv2d(branch2, width, 3, scope="conv_3x3")
            with tf.variable_scope("branch3"):
                branch3 = slim.conv2d(inputs, width, 1, scope="conv_1x1")
                branch3 = slim.conv2d(branch3, width, 3, scope="conv1_3x3")
                branch3 = slim.conv2d(branch3, width, 3, 2, scope="conv2_3x3")
            units = [
                slim.fully_connected(slim.flatten(branch), UNITS, scope=f"branch{i}/fc")
                for i, branch in enumerate((branch0, branch1, branch2, branch3))
            ]
            logits = slim.fully_connected(tf.concat(units, 1), num_classes, activation_fn=None, scope="logits")
        return logits, slim.utils.convert_collection_to_dict(collection)


@slim.add_arg_scope
def pooled_block(
    inputs: tf.Tensor, width: int, residual: bool, outputs_collections: str | None = None, scope: str | None = None
) -> tf.Tensor:
    """Two 3×3 convolutions and a max pool of 2; with `residual`, plus a linear strided 1×1 convolution of the input.

    inputs is [N, H, W, C], the output [N, ⌈H/2⌉, ⌈W/2⌉, width].
    """
    with tf.variable_scope(scope, "pooled_block", [inputs]) as sc:
        net = slim.repeat(inputs, 2, slim.conv2d, width, 3, scope="conv")
        net = slim.max_pool2d(net, 2, scope="pool")
        if residual:
            net += slim.conv2d(inputs[:, ::2, ::2], width, 1, activation_fn=None, scope="shortcut")
        return slim.utils.collect_named_outputs(outputs_collections, sc.name, net)


def identity_block(inputs: tf.Tensor, scope: str | None = None) -> tf.Tensor:
    """Three 3×3 convolutions, the last linear, plus the input, then ReLU. inputs is [N, H, W, C], so is the output.

    For comparison with pooled_block: the size does not change, so the shortcut needs no weights.
    """
    width = inputs.shape[3]
    with tf.variable_scope(scope, "identity_block", [inputs]):
        net = slim.repeat(inputs, 2, slim.conv2d, width, 3, scope="conv")
        net = slim.conv2d(net, width, 3, activation_fn=None, scope="conv3")
        return tf.nn.relu(net + inputs)


def residual_cnn(
    inputs: tf.Tensor, num_classes: int, is_training: "bool | tf.Tensor", scope: str, width: int = 32
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds the net with `width` channels in every convolution. is_training has no effect."""
    with tf.variable_scope(scope, "residual_cnn", [inputs]) as sc:
        collection = sc.original_name_scope + "_end_points"
        with slim.arg_scope([slim.conv2d, slim.fully_connected, pooled_block], outputs_collections=collection):
            net = slim.stack(inputs, pooled_block, [(width, True), (width, False), (width, True)], scope="block")
            net = slim.fully_connected(slim.flatten(net), UNITS, scope="fc")
            logits = slim.fully_connected(net, num_classes, activation_fn=None, scope="logits")
        return logits, slim.utils.convert_collection_to_dict(collection)
