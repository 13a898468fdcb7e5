"""Layers that several families use and slim does not have."""

from collections.abc import Callable

from tfcompat import dropout, slim, tf


@slim.add_arg_scope
def dense_conv2d(
    inputs: tf.Tensor,
    num_outputs: int,
    kernel_size: "int | tuple[int, int]",
    activation_fn: Callable | None = tf.nn.relu,
    weights_initializer: Callable | None = None,
    weights_regularizer: Callable | None = None,
    biases_initializer: Callable | None = None,
    outputs_collections: str | None = None,
    scope: str | None = None,
) -> tf.Tensor:
    """A dense layer with the variables and arguments of a VALID slim.conv2d, as in TF-Slim's checkpoints.

    inputs is [N, H, W, C]; the output [N, H - height + 1, W - width + 1, num_outputs], with the height and width of the
    kernel. If it covers the whole input, the layer is computed as a matrix product: convolution kernels are made for
    large maps, and a training step of alexnet_v2 takes about twice as long with them. A larger input is convolved.

    Give slim.l2_regularizer a scope: TensorFlow calls the regularizer of a variable that is not made by a layer of slim
    outside of all scopes, and TensorBoard's graph would show a node at the top for each of them.
    """
    kernel_size = slim.utils.two_element_tuple(kernel_size)
    height, width, channels = inputs.shape.as_list()[1:]
    weights_initializer = weights_initializer or slim.xavier_initializer()
    biases_initializer = biases_initializer or tf.zeros_initializer()
    if (height, width) != kernel_size:
        return slim.conv2d(
            inputs,
            num_outputs,
            kernel_size,
            padding="VALID",
            activation_fn=activation_fn,
            weights_initializer=weights_initializer,
            weights_regularizer=weights_regularizer,
            biases_initializer=biases_initializer,
            outputs_collections=outputs_collections,
            scope=scope,
        )
    with tf.variable_scope(scope, "Conv", [inputs]) as sc:
        shape = [height, width, channels, num_outputs]
        weights = slim.model_variable(
            "weights", shape, initializer=weights_initializer, regularizer=weights_regularizer
        )
        biases = slim.model_variable("biases", [num_outputs], initializer=biases_initializer)
        units = height * width * channels
        net = tf.matmul(tf.reshape(inputs, [-1, units]), tf.reshape(weights, [units, num_outputs]))
        net = tf.nn.bias_add(net, biases)
        if activation_fn is not None:
            net = activation_fn(net)
        net = tf.reshape(net, [-1, 1, 1, num_outputs])
        return slim.utils.collect_named_outputs(outputs_collections, sc.name, net)


def dense_head(
    net: tf.Tensor,
    num_classes: int,
    kernel_size: int | None,
    widths: tuple[int, int] = (4096, 4096),
    dropout_first: bool = False,
) -> tf.Tensor:
    """The three dense layers of AlexNet and VGG: fc6, fc7 with ReLU and dropout after or before them, fc8 without.

    net is the last pool's output [N, H, W, C]; kernel_size the side of fc6's kernel, None for the size of the map;
    widths the units of fc6 and fc7. Returns logits [N, num_classes], averaged over all positions if the map is larger
    than the kernel.
    """
    if kernel_size is None:
        kernel_size = tuple(net.shape.as_list()[1:3])
    for i, (width, kernel) in enumerate(zip(widths, (kernel_size, 1), strict=True), start=6):
        if dropout_first:
            net = dropout(net, scope=f"dropout{i}")
        net = dense_conv2d(net, width, kernel, scope=f"fc{i}")
        if not dropout_first:
            net = dropout(net, scope=f"dropout{i}")
    net = dense_conv2d(net, num_classes, 1, activation_fn=None, biases_initializer=tf.zeros_initializer(), scope="fc8")
    return tf.reduce_mean(net, [1, 2], name="logits")


def local_response_norm(net: tf.Tensor) -> tf.Tensor:
    """Normalisation over neighbouring channels, §3.3 of the AlexNet paper, with its constants.

    Alpha multiplies the sum of squares, as in the paper; Caffe first divides its alpha by the window of 5.
    net is [N, H, W, C], and so is the output.
    """
    return tf.nn.local_response_normalization(net, depth_radius=2, bias=2.0, alpha=1e-4, beta=0.75)
