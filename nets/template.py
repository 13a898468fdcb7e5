"""A small pre-activation residual net, to start from.

python train.py folder --source PICTURES --net FILE.py:my_net --run-dir runs/my_net
"""

from nets import Net
from tfcompat import batch_norm, slim, tf


def my_net_arg_scope(weight_decay):
    """Batch norm before ReLU, and weight decay on the kernels."""
    with slim.arg_scope(
        [slim.conv2d, slim.fully_connected],
        weights_initializer=slim.variance_scaling_initializer(),
        weights_regularizer=slim.l2_regularizer(weight_decay),
    ) as scope:
        return scope


def residual_unit(net, depth, stride, is_training):
    """Two 3×3 convolutions, each after batch norm and ReLU, added to a shortcut."""
    active = batch_norm(net, is_training=is_training, activation_fn=tf.nn.relu, decay=0.9, scope="preact")
    shortcut = net
    if stride != 1 or net.shape[-1] != depth:
        shortcut = slim.conv2d(active, depth, 1, stride, activation_fn=None, scope="shortcut")
    norm = {"is_training": is_training, "decay": 0.9}
    residual = slim.conv2d(active, depth, 3, stride, normalizer_fn=batch_norm, normalizer_params=norm, scope="conv1")
    return shortcut + slim.conv2d(residual, depth, 3, activation_fn=None, scope="conv2")


def my_net_function(inputs, num_classes, is_training, scope):
    """Builds the net.

    inputs are preprocessed pictures [N, H, W, C], float32. Returns the logits [N, num_classes], and the end points:
    outputs of layers by name, that predict.py --features can show.
    """
    end_points = {}
    with tf.variable_scope(scope, "my_net", [inputs]):
        net = slim.conv2d(inputs, 16, 3, activation_fn=None, scope="conv1")
        for i, (depth, stride) in enumerate([(16, 1), (32, 2), (64, 2)], start=1):
            with tf.variable_scope(f"unit{i}"):
                net = residual_unit(net, depth, stride, is_training)
            end_points[f"my_net/unit{i}"] = net
        net = batch_norm(net, is_training=is_training, activation_fn=tf.nn.relu, decay=0.9, scope="postnorm")
        net = tf.reduce_mean(net, [1, 2], name="pool")
        logits = slim.fully_connected(net, num_classes, activation_fn=None, scope="logits")
    return logits, end_points


# All but the function has a default; nets/record.py lists the fields.
my_net = Net(function=my_net_function, arg_scope=my_net_arg_scope, scope="my_net", image_size=64, preprocessing="cifar")
