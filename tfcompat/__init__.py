"""TensorFlow 1 graphs and tf-slim on today's TensorFlow.

    from tfcompat import batch_norm, dropout, slim, tf

`tf` is `tensorflow.compat.v1` with v2 behaviour off and resource variables on. `slim` is tf_slim 1.1.0; names that
TensorFlow has moved since its release are set again where tf_slim looks for them. `dropout` replaces `slim.dropout`, so
that a resumed run drops the same units; `batch_norm` replaces `slim.batch_norm`, so that fine-tuning can keep the
statistics of layers that it does not train.

All other modules import TensorFlow and tf_slim from here. `python -m tfcompat OLD_SCRIPT.py` runs a TensorFlow 1 script
unchanged.
"""

import contextlib
import importlib
import os
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors and warnings only
# TensorFlow's C++ runtime writes these lines at every start, before the level applies.
NOTICES = (b"before absl::InitializeLog()", b"oneDNN custom operations are on", b"Could not find cuda drivers")


@contextlib.contextmanager
def hidden_stderr(*parts: bytes) -> Iterator[None]:
    """Hides the lines with one of these parts that C libraries, too, write to standard error in a block."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            captured.seek(0)
            sys.stderr.writelines(
                line.decode(errors="replace") for line in captured if not any(part in line for part in parts)
            )


# TensorFlow turns oneDNN on by default only if the CPU has AVX512_VNNI or newer. On a CPU with AVX2 (Zen 3), training
# steps of alexnet_v2, and of preact_resnet_20 on 32×32 pictures, take 1.7 times as long without it.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# TensorFlow reads 64 MB of a file on gs:// at a time, also for a single record of a few KB.
os.environ.setdefault("GCS_READAHEAD_BUFFER_SIZE_BYTES", str(2**20))
# TensorFlow looks for tf.layers and tf.nn.rnn_cell in Keras; only Keras 2 has them.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

with hidden_stderr(*NOTICES):
    import tensorflow.compat.v1 as tf

# Without these, every v1 name that is used prints a deprecation warning.
tf.get_logger().setLevel("ERROR")
warnings.filterwarnings("ignore", message=r"`(layer\.\w+|tf\.layers\.\w+|tf\.nn\.rnn_cell\.\w+)` is deprecated")
tf.disable_v2_behavior()
tf.enable_resource_variables()  # a read sees all writes before it; with v1's reference variables it may not

# The layer class of slim.batch_norm: TensorFlow loads it under this name, the tf_keras wheel has it one level deeper.
sys.modules["tf_keras.legacy_tf_layers.normalization"] = importlib.import_module(
    "tf_keras.src.legacy_tf_layers.normalization"
)

# Names that tf_slim 1.1.0 uses: (module, name, the module that has it now), all under tensorflow.python. TensorFlow
# split the large modules after tf_slim's last release. The comments say what fails without the row.
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
    """Sets missing names again in their old modules. Rows are (old module, name, the module that has it now)."""
    for old_place, name, new_place in rows:
        old_module = importlib.import_module(f"tensorflow.python.{old_place}")
        if not hasattr(old_module, name):
            new_module = importlib.import_module(f"tensorflow.python.{new_place}")
            setattr(old_module, name, getattr(new_module, RENAMED.get(name, name)))


restore_moved_names(MOVED_NAMES)

import tf_slim as slim  # needs the names set above
from tensorflow.python.eager.context import eager_mode  # noqa: F401 – TensorFlow 2 in a block, to test an export
from tensorflow.python.framework import config
from tensorflow.python.ops.op_selector import get_backward_walk_ops
from tensorflow.python.training.saver import object_graph_key_mapping  # noqa: F401 – of an object-based checkpoint


def upstream(operations: list[tf.Operation], stop_at: Sequence[tf.Tensor] = ()) -> set[tf.Operation]:
    """The given operations and all that they are computed from, up to the tensors `stop_at`. Control inputs do not
    count."""
    return set(get_backward_walk_ops(operations, stop_at_ts=stop_at))


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
    noise_shape: "Sequence[int | None] | None" = None,
    outputs_collections: str | None = None,
    scope: str | None = None,
) -> tf.Tensor:
    """Drops units as a pure function of (seed, layer); kept units are scaled by 1 / keep_prob.

    Srivastava et al., Dropout, JMLR 15 (2014), with the scaling moved to training. The training program sets the seed
    once for all layers, an integer tensor of shape [2] that differs at each step. Each layer folds in its scope name:

        with slim.arg_scope([dropout], seed=tf.stack([seed, global_step])):
            logits, end_points = net(images, ...)

    The other arguments are those of slim.dropout: inputs is a float tensor of any rank, keep_prob in (0, 1];
    noise_shape has a 1 for each axis whose values are dropped together, None for the others. The inputs
    are returned unchanged if is_training is false, or a tensor that is false. Raises ValueError for training without a
    seed: slim.dropout uses hidden state then, so a resumed run differs from an uninterrupted one.
    """
    with tf.variable_scope(scope, "Dropout", [inputs]) as sc:
        inputs = tf.convert_to_tensor(inputs)

        def dropped() -> tf.Tensor:
            if seed is None:
                raise ValueError(
                    f"{sc.name}: dropout in training needs a seed; "
                    "set it with slim.arg_scope([dropout], seed=tf.stack([seed, global_step]))"
                )
            # Two draws with one seed are identical, so each layer folds in its own name.
            layer_seed = tf.random.fold_in(seed, zlib.crc32(sc.name.encode()) & 0x7FFFFFFF)
            return tf.nn.experimental.stateless_dropout(
                inputs, rate=1.0 - keep_prob, seed=layer_seed, noise_shape=noise_shape
            )

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
    """slim.batch_norm (Ioffe and Szegedy, arXiv:1502.03167), with layers that stay frozen in training.

    The training program sets once for all layers which of them are frozen, as a function of a layer's variable scope.
    A frozen layer uses its moving averages in training too, and does not update them. All else is as in slim.

        with slim.arg_scope([batch_norm], frozen=lambda name: name.startswith("vgg_16/conv")):
            logits, end_points = net(images, ...)
    """
    if frozen is not None:
        place = tf.get_variable_scope().name
        if frozen("/".join(filter(None, [place, scope or "BatchNorm"]))):
            is_training = False
    return slim.batch_norm(inputs, is_training=is_training, scope=scope, **kwargs)
