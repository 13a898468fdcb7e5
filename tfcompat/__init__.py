"""TensorFlow 1 graphs and tf-slim on today's TensorFlow.

    from tfcompat import batch_norm, dropout, slim, tf

`tf` is `tensorflow.compat.v1` with v2 behaviour off and resource variables on. `slim` is tf_slim 1.1.0 with the names
that TensorFlow has moved since put back where it looks for them. `dropout` takes the place of `slim.dropout`: its mask
is a pure function of (seed, layer), so that a resumed run drops the same units as one that was never interrupted.
`batch_norm` takes the place of `slim.batch_norm`: fine-tuning can keep the statistics of layers that it does not train.

Everything else in the project gets TensorFlow and tf_slim from here. `python -m tfcompat OLD_SCRIPT.py` runs a script
of TensorFlow 1 as it is.
"""

import contextlib
import importlib
import os
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors and warnings only
# What TensorFlow's C++ runtime writes before that level applies, several lines at every start.
NOTICES = (b"before absl::InitializeLog()", b"oneDNN custom operations are on", b"Could not find cuda drivers")


@contextlib.contextmanager
def _without_notices() -> Iterator[None]:
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as heard:
        os.dup2(heard.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            heard.seek(0)
            sys.stderr.writelines(
                line.decode(errors="replace") for line in heard if not any(notice in line for notice in NOTICES)
            )


# TensorFlow turns oneDNN on by itself only where the CPU has AVX512_VNNI or newer. On one with AVX2 (Zen 3) training
# steps of alexnet_v2 and of preact_resnet_20 on 32×32 pictures take 1.7 times as long without it.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# tf.layers and tf.nn.rnn_cell, which TensorFlow looks for in Keras, are in Keras 2 only.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

with _without_notices():
    import tensorflow.compat.v1 as tf

# v1 names announce their deprecation one by one; using them is the point here.
tf.get_logger().setLevel("ERROR")
warnings.filterwarnings("ignore", message=r"`(layer\.\w+|tf\.layers\.\w+|tf\.nn\.rnn_cell\.\w+)` is deprecated")
tf.disable_v2_behavior()
tf.enable_resource_variables()  # unlike v1's reference variables, a read sees the writes it was ordered after

# slim.batch_norm's layer class: TensorFlow lazy-loads it under this name, the tf_keras wheel ships it one level down.
sys.modules["tf_keras.legacy_tf_layers.normalization"] = importlib.import_module(
    "tf_keras.src.legacy_tf_layers.normalization"
)

# What tf_slim 1.1.0 still looks for: (module, name, the module that has it now), all under tensorflow.python.
# TensorFlow split the large modules up after tf_slim's last release. The reason says what breaks without the row.
MOVED_NAMES = (
    ("framework.ops", "Tensor", "framework.tensor"),  # batch_norm in every mode; smart_cond
    ("framework.ops", "IndexedSlices", "framework.indexed_slices"),  # create_train_op with clipping or multipliers
    ("ops.variables", "VariableV1", "ops.variable_v1"),  # slim's own tests
    ("ops.variable_scope", "variable", "ops.variable_v1"),  # slim.local_variable, slim.global_variable
    ("ops.variable_scope", "resource_variables_enabled", "ops.resource_variables_toggle"),  # slim's own tests
    ("ops.variable_scope", "enable_resource_variables", "ops.resource_variables_toggle"),  # likewise
    ("ops.variable_scope", "disable_resource_variables", "ops.resource_variables_toggle"),  # likewise
    ("ops.control_flow_ops", "cond", "ops.cond"),  # is_training as a tensor; decoders; streaming metrics
    ("ops.control_flow_ops", "case", "ops.control_flow_case"),  # tfexample_decoder.Image
    ("ops.control_flow_ops", "while_loop", "ops.while_loop"),  # slim.losses.metric_learning.cluster_loss
    ("ops.control_flow_ops", "Assert", "ops.control_flow_assert"),  # slim.metrics.auc_using_histogram
    ("ops.array_ops", "stack", "ops.array_ops_stack"),  # tfexample_decoder; streaming metrics; legacy_fully_connected
    ("ops.array_ops", "unstack", "ops.array_ops_stack"),  # legacy_fully_connected
)
RENAMED = {"variable": "VariableV1"}  # variable_scope.variable was an alias of the class


def restore_moved_names(rows: Iterable[tuple[str, str, str]]) -> None:
    """Sets names back where they are missing: for each (module, name, the module that has it now)."""
    for old_place, name, new_place in rows:
        old_module = importlib.import_module(f"tensorflow.python.{old_place}")
        if not hasattr(old_module, name):
            new_module = importlib.import_module(f"tensorflow.python.{new_place}")
            setattr(old_module, name, getattr(new_module, RENAMED.get(name, name)))


restore_moved_names(MOVED_NAMES)

import tf_slim as slim  # after the names it needs are back
from tensorflow.python.eager.context import eager_mode  # noqa: F401 – TensorFlow 2 within a block, to try an export in
from tensorflow.python.framework import config
from tensorflow.python.ops.op_selector import get_backward_walk_ops


def upstream(operations: list[tf.Operation]) -> set[tf.Operation]:
    """The given operations and all operations that they are computed from. Control inputs do not count."""
    return set(get_backward_walk_ops(operations))


@contextlib.contextmanager
def op_determinism() -> Iterator[None]:
    """Within a block, TensorFlow's ops are deterministic: the same seed gives the same bits, for the same number of
    threads. Costs 0 to 4 % of a training step. Ops without a seed then raise an error."""
    before = config.is_op_determinism_enabled()
    config.enable_op_determinism()
    try:
        yield
    finally:
        if not before:
            config.disable_op_determinism()


@slim.add_arg_scope
def dropout(
    inputs: tf.Tensor,
    keep_prob: float = 0.5,
    is_training: "bool | tf.Tensor" = True,
    seed: "tf.Tensor | None" = None,
    outputs_collections: str | None = None,
    scope: str | None = None,
) -> tf.Tensor:
    """Drops units as a pure function of (seed, layer); kept units are scaled by 1 / keep_prob.

    The training program sets the seed once for all layers, and the layer's scope name is folded in:

        with slim.arg_scope([dropout], seed=tf.stack([seed, global_step])):
            logits, end_points = net(images, ...)

    Args:
        inputs: floating point tensor of any rank.
        keep_prob: probability in (0, 1] that a unit is kept.
        is_training: when false, or a tensor that is false, inputs are returned as they are.
        seed: integer tensor of shape [2], different at each step.
        outputs_collections: collection that the output is added to under the scope's name.
        scope: name; 'Dropout' by default.

    Returns:
        A tensor like `inputs`.

    Raises:
        ValueError: when training without a seed. `slim.dropout` would draw from hidden state there, and a resumed run
            would differ from an uninterrupted one.

    Source: Srivastava et al., Dropout, JMLR 15 (2014), with the scaling moved to training.
    """
    with tf.variable_scope(scope, "Dropout", [inputs]) as sc:
        inputs = tf.convert_to_tensor(inputs)

        def dropped() -> tf.Tensor:
            if seed is None:
                raise ValueError(
                    f"{sc.name}: dropout in training needs a seed; "
                    "set it with slim.arg_scope([dropout], seed=tf.stack([seed, global_step]))"
                )
            # Two draws from one seed are identical, so each layer folds its own name in.
            layer_seed = tf.random.fold_in(seed, zlib.crc32(sc.name.encode()) & 0x7FFFFFFF)
            return tf.nn.experimental.stateless_dropout(inputs, rate=1.0 - keep_prob, seed=layer_seed)

        outputs = slim.utils.smart_cond(is_training, dropped, lambda: tf.identity(inputs))
        return slim.utils.collect_named_outputs(outputs_collections, sc.name, outputs)


@slim.add_arg_scope
def batch_norm(
    inputs: tf.Tensor,
    is_training: "bool | tf.Tensor" = True,
    frozen: Callable[[str], bool] | None = None,
    scope: str | None = None,
    **kwargs: object,
) -> tf.Tensor:
    """slim.batch_norm, which layers can be exempted from in training.

    The training program says once for all layers which of them it leaves alone:

        with slim.arg_scope([batch_norm], frozen=lambda name: name.startswith("vgg_16/conv")):
            logits, end_points = net(images, ...)

    Args:
        inputs: as slim.batch_norm takes it, as are is_training, scope and all further arguments.
        is_training: whether the batch's statistics are used and the moving averages are updated.
        frozen: from a layer's variable scope to whether it normalises by its moving averages, and leaves them as they
            are, in training too.
        scope: name; 'BatchNorm' by default.

    Returns:
        A tensor like `inputs`.

    Source: Ioffe and Szegedy, Batch normalization (arXiv:1502.03167).
    """
    if frozen is not None:
        place = tf.get_variable_scope().name
        if frozen("/".join(filter(None, [place, scope or "BatchNorm"]))):
            is_training = False
    return slim.batch_norm(inputs, is_training=is_training, scope=scope, **kwargs)
