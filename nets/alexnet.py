"""AlexNet: five convolutions, three overlapping max pools, three dense layers.

- `alexnet_2012` is the net of Krizhevsky, Sutskever and Hinton (NIPS 2012), as in its figure: conv2, conv4 and
  conv5 in two groups, local response normalisation (§3.3), the initial values of §5. In the paper each of two GPUs
  computed one group; here a grouped convolution computes both.
- `alexnet_half` has half the units, one group and no normalisation; dropout is before the dense layers.
- `alexnet_mnist` has the widths and the normalisation of 2012, for 28×28×1 pictures: first stride 1 instead of 4, one
  group.
- `alexnet_v2` is TF-Slim's: the single-tower form of Krizhevsky, One weird trick for parallelizing convolutional neural
  networks (arXiv:1404.5997), without normalisation, with Xavier instead of Gaussian initializers.

Common to all, as in TF-Slim: SAME convolutions except the first, VALID pools of 3 with stride 2, dropout at each of the
two hidden dense layers. These are stored as convolutions: larger inputs give a map of logits, which is averaged.
Biases start at 0.1 (the classifier's at 0), which keeps ReLUs active; in alexnet_2012 at the paper's 1s and 0s.
He's initializer (arXiv:1502.01852) replaces smaller initial values in the two nets that train from scratch on small
data: in alexnet_mnist, each ReLU halves the signal and the normalisation divides it, which costs the first 150 steps.
"""

from collections.abc import Callable
from typing import NamedTuple

from nets.layers import dense_conv2d, dense_head, local_response_norm
from tfcompat import dropout, slim, tf

WEIGHT_DECAY = 5e-4


class _Row(NamedTuple):
    padding: tuple[int, int]  # before and after; 224 + (1, 2) is 227, which stride 4 covers exactly
    conv1_stride: int
    widths: tuple[int, int, int, int, int]
    groups: tuple[int, int, int, int, int]
    local_response_norm: bool  # after the first two convolutions
    dense_widths: tuple[int, int]
    dropout_first: bool
    fc6_kernel: int  # side of the last pool's output at the default image size
    convolution_initializer: Callable
    dense_initializer: Callable
    initial_biases: tuple[float, ...]  # of conv1 to conv5, and of the hidden dense layers


_HE, _GAUSSIAN = slim.variance_scaling_initializer(), tf.random_normal_initializer(stddev=0.01)
VARIANTS = {
    "alexnet_2012": _Row(
        *((1, 2), 4, (96, 256, 384, 384, 256), (1, 2, 1, 2, 2), True, (4096, 4096), False, 6),
        *(_GAUSSIAN, _GAUSSIAN, (0, 1, 0, 1, 1, 1)),
    ),
    "alexnet_half": _Row(
        *((1, 2), 4, (48, 128, 192, 192, 128), (1,) * 5, False, (2048, 2048), True, 6), *(_HE, _HE, (0.1,) * 6)
    ),
    "alexnet_mnist": _Row(
        *((0, 0), 1, (96, 256, 384, 384, 256), (1,) * 5, True, (4096, 4096), False, 1), *(_HE, _HE, (0.1,) * 6)
    ),
    "alexnet_v2": _Row(
        *((0, 0), 4, (64, 192, 384, 384, 256), (1,) * 5, False, (4096, 4096), False, 5),
        *(slim.xavier_initializer(), tf.truncated_normal_initializer(stddev=0.005), (0.1,) * 6),
    ),
}


def alexnet_arg_scope(weight_decay: float = WEIGHT_DECAY) -> dict:
    """Activation, regularizer and padding of all variants."""
    with (
        slim.arg_scope(
            [slim.conv2d, grouped_conv2d, dense_conv2d],
            activation_fn=tf.nn.relu,
            weights_regularizer=slim.l2_regularizer(weight_decay, "regularizer/l2"),
        ),
        slim.arg_scope([slim.conv2d], padding="SAME"),
        slim.arg_scope([slim.max_pool2d], kernel_size=3, stride=2, padding="VALID") as scope,
    ):
        return scope


@slim.add_arg_scope
def grouped_conv2d(
    inputs: tf.Tensor,
    num_outputs: int,
    kernel_size: int,
    groups: int,
    activation_fn: Callable = tf.nn.relu,
    weights_initializer: Callable | None = None,
    weights_regularizer: Callable | None = None,
    biases_initializer: Callable | None = None,
    outputs_collections: str | None = None,
    scope: str | None = None,
) -> tf.Tensor:
    """A SAME convolution in which each group of output channels reads its own group of input channels.

    slim.conv2d has no groups. The variables have slim.conv2d's names: weights [k, k, C / groups, num_outputs], biases.
    inputs is [N, H, W, C]; the output [N, H, W, num_outputs].
    """
    with tf.variable_scope(scope, "Conv", [inputs]) as sc:
        shape = [kernel_size, kernel_size, inputs.shape[3] // groups, num_outputs]
        weights = slim.model_variable(
            "weights", shape, initializer=weights_initializer, regularizer=weights_regularizer
        )
        biases = slim.model_variable("biases", [num_outputs], initializer=biases_initializer)
        net = tf.nn.conv2d(inputs, weights, strides=1, padding="SAME")  # the shapes imply the groups
        net = activation_fn(tf.nn.bias_add(net, biases))
        return slim.utils.collect_named_outputs(outputs_collections, sc.name, net)


def alexnet(
    inputs: tf.Tensor,
    num_classes: int,
    is_training: "bool | tf.Tensor",
    scope: str,
    variant: str,
    dropout_keep_prob: float = 0.5,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds a row of VARIANTS."""
    row = VARIANTS[variant]
    biases = [tf.constant_initializer(value) for value in row.initial_biases]
    layers = [slim.conv2d, grouped_conv2d, dense_conv2d, slim.max_pool2d, dropout]
    with tf.variable_scope(scope, variant, [inputs]) as sc:
        collection = sc.original_name_scope + "_end_points"
        with (
            slim.arg_scope(layers, outputs_collections=collection),
            slim.arg_scope([slim.conv2d, grouped_conv2d], weights_initializer=row.convolution_initializer),
        ):
            net = tf.pad(inputs, [[0, 0], row.padding, row.padding, [0, 0]]) if any(row.padding) else inputs
            arguments = {"padding": "VALID", "biases_initializer": biases[0], "scope": "conv1"}
            net = slim.conv2d(net, row.widths[0], 11, row.conv1_stride, **arguments)
            for i, kernel in enumerate((5, 3, 3, 3), start=2):
                if i < 4:
                    if row.local_response_norm:
                        net = local_response_norm(net)
                    net = slim.max_pool2d(net, scope=f"pool{i - 1}")
                arguments = {"biases_initializer": biases[i - 1], "scope": f"conv{i}"}
                if row.groups[i - 1] == 1:
                    net = slim.conv2d(net, row.widths[i - 1], kernel, **arguments)
                else:
                    net = grouped_conv2d(net, row.widths[i - 1], kernel, row.groups[i - 1], **arguments)
            net = slim.max_pool2d(net, scope="pool5")
            with (
                slim.arg_scope([dense_conv2d], weights_initializer=row.dense_initializer, biases_initializer=biases[5]),
                slim.arg_scope([dropout], keep_prob=dropout_keep_prob, is_training=is_training),
            ):
                logits = dense_head(net, num_classes, row.fc6_kernel, row.dense_widths, row.dropout_first)
        return logits, slim.utils.convert_collection_to_dict(collection)
