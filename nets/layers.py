"""Layers that more than one family uses and slim lacks."""

from collections.abc import Callable

from tfcompat import slim, tf


@slim.add_arg_scope
def dense_conv2d(
    inputs: tf.Tensor,
    num_outputs: int,
    kernel_size: int,
    activation_fn: Callable | None = tf.nn.relu,
    weights_initializer: Callable | None = None,
    weights_regularizer: Callable | None = None,
    biases_initializer: Callable | None = None,
    outputs_collections: str | None = None,
    scope: str | None = None,
) -> tf.Tensor:
    """A dense layer in the variables of the VALID convolution that TF-Slim publishes it as.

    Where the kernel covers the whole input it is computed as a matrix product: convolution kernels are built for large
    maps, and a training step of alexnet_v2 takes about twice as long with them. A larger input is convolved.

    Args:
        inputs: [N, H, W, C], H and W at least kernel_size.
        num_outputs: units.
        kernel_size: side of the kernel.
        activation_fn, weights_initializer, weights_regularizer, biases_initializer, outputs_collections, scope: as in
            slim.conv2d.

    Returns:
        [N, H - kernel_size + 1, W - kernel_size + 1, num_outputs].
    """
    height, width, channels = inputs.shape.as_list()[1:]
    weights_initializer = weights_initializer or slim.xavier_initializer()
    biases_initializer = biases_initializer or tf.zeros_initializer()
    if (height, width) != (kernel_size, kernel_size):
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
        shape = [kernel_size, kernel_size, channels, num_outputs]
        weights = slim.model_variable(
            "weights", shape, initializer=weights_initializer, regularizer=weights_regularizer
        )
        biases = slim.model_variable("biases", [num_outputs], initializer=biases_initializer)
        units = kernel_size * kernel_size * channels
        net = tf.matmul(tf.reshape(inputs, [-1, units]), tf.reshape(weights, [units, num_outputs]))
        net = tf.nn.bias_add(net, biases)
        if activation_fn is not None:
            net = activation_fn(net)
        net = tf.reshape(net, [-1, 1, 1, num_outputs])
        return slim.utils.collect_named_outputs(outputs_collections, sc.name, net)
