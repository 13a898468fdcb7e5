"""VGG: stacks of 3×3 convolutions, each stack followed by a 2×2 max pool, then three dense layers.

Simonyan and Zisserman, Very deep convolutional networks for large-scale image recognition (arXiv:1409.1556), table 1,
configurations A, B, D and E. Names, initializers and dense layers stored as convolutions are TF-Slim's: Xavier weights
(the paper starts deep nets from a trained configuration A), zero biases, SAME convolutions, VALID pools, dropout after
each of the two hidden dense layers. Larger inputs give a map of logits, which is averaged (§3.2).

`vgg_16_transfer` has the convolutions of VGG-16 and a smaller head for new classes: the whole map of the last pool,
dropout, 1,024 units, dropout, 1,024 units, classes. Its scope is `vgg_16`, so the convolutions of a published
checkpoint can be restored; its dense layers are new.
"""

from nets.layers import dense_conv2d, dense_head
from tfcompat import dropout, slim, tf

WEIGHT_DECAY = 5e-4
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)


def vgg_arg_scope(weight_decay: float = WEIGHT_DECAY) -> dict:
    """Activation, initial biases, regularizer and padding."""
    with (
        slim.arg_scope(
            [slim.conv2d, dense_conv2d],
            activation_fn=tf.nn.relu,
            biases_initializer=tf.zeros_initializer(),
            weights_regularizer=slim.l2_regularizer(weight_decay, "regularizer/l2"),
        ),
        slim.arg_scope([slim.conv2d], padding="SAME") as scope,
    ):
        return scope


def vgg(
    inputs: tf.Tensor,
    num_classes: int,
    is_training: "bool | tf.Tensor",
    scope: str,
    depth: int,
    dropout_keep_prob: float = 0.5,
    fc6_kernel: int | None = 7,
    dense_widths: tuple[int, int] = (4096, 4096),
    dropout_first: bool = False,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds the net of a depth in CONVOLUTIONS, its number of layers with weights.

    fc6_kernel, dense_widths and dropout_first are the arguments of nets.layers.dense_head.
    """
    with tf.variable_scope(scope, f"vgg_{depth}", [inputs]) as sc:
        collection = sc.original_name_scope + "_end_points"
        with slim.arg_scope([slim.conv2d, dense_conv2d, slim.max_pool2d, dropout], outputs_collections=collection):
            net = inputs
            for i, (convolutions, width) in enumerate(zip(CONVOLUTIONS[depth], WIDTHS, strict=True), start=1):
                net = slim.repeat(net, convolutions, slim.conv2d, width, 3, scope=f"conv{i}")
                net = slim.max_pool2d(net, 2, scope=f"pool{i}")
            with slim.arg_scope([dropout], keep_prob=dropout_keep_prob, is_training=is_training):
                logits = dense_head(net, num_classes, fc6_kernel, dense_widths, dropout_first)
        return logits, slim.utils.convert_collection_to_dict(collection)
