"""ResNets for ImageNet, v1 and v2: from bottleneck units in TF-Slim's layout, and from basic units.

v1: He, Zhang, Ren and Sun, Deep residual learning for image recognition (arXiv:1512.03385): batch norm after each
convolution, ReLU after the sum. v2: the same authors' Identity mappings in deep residual networks (arXiv:1603.05027):
batch norm and ReLU before each convolution, nothing after the sum, one more batch norm at the end.

As in TF-Slim: the stride is in the LAST unit's 3×3 convolution of blocks 1 to 3, in the papers in the first unit's
first 1×1; strided convolutions pad explicitly, because SAME pads even and odd sizes differently; pool1 is SAME;
shortcuts are 1×1 convolutions if the width changes, otherwise subsampling. He's initializer (arXiv:1502.01852), batch
norm of decay 0.997 and epsilon 1e-5. Any input size is possible.

TF-Slim has no 18 and 34 layers. These have the layout of torchvision's and timm's, whose weights fit: the stride in the
first unit's first convolution of blocks 2 to 4, shortcuts with batch norm where width or size change, and a pool1 that
pads both sides.
"""

from collections.abc import Callable

from tfcompat import batch_norm, slim, tf

WEIGHT_DECAY = 1e-4
UNITS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
BASIC_UNITS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
WIDTHS = (64, 128, 256, 512)  # of the 3×3 convolutions; outputs of bottleneck units are four times as wide


def resnet_arg_scope(weight_decay: float = WEIGHT_DECAY) -> dict:
    """Initializer, regularizer, padding, and batch norm after every convolution by default."""
    with (
        slim.arg_scope(
            [slim.conv2d],
            weights_regularizer=slim.l2_regularizer(weight_decay),
            weights_initializer=slim.variance_scaling_initializer(),
            normalizer_fn=batch_norm,
        ),
        slim.arg_scope([batch_norm], decay=0.997, epsilon=1e-5, scale=True),
        slim.arg_scope([slim.max_pool2d], padding="SAME") as scope,
    ):
        return scope


def conv2d_same(inputs: tf.Tensor, num_outputs: int, kernel_size: int, stride: int, **arguments) -> tf.Tensor:
    """slim.conv2d with SAME padding, whose strided output is the unstrided output, subsampled.

    inputs is [N, H, W, C]; the output [N, ⌈H/stride⌉, ⌈W/stride⌉, num_outputs].
    """
    if stride == 1:
        return slim.conv2d(inputs, num_outputs, kernel_size, padding="SAME", **arguments)
    before = (kernel_size - 1) // 2
    border = [before, kernel_size - 1 - before]
    inputs = tf.pad(inputs, [[0, 0], border, border, [0, 0]])
    return slim.conv2d(inputs, num_outputs, kernel_size, stride, padding="VALID", **arguments)


@slim.add_arg_scope
def bottleneck_v1(
    inputs: tf.Tensor, width: int, stride: int, outputs_collections: str | None = None, scope: str | None = None
) -> tf.Tensor:
    """1×1, 3×3 and a four times wider 1×1 convolution, plus the input, then ReLU.

    inputs is [N, H, W, C]; the output [N, ⌈H/stride⌉, ⌈W/stride⌉, 4 · width].
    """
    with tf.variable_scope(scope, "bottleneck_v1", [inputs]) as sc:
        if inputs.shape[3] == 4 * width:
            shortcut = _subsampled(inputs, stride)
        else:
            shortcut = slim.conv2d(inputs, 4 * width, 1, stride, activation_fn=None, scope="shortcut")
        residual = slim.conv2d(inputs, width, 1, scope="conv1")
        residual = conv2d_same(residual, width, 3, stride, scope="conv2")
        residual = slim.conv2d(residual, 4 * width, 1, activation_fn=None, scope="conv3")
        return slim.utils.collect_named_outputs(outputs_collections, sc.name, tf.nn.relu(shortcut + residual))


@slim.add_arg_scope
def bottleneck_v2(
    inputs: tf.Tensor, width: int, stride: int, outputs_collections: str | None = None, scope: str | None = None
) -> tf.Tensor:
    """Batch norm and ReLU, then 1×1, 3×3 and a four times wider 1×1 convolution, plus the input.

    inputs is [N, H, W, C]; the output [N, ⌈H/stride⌉, ⌈W/stride⌉, 4 · width].
    """
    with tf.variable_scope(scope, "bottleneck_v2", [inputs]) as sc:
        preact = batch_norm(inputs, activation_fn=tf.nn.relu, scope="preact")
        plain = {"activation_fn": None, "normalizer_fn": None}
        if inputs.shape[3] == 4 * width:
            shortcut = _subsampled(inputs, stride)
        else:
            shortcut = slim.conv2d(preact, 4 * width, 1, stride, scope="shortcut", **plain)
        residual = slim.conv2d(preact, width, 1, scope="conv1")
        residual = conv2d_same(residual, width, 3, stride, scope="conv2")
        residual = slim.conv2d(residual, 4 * width, 1, scope="conv3", **plain)
        return slim.utils.collect_named_outputs(outputs_collections, sc.name, shortcut + residual)


@slim.add_arg_scope
def basic_v1(
    inputs: tf.Tensor, width: int, stride: int, outputs_collections: str | None = None, scope: str | None = None
) -> tf.Tensor:
    """Two 3×3 convolutions, plus the input, then ReLU: [N, H, W, C] to [N, ⌈H/stride⌉, ⌈W/stride⌉, width]."""
    with tf.variable_scope(scope, "basic_v1", [inputs]) as sc:
        shortcut = inputs
        if stride != 1 or inputs.shape[3] != width:
            shortcut = slim.conv2d(inputs, width, 1, stride, activation_fn=None, scope="shortcut")
        residual = conv2d_same(inputs, width, 3, stride, scope="conv1")
        residual = slim.conv2d(residual, width, 3, activation_fn=None, scope="conv2")
        return slim.utils.collect_named_outputs(outputs_collections, sc.name, tf.nn.relu(shortcut + residual))


@slim.add_arg_scope
def basic_v2(
    inputs: tf.Tensor, width: int, stride: int, outputs_collections: str | None = None, scope: str | None = None
) -> tf.Tensor:
    """Batch norm and ReLU before each of two 3×3 convolutions, plus the input; shapes as of basic_v1."""
    with tf.variable_scope(scope, "basic_v2", [inputs]) as sc:
        preact, shortcut = batch_norm(inputs, activation_fn=tf.nn.relu, scope="preact"), inputs
        plain = {"activation_fn": None, "normalizer_fn": None}
        if stride != 1 or inputs.shape[3] != width:
            shortcut = slim.conv2d(preact, width, 1, stride, biases_initializer=None, scope="shortcut", **plain)
        residual = conv2d_same(preact, width, 3, stride, scope="conv1")
        residual = slim.conv2d(residual, width, 3, biases_initializer=None, scope="conv2", **plain)
        return slim.utils.collect_named_outputs(outputs_collections, sc.name, shortcut + residual)


def _subsampled(inputs: tf.Tensor, stride: int) -> tf.Tensor:
    return inputs if stride == 1 else slim.max_pool2d(inputs, 1, stride, scope="shortcut")


def resnet(
    inputs: tf.Tensor, num_classes: int, is_training: "bool | tf.Tensor", scope: str, depth: int, unit: Callable
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds the net of a depth in UNITS or BASIC_UNITS (layers with weights, not shortcuts).

    unit is bottleneck_v1 or bottleneck_v2, of basic units basic_v1 or basic_v2.
    """
    preactivation, is_basic = unit in (bottleneck_v2, basic_v2), depth in BASIC_UNITS
    with tf.variable_scope(scope, f"resnet_{depth}", [inputs]) as sc:
        collection = sc.original_name_scope + "_end_points"
        with (
            slim.arg_scope([slim.conv2d, slim.max_pool2d, unit], outputs_collections=collection),
            slim.arg_scope([batch_norm], is_training=is_training),
        ):
            # The first unit of v2 starts with batch norm and ReLU.
            root = {"activation_fn": None, "normalizer_fn": None} if preactivation else {}
            if preactivation and is_basic:
                root["biases_initializer"] = None
            net = conv2d_same(inputs, 64, 7, 2, scope="conv1", **root)
            if is_basic:
                pads = [[0, 0], [1, 1], [1, 1], [0, 0]]
                net = slim.utils.collect_named_outputs(
                    collection, f"{sc.name}/pool1", tf.nn.max_pool2d(net, 3, 2, pads, name="pool1")
                )
            else:
                net = slim.max_pool2d(net, 3, 2, scope="pool1")
            for i, (units, width) in enumerate(zip({**UNITS, **BASIC_UNITS}[depth], WIDTHS, strict=True), start=1):
                strided = (1, i > 1) if is_basic else (units, i < 4)  # the unit with the stride, if its block has one
                with tf.variable_scope(f"block{i}") as block:
                    for number in range(1, units + 1):
                        with tf.variable_scope(f"unit_{number}"):
                            net = unit(net, width, stride=2 if (number, True) == strided else 1)
                    slim.utils.collect_named_outputs(collection, block.name, net)
            if preactivation:
                net = batch_norm(net, activation_fn=tf.nn.relu, scope="postnorm")
            net = tf.reduce_mean(net, [1, 2], keepdims=True, name="pool5")
            net = slim.conv2d(net, num_classes, 1, activation_fn=None, normalizer_fn=None, scope="logits")
        return tf.squeeze(net, [1, 2], name="squeeze"), slim.utils.convert_collection_to_dict(collection)
