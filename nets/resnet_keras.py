"""ResNet-50 in the layout of He et al.'s Caffe model and of Keras, and a form for small pictures.

Deep residual learning for image recognition (arXiv:1512.03385). The stride is in the first unit's first 1×1
convolution. Every convolution has a bias, although batch norm follows. `resnet50_keras` computes the same as
keras.applications.ResNet50 (epsilon 1.001e-5, pool1 padded by one); its layers have the names of the Caffe model,
res2a_branch2a, bn2a_branch2a and so on. `resnet50_signs` is the course exercise on 64×64 pictures of hand signs: no
padding at pool1, epsilon 0.001, and an average pool of 2×2 before the classifier, which reads the whole map.

Glorot's uniform initializer, batch norm of decay 0.99, no weight decay, as in Keras.
"""

from typing import NamedTuple

from tfcompat import batch_norm, slim, tf

UNITS = (3, 4, 6, 3)  # of stages 2 to 5
WIDTHS = (64, 128, 256, 512)


class _Row(NamedTuple):
    epsilon: float
    pool1_padding: int
    last_pool: int | None  # side of the average pool; None for the mean over the whole map


VARIANTS = {"resnet50_keras": _Row(1.001e-5, 1, None), "resnet50_signs": _Row(1e-3, 0, 2)}


def resnet_keras_arg_scope(weight_decay: float = 0.0) -> dict:
    """Initializer, regularizer and batch norm settings; the net adds epsilon and is_training to them."""
    with (
        slim.arg_scope(
            [slim.conv2d, slim.fully_connected],
            activation_fn=None,
            weights_initializer=slim.xavier_initializer(),
            weights_regularizer=slim.l2_regularizer(weight_decay),
        ),
        slim.arg_scope([batch_norm], decay=0.99, scale=True) as scope,
    ):
        return scope


def _main_path(inputs: tf.Tensor, width: int, stride: int, name: str) -> tf.Tensor:
    net = inputs
    kernels = (("2a", width, 1, stride), ("2b", width, 3, 1), ("2c", 4 * width, 1, 1))
    for branch, num_outputs, kernel, layer_stride in kernels:
        net = slim.conv2d(net, num_outputs, kernel, layer_stride, scope=f"res{name}_branch{branch}")
        activation = None if branch == "2c" else tf.nn.relu
        net = batch_norm(net, activation_fn=activation, scope=f"bn{name}_branch{branch}")
    return net


def identity_block(inputs: tf.Tensor, width: int, name: str) -> tf.Tensor:
    """1×1, 3×3 and a four times wider 1×1 convolution, each with batch norm, plus the input, then ReLU.

    inputs is [N, H, W, 4 · width], and so is the output. name is the stage and the block, such as 2b.
    """
    return tf.nn.relu(_main_path(inputs, width, 1, name) + inputs, name=f"res{name}")


def convolutional_block(inputs: tf.Tensor, width: int, stride: int, name: str) -> tf.Tensor:
    """As identity_block, with a strided 1×1 convolution and batch norm as the shortcut.

    inputs is [N, H, W, C], the output [N, ⌈H/stride⌉, ⌈W/stride⌉, 4 · width].
    """
    shortcut = slim.conv2d(inputs, 4 * width, 1, stride, scope=f"res{name}_branch1")
    shortcut = batch_norm(shortcut, scope=f"bn{name}_branch1")
    return tf.nn.relu(_main_path(inputs, width, stride, name) + shortcut, name=f"res{name}")


def resnet_keras(
    inputs: tf.Tensor, num_classes: int, is_training: "bool | tf.Tensor", scope: str, variant: str
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds a row of VARIANTS. num_classes is part of the last layer's name."""
    row = VARIANTS[variant]
    with tf.variable_scope(scope, variant, [inputs]) as sc:
        collection = sc.original_name_scope + "_end_points"
        with (
            slim.arg_scope(
                [slim.conv2d, slim.fully_connected, slim.max_pool2d, slim.avg_pool2d], outputs_collections=collection
            ),
            slim.arg_scope([batch_norm], is_training=is_training, epsilon=row.epsilon),
        ):
            net = tf.pad(inputs, [[0, 0], [3, 3], [3, 3], [0, 0]])
            net = slim.conv2d(net, 64, 7, 2, padding="VALID", scope="conv1")
            net = batch_norm(net, activation_fn=tf.nn.relu, scope="bn_conv1")
            border = [row.pool1_padding] * 2
            net = tf.pad(net, [[0, 0], border, border, [0, 0]])  # zeros do not change a maximum after ReLU
            net = slim.max_pool2d(net, 3, 2, padding="VALID", scope="pool1")
            for stage, (units, width) in enumerate(zip(UNITS, WIDTHS, strict=True), start=2):
                net = convolutional_block(net, width, 1 if stage == 2 else 2, f"{stage}a")
                slim.utils.collect_named_outputs(collection, f"{sc.name}/res{stage}a", net)
                for block in "bcdef"[: units - 1]:
                    net = identity_block(net, width, f"{stage}{block}")
                    slim.utils.collect_named_outputs(collection, f"{sc.name}/res{stage}{block}", net)
            if row.last_pool is None:
                net = tf.reduce_mean(net, [1, 2], name="avg_pool")
            else:
                net = slim.avg_pool2d(net, row.last_pool, row.last_pool, scope="avg_pool")
            logits = slim.fully_connected(slim.flatten(net), num_classes, scope=f"fc{num_classes}")
        return logits, slim.utils.convert_collection_to_dict(collection)
