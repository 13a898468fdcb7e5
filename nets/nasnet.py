"""NASNet-A and PNASNet-5: cells that were found by search, stacked; each takes the outputs of the two cells before it.

- NASNet-A: Zoph et al. (arXiv:1707.07012), figure 4: a normal cell and a reduction cell.
- PNASNet-5: Liu et al. (arXiv:1712.00559), figure 1: one cell, which reduces by its stride.

A cell adds pairs of operations on earlier states five times, and concatenates the states that no operation uses. As in
TF-Slim: batch norm with gamma, decay 0.9997, epsilon 0.001; weights scaled by the fan-out; an auxiliary head of weight
0.4 before the second reduction; dropout keeps 0.5 before the logits. In training the large nets drop each path through
a cell for whole pictures (drop path), more often in later cells; TF-Slim also raises its rate over the first 250,000
steps, which a net that does not know the step leaves out. The published names have no common scope.
"""

from typing import NamedTuple

from tfcompat import batch_norm, dropout, slim, tf

AUXILIARY_LOSS_WEIGHT = 0.4
IDENTITY = "none"
Pair = tuple[tuple[str, int], tuple[str, int]]  # two operations, each with the number of the state that it takes


class Cell(NamedTuple):
    """States 0 and 1 are a cell's inputs, each pair of operations makes one more; those in `used` are no outputs."""

    pairs: tuple[Pair, ...]
    used: tuple[int, ...]


NORMAL_A = Cell(
    (
        (("separable_5x5_2", 0), ("separable_3x3_2", 1)),
        (("separable_5x5_2", 1), ("separable_3x3_2", 1)),
        (("avg_pool_3x3", 0), (IDENTITY, 1)),
        (("avg_pool_3x3", 1), ("avg_pool_3x3", 1)),
        (("separable_3x3_2", 0), (IDENTITY, 0)),
    ),
    used=(0,),
)
REDUCTION_A = Cell(
    (
        (("separable_5x5_2", 0), ("separable_7x7_2", 1)),
        (("max_pool_3x3", 0), ("separable_7x7_2", 1)),
        (("avg_pool_3x3", 0), ("separable_5x5_2", 1)),
        ((IDENTITY, 3), ("avg_pool_3x3", 2)),
        (("separable_3x3_2", 2), ("max_pool_3x3", 0)),
    ),
    used=(0, 1, 2),
)
PNASNET_5 = Cell(
    (
        (("separable_5x5_2", 1), ("max_pool_3x3", 1)),
        (("separable_7x7_2", 0), ("max_pool_3x3", 0)),
        (("separable_5x5_2", 0), ("separable_3x3_2", 0)),
        (("separable_3x3_2", 4), ("max_pool_3x3", 0)),
        (("separable_3x3_2", 1), (IDENTITY, 0)),
    ),
    used=(0, 1),
)


class Body(NamedTuple):
    """A net of normal cells, with reductions at thirds of their number, each of which doubles the filters."""

    filters: int  # of an operation of the first cells
    cells: int
    stem: int  # filters of the first convolution
    auxiliary_kernel: int  # side of the auxiliary head's map at the net's default size
    normal: Cell = NORMAL_A
    reduction: Cell | None = REDUCTION_A  # None: the normal cell reduces
    skips_reductions: bool = False  # a cell after a reduction takes the output from before it
    keep_path: float = 1.0  # share of paths that drop path keeps in the last cell

    @property
    def reductions(self) -> list[int]:
        """Numbers of the cells with a reduction, or the cells that one precedes."""
        return [self.cells // 3, self.cells * 2 // 3]


BODIES = {
    "nasnet_mobile": Body(44, 12, 32, 4),
    "nasnet_large": Body(168, 18, 96, 6, skips_reductions=True, keep_path=0.7),
    "pnasnet_mobile": Body(54, 9, 32, 4, PNASNET_5, None, skips_reductions=True),
    "pnasnet_large": Body(216, 12, 96, 6, PNASNET_5, None, skips_reductions=True, keep_path=0.6),
}
WEIGHT_DECAY = {"nasnet_mobile": 4e-5, "nasnet_large": 5e-5, "pnasnet_mobile": 4e-5, "pnasnet_large": 4e-5}


def nasnet_arg_scope(weight_decay: float = 4e-5) -> dict:
    """Initializer, regularizer and batch norm settings; the net adds is_training to them."""
    layers = [slim.conv2d, slim.separable_conv2d]
    with (
        slim.arg_scope(
            [*layers, slim.fully_connected],
            weights_regularizer=slim.l2_regularizer(weight_decay),
            weights_initializer=slim.variance_scaling_initializer(mode="FAN_OUT"),
            activation_fn=None,
        ),
        slim.arg_scope(layers, biases_initializer=None),
        slim.arg_scope([batch_norm], decay=0.9997, epsilon=0.001, scale=True) as scope,
    ):
        return scope


class _Place(NamedTuple):
    """Where a cell is built: width of its operations, stride, and the share of paths that are kept."""

    filters: int
    stride: int
    keep_path: float


def _normalized_1x1(net: tf.Tensor, filters: int, conv: str, norm: str, stride: int = 1) -> tf.Tensor:
    return batch_norm(slim.conv2d(net, filters, 1, stride=stride, scope=conv), scope=norm)


def factorized_reduction(net: tf.Tensor, filters: int) -> tf.Tensor:
    """Halves height and width by 1×1 convolutions of stride 2, one on even and one on odd places."""
    half = filters // 2
    first = slim.conv2d(slim.avg_pool2d(net, 1, 2, scope="path1_pool"), half, 1, scope="path1_conv")
    shifted = tf.pad(net, [[0, 0], [0, 1], [0, 1], [0, 0]])[:, 1:, 1:]
    second = slim.conv2d(slim.avg_pool2d(shifted, 1, 2, scope="path2_pool"), filters - half, 1, scope="path2_conv")
    return batch_norm(tf.concat([first, second], 3), scope="final_path_bn")


def _fitted(previous: tf.Tensor, net: tf.Tensor, filters: int) -> tf.Tensor:
    """The output of the cell before the last, with the size of the last one's, and `filters` channels."""
    if previous.shape[2] != net.shape[2]:
        return factorized_reduction(tf.nn.relu(previous), filters)
    if previous.shape[3] != filters:
        return _normalized_1x1(tf.nn.relu(previous), filters, "prev_1x1", "prev_bn")
    return previous


def _separable(net: tf.Tensor, operation: str, place: _Place, stride: int) -> tf.Tensor:
    """ReLU, separable convolution and batch norm, as often as the operation says."""
    _, kernel, times = operation.split("_")
    for i in range(1, int(times) + 1):
        net = slim.separable_conv2d(
            tf.nn.relu(net), place.filters, int(kernel[0]), stride=stride, scope=f"separable_{kernel}_{i}"
        )
        net, stride = batch_norm(net, scope=f"bn_sep_{kernel}_{i}"), 1
    return net


def _operation(net: tf.Tensor, operation: str, place: _Place, is_input: bool) -> tf.Tensor:
    """An operation on a state; only on the cell's inputs it has the cell's stride."""
    stride = place.stride if is_input else 1
    is_fitting = net.shape[3] == place.filters
    if operation == IDENTITY:
        if stride == 1 and is_fitting:
            return net
        return _normalized_1x1(tf.nn.relu(net), place.filters, "1x1", "bn_1", stride)
    if operation.startswith("separable"):
        net = _separable(net, operation, place, stride)
    else:
        pool = slim.max_pool2d if operation.startswith("max") else slim.avg_pool2d
        net = pool(net, 3, stride=stride, padding="SAME")
        net = net if is_fitting else _normalized_1x1(net, place.filters, "1x1", "bn_1")
    return dropout(net, place.keep_path, noise_shape=[None, 1, 1, 1], scope="drop_path") if place.keep_path < 1 else net


@slim.add_arg_scope
def cell(
    net: tf.Tensor,
    previous: tf.Tensor | None,
    kind: Cell,
    place: _Place,
    outputs_collections: str | None = None,
    scope: str | None = None,
) -> tf.Tensor:
    """Builds a cell on the outputs of the last cell and of the one before, [N, H, W, C] each.

    Returns [N, H', W', filters · number of states that are concatenated].
    """
    with tf.variable_scope(scope, "cell", [net]) as sc:
        previous = net if previous is None else _fitted(previous, net, place.filters)
        states = [_normalized_1x1(tf.nn.relu(net), place.filters, "1x1", "beginning_bn"), previous]
        for i, pair in enumerate(kind.pairs):
            with tf.variable_scope(f"comb_iter_{i}"):
                halves = []
                for side, (operation, state) in zip(("left", "right"), pair, strict=True):
                    with tf.variable_scope(side):
                        halves.append(_operation(states[state], operation, place, is_input=state < 2))
                states.append(halves[0] + halves[1])
        with tf.variable_scope("cell_output"):
            size, outputs = states[-1].shape.as_list()[1:3], []
            for i, state in enumerate(states):
                if i in kind.used:
                    continue
                if state.shape.as_list()[1:3] != size:
                    with tf.variable_scope(f"reduction_{i}"):
                        state = factorized_reduction(state, place.filters)
                outputs.append(state)
            net = tf.concat(outputs, 3)
        return slim.utils.collect_named_outputs(outputs_collections, sc.name, net)


def nasnet(
    inputs: tf.Tensor,
    num_classes: int,
    is_training: "bool | tf.Tensor",
    scope: str,
    variant: str,
    dropout_keep_prob: float = 0.5,
    keep_path: float | None = None,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds a net of BODIES; its auxiliary logits are the end point aux_N/logits. keep_path None: that of the net.

    The published names have no scope, so `scope` is "".
    """
    body = BODIES[variant]
    keep = body.keep_path if keep_path is None else keep_path
    last_of_all = body.cells + (4 if body.reduction else 2)

    def placed(scaling: float, stride: int, number: int) -> _Place:
        return _Place(int(body.filters * scaling), stride, 1 - (number + 1) / last_of_all * (1 - keep))

    heads = {}
    with (
        tf.variable_scope(scope) if scope else tf.name_scope(variant),
        slim.arg_scope(
            [slim.conv2d, slim.separable_conv2d, cell, dropout],
            outputs_collections=(collection := f"{tf.get_default_graph().get_name_scope()}_end_points"),
        ),
        slim.arg_scope([batch_norm, dropout], is_training=is_training),
    ):
        net = slim.conv2d(inputs, body.stem, 3, 2, padding="VALID", scope="conv0")
        net = batch_norm(net, scope="conv0_bn")
        outputs, reduction = [None, net], body.reduction or body.normal
        for i, scaling in enumerate((0.25, 0.5)):
            net = cell(net, outputs[-2], reduction, placed(scaling, 2, i), scope=f"cell_stem_{i}")
            outputs.append(net)
        scaling, number = 1.0, 2
        for i in range(body.cells):
            is_reduction, previous = i in body.reductions, outputs[-2]
            stride = 1
            if is_reduction:
                scaling *= 2
                if body.reduction:
                    name = f"reduction_cell_{body.reductions.index(i)}"
                    net = cell(net, previous, reduction, placed(scaling, 2, number), scope=name)
                    outputs.append(net)
                    number += 1
                    previous = previous if body.skips_reductions else outputs[-2]
                else:
                    stride = 2
            net = cell(net, previous, body.normal, placed(scaling, stride, number), scope=f"cell_{i}")
            outputs.append(net)
            number += 1
            if i == body.reductions[1] - 1:
                heads[f"aux_{i}/logits"] = _auxiliary_logits(net, num_classes, body.auxiliary_kernel, f"aux_{i}")
        with tf.variable_scope("final_layer"):
            net = tf.reduce_mean(tf.nn.relu(net), [1, 2])
            net = dropout(net, dropout_keep_prob, scope="dropout")
            logits = slim.fully_connected(net, num_classes, scope="FC")
    return logits, {**slim.utils.convert_collection_to_dict(collection), **heads}


def _auxiliary_logits(net: tf.Tensor, num_classes: int, kernel: int, scope: str) -> tf.Tensor:
    """Logits [N, num_classes] of a map whose 5×5 means of stride 3 are at least kernel × kernel."""
    with tf.variable_scope(scope), tf.variable_scope("aux_logits"):
        net = slim.avg_pool2d(tf.nn.relu(net), 5, stride=3, padding="VALID")
        net = tf.nn.relu(_normalized_1x1(net, 128, "proj", "aux_bn0"))
        net = slim.conv2d(net, 768, kernel, padding="VALID", scope="Conv")  # the whole map at the default size
        net = tf.reduce_mean(tf.nn.relu(batch_norm(net, scope="aux_bn1")), [1, 2])  # the logits are linear in it
        return slim.fully_connected(net, num_classes, scope="FC")
