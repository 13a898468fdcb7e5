"""GoogLeNet: modules of four parallel branches, 1×1 convolutions in front of the costly ones, no wide dense layers.

Szegedy et al., Going deeper with convolutions (arXiv:1409.4842), table 1.

- `inception_v1` is TF-Slim's: batch norm (without gamma) after each convolution, 3×3 where the paper has 5×5, no
  auxiliary heads, weights from a truncated normal of deviation 0.01. Its published checkpoint has a misnamed layer,
  Mixed_5b/Branch_2/Conv2d_0a_3x3, which is kept. The head is the mean over the whole last map, so any size is possible;
  TF-Slim's is a mean over 7×7, the whole map at 224.
- `googlenet_2014` is the paper's: biases, 5×5 branches, local response normalisation (AlexNet's constants; after the
  first pool and before the second), and two auxiliary heads (§5) after 4a and 4d, which TF-Slim counts as Mixed_4b and
  Mixed_4e. The paper gives no initial values; Xavier weights and biases of 0.2 are from Caffe's bvlc_googlenet.

Dropout is before the logits (keeps 0.8 in TF-Slim, 0.6 in the paper) and before those of the auxiliary heads (0.3).
"""

from nets.inception import inception_module
from nets.layers import dense_conv2d, local_response_norm
from tfcompat import batch_norm, dropout, slim, tf

WEIGHT_DECAY = 4e-5
# Widths of a module's branches: 1×1; 1×1 and 3×3; 1×1 and 5×5; 1×1 after a max pool.
MODULES = {
    "Mixed_3b": (64, (96, 128), (16, 32), 32),
    "Mixed_3c": (128, (128, 192), (32, 96), 64),
    "MaxPool_4a_3x3": 3,
    "Mixed_4b": (192, (96, 208), (16, 48), 64),
    "Mixed_4c": (160, (112, 224), (24, 64), 64),
    "Mixed_4d": (128, (128, 256), (24, 64), 64),
    "Mixed_4e": (112, (144, 288), (32, 64), 64),
    "Mixed_4f": (256, (160, 320), (32, 128), 128),
    "MaxPool_5a_2x2": 2,
    "Mixed_5b": (256, (160, 320), (32, 128), 128),
    "Mixed_5c": (384, (192, 384), (48, 128), 128),
}
AUXILIARY_HEADS = {"Mixed_4b": "aux_4a", "Mixed_4e": "aux_4d"}
AUXILIARY_LOSS_WEIGHT = 0.3


def inception_v1_arg_scope(weight_decay: float = WEIGHT_DECAY) -> dict:
    """The arg scope of TF-Slim's net: batch norm of decay 0.9997 and epsilon 0.001, regularizer, initializer."""
    with slim.arg_scope(
        [slim.conv2d],
        weights_initializer=tf.truncated_normal_initializer(stddev=0.01),
        weights_regularizer=slim.l2_regularizer(weight_decay),
        normalizer_fn=batch_norm,
        normalizer_params={"decay": 0.9997, "epsilon": 0.001},
    ) as scope:
        return scope


def googlenet_arg_scope(weight_decay: float = WEIGHT_DECAY) -> dict:
    """The arg scope of the paper's net: biases, regularizer, initializer."""
    with slim.arg_scope(
        [slim.conv2d, dense_conv2d],
        weights_initializer=slim.xavier_initializer(),
        weights_regularizer=slim.l2_regularizer(weight_decay, "regularizer/l2"),
        biases_initializer=tf.constant_initializer(0.2),
    ) as scope:
        return scope


def _branches(name: str, large_kernel: int) -> tuple[str, ...]:
    """The branches of a module of MODULES, as inception_module takes them; large_kernel is that of the third."""
    width0, (reduce1, width1), (reduce2, width2), width3 = MODULES[name]
    misnamed = name == "Mixed_5b" and large_kernel == 3  # as in the published checkpoint
    return (
        f"0a_1x1 {width0}",
        f"0a_1x1 {reduce1}, 0b_3x3 {width1}",
        f"0a_1x1 {reduce2}, 0{'a' if misnamed else 'b'}_{large_kernel}x{large_kernel} {width2}",
        f"MaxPool_0a_3x3, 0b_1x1 {width3}",
    )


def googlenet(
    inputs: tf.Tensor,
    num_classes: int,
    is_training: "bool | tf.Tensor",
    scope: str,
    as_published_2014: bool,
    dropout_keep_prob: float | None = None,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds inception_v1, or googlenet_2014 if as_published_2014.

    dropout_keep_prob is for all heads; None takes the published ones. The logits of the auxiliary heads are the end
    points SCOPE/aux_4a/logits and SCOPE/aux_4d/logits, [N, num_classes].
    """
    large_kernel = 5 if as_published_2014 else 3
    heads = {}
    with tf.variable_scope(scope, "InceptionV1", [inputs]) as sc:
        collection = sc.original_name_scope + "_end_points"
        layers = [slim.conv2d, dense_conv2d, slim.max_pool2d, slim.avg_pool2d, inception_module, dropout]
        with (
            slim.arg_scope(layers, outputs_collections=collection),
            slim.arg_scope([slim.conv2d, slim.max_pool2d], padding="SAME"),
            slim.arg_scope([batch_norm, dropout], is_training=is_training),
        ):
            net = slim.conv2d(inputs, 64, 7, stride=2, scope="Conv2d_1a_7x7")
            net = slim.max_pool2d(net, 3, stride=2, scope="MaxPool_2a_3x3")
            if as_published_2014:
                net = local_response_norm(net)
            net = slim.conv2d(net, 64, 1, scope="Conv2d_2b_1x1")
            net = slim.conv2d(net, 192, 3, scope="Conv2d_2c_3x3")
            if as_published_2014:
                net = local_response_norm(net)
            net = slim.max_pool2d(net, 3, stride=2, scope="MaxPool_3a_3x3")
            for name, row in MODULES.items():
                if isinstance(row, int):
                    net = slim.max_pool2d(net, row, stride=2, scope=name)
                    continue
                net = inception_module(net, _branches(name, large_kernel), scope=name)
                if as_published_2014 and (head := AUXILIARY_HEADS.get(name)):
                    keep_prob = dropout_keep_prob or 0.3
                    heads[f"{sc.name}/{head}/logits"] = _auxiliary_head(net, num_classes, keep_prob, scope=head)
            with tf.variable_scope("Logits"):
                net = tf.reduce_mean(net, [1, 2], keepdims=True, name="AvgPool")
                net = dropout(net, dropout_keep_prob or (0.6 if as_published_2014 else 0.8), scope="Dropout_0b")
                net = slim.conv2d(
                    *(net, num_classes, 1),
                    activation_fn=None,
                    normalizer_fn=None,
                    weights_initializer=slim.variance_scaling_initializer(),
                    biases_initializer=tf.zeros_initializer(),
                    scope="Conv2d_0c_1x1",
                )
                logits = tf.squeeze(net, [1, 2], name="SpatialSqueeze")
        return logits, {**slim.utils.convert_collection_to_dict(collection), **heads}


def _auxiliary_head(inputs: tf.Tensor, num_classes: int, keep_prob: float, scope: str) -> tf.Tensor:
    with tf.variable_scope(scope):
        net = slim.avg_pool2d(inputs, 5, stride=3, padding="VALID", scope="pool")
        net = slim.conv2d(net, 128, 1, scope="conv")
        net = dense_conv2d(net, 1024, 4, scope="fc")  # 4×4 is the whole map at 224
        net = dropout(net, keep_prob, scope="dropout")
        net = dense_conv2d(
            net, num_classes, 1, activation_fn=None, biases_initializer=tf.zeros_initializer(), scope="logits"
        )
        return tf.reduce_mean(net, [1, 2])
