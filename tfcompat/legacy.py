"""The modules that TensorFlow 1 scripts import, made of today's TensorFlow and tf_slim.

    legacy.install()
    import tensorflow as tf, tensorflow.contrib.slim as slim

After install(), `tensorflow` is `tensorflow.compat.v1` with tf.contrib and tensorflow.examples. Names without a
counterpart today raise an error that names an alternative, if there is one. `tensorflow.python` and
`tensorflow.compat` do not change.
"""

import functools
import importlib
import importlib.abc
import importlib.util
import itertools
import sys
import types
from collections.abc import Sequence
from importlib.machinery import ModuleSpec

from absl import flags

import tfcompat
from tfcompat import restored, tf

# Old module to the places that have its names now, searched in this order. Its submodules are below the same places.
HOMES = {
    f"tensorflow.{old}": tuple(homes.split())
    for old, homes in {
        "contrib": "", "contrib.deprecated": "", "contrib.learn": "", "examples.tutorials.mnist": "",
        "contrib.data": "tfcompat.contrib_data tf.data.experimental tf.data",
        "contrib.distributions": "tf.distributions",
        "contrib.framework": "tf_slim.ops.arg_scope tf_slim.ops.variables tf_slim.ops.framework_ops tf.train",
        "contrib.framework.python.framework": "tensorflow.python.training tensorflow.python.framework",
        "contrib.framework.python.ops": "tf_slim.ops.arg_scope tf_slim.ops tf_slim.ops.variables",
        "contrib.keras": "tf.keras",
        "contrib.layers": "tf_slim.layers", "contrib.layers.python.layers": "tf_slim.layers",
        "contrib.learn.datasets.mnist": "tfcompat.mnist",
        "contrib.learn.python.learn.datasets.mnist": "tfcompat.mnist",
        "contrib.losses": "tf_slim.losses", "contrib.losses.python.losses": "tf_slim.losses",
        "contrib.metrics": "tf_slim.metrics", "contrib.metrics.python.ops": "tf_slim.metrics",
        "contrib.quantize": "",  # slim's scripts import it always and call it for --quantize only
        "contrib.rnn": "tf.nn.rnn_cell tf.nn",
        "contrib.slim": "tf_slim", "contrib.slim.python.slim": "tf_slim",
        "contrib.tensorboard.plugins": "tensorboard.plugins",
        "contrib.training": "tf_slim.training.training tf_slim.training.evaluation",
        "contrib.training.python.training": "tf_slim.training",
        "examples.tutorials.mnist.input_data": "tfcompat.mnist",
    }.items()
}  # fmt: skip

# Single names in tf.contrib, and where they are now in tf.
SUMMARIES = {
    "histogram_summary": "summary.histogram", "image_summary": "summary.image", "scalar_summary": "summary.scalar",
    "merge_all_summaries": "summary.merge_all", "merge_summary": "summary.merge",
}  # fmt: skip
MOVED = {
    f"tensorflow.contrib.{old}": f"tf.{new}"
    for old, new in {
        **{f"deprecated.{old}": new for old, new in SUMMARIES.items()},
        **{f"framework.{name}": name for name in ("is_tensor", "nest", "sort", "argsort")},
        "framework.zero_initializer": "zeros_initializer",
        "layers.safe_embedding_lookup_sparse": "nn.safe_embedding_lookup_sparse",
        "util.constant_value": "get_static_value",
        "util.make_ndarray": "make_ndarray",
        "util.make_tensor_proto": "make_tensor_proto",
    }.items()
}

# Alternatives to names without a counterpart. The longest key that a missing name begins with applies.
NO_CONTRIB = "TensorFlow 2 has no tf.contrib, and tf_slim does not have this part of it"
INSTEAD = {
    "tensorflow.estimator": "TensorFlow 2.16 removed it; run model_fn's graph in a tf.train.MonitoredTrainingSession",
    "tensorflow.contrib": NO_CONTRIB,
    "tensorflow.contrib.data": "use tf.data and tf.data.experimental; " + NO_CONTRIB,
    "tensorflow.contrib.data.read_batch_features": "use tf.data.experimental.make_batched_features_dataset",
    "tensorflow.contrib.eager": "use tf.enable_eager_execution and tf.GradientTape",
    "tensorflow.contrib.estimator": "TensorFlow 2.16 removed it; use a tf.train.MonitoredTrainingSession",
    "tensorflow.contrib.image": "use tf.image, or tf.raw_ops.ImageProjectiveTransformV3 for transform and rotate",
    "tensorflow.contrib.layers": "use tf.feature_column for its columns; " + NO_CONTRIB,
    "tensorflow.contrib.learn": "use scikit-learn, or a tf.train.MonitoredTrainingSession; of tf.contrib.learn only "
    "datasets.mnist is available",
    "tensorflow.contrib.lookup": "use tf.lookup.StaticHashTable",
    "tensorflow.contrib.opt": "use tf.train's optimizers; " + NO_CONTRIB,
    "tensorflow.contrib.quantize": "use TFLite's post-training quantization",
    "tensorflow.contrib.summary": "use tf.summary",
    "tensorflow.contrib.tpu": "use tf.tpu",
    "tensorflow.contrib.training.HParams": "use types.SimpleNamespace or argparse",
    "tensorflow.examples": "of TensorFlow's examples only tutorials.mnist.input_data is available",
    **{
        f"tensorflow.{old}": f"TensorFlow 1.0 renamed it: use tf.{new}"
        for old, new in {
            **SUMMARIES, "audio_summary": "summary.audio", "batch_matmul": "matmul", "complex_abs": "abs",
            "concat_v2": "concat", "inv": "reciprocal", "mul": "multiply", "neg": "negative", "pack": "stack",
            "select": "where", "sub": "subtract", "unpack": "unstack",
        }.items()
    },
}  # fmt: skip

# As tfcompat.MOVED_NAMES, for names inside TensorFlow that scripts use and tf_slim does not.
MOVED_INSIDE = (
    ("pywrap_tensorflow", "NewCheckpointReader", "training.py_checkpoint_reader"),
    ("framework.graph_util", "convert_variables_to_constants", "framework.convert_to_constants"),
)


def _begins(name: str, table: dict[str, object]) -> str:
    """The longest beginning of a dotted name that is in a table, or an empty string."""
    while name and name not in table:
        name = name.rpartition(".")[0]
    return name


def _message(name: str) -> str:
    hint = INSTEAD.get(_begins(name, INSTEAD), "tensorflow.compat.v1 and tf_slim do not have it")
    return f"tf{name.removeprefix('tensorflow')} is not in TensorFlow {tf.__version__}: {hint}"


def _at(place: str) -> object:
    """The object at a place: an attribute for tf.…, otherwise a module."""
    first, *rest = place.split(".")
    return functools.reduce(getattr, rest, tf) if first == "tf" else importlib.import_module(place)


class OldModule(types.ModuleType):
    """A TensorFlow 1 module that looks up its names, when they are used, in the places that have them now."""

    def __init__(self, name: str, homes: Sequence[str] = ()):
        super().__init__(name)
        self.__path__ = []  # so that `from module import name` asks the finder, whose error says more
        self._homes = homes

    def __getattr__(self, name: str) -> object:
        if name == "__all__":
            public = [getattr(home, "__all__", [w for w in dir(home) if w[0] != "_"]) for home in map(_at, self._homes)]
            return sorted({*itertools.chain(*public)})
        full_name = f"{self.__name__}.{name}"
        if full_name in MOVED:
            return _at(MOVED[full_name])
        if not name.startswith("__") or name == "__version__":
            for home in map(_at, self._homes):
                if hasattr(home, name):
                    return getattr(home, name)
            if _spec(full_name):
                return importlib.import_module(full_name)
            if full_name in sys.modules:  # such as tensorflow.python
                return sys.modules[full_name]
        raise AttributeError(_message(full_name), name=name, obj=self)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(word for home in map(_at, self._homes) for word in dir(home))})


def _spec(name: str) -> ModuleSpec | None:
    """The spec of an old module by its full name; None if neither HOMES nor the places below have it."""
    homes: Sequence[str] = HOMES.get(name, ())
    if name not in HOMES and not any(old.startswith(f"{name}.") for old in (*HOMES, *MOVED)):
        parent = _begins(name, HOMES)
        places = [home + name.removeprefix(parent) for home in HOMES.get(parent, ())]
        homes = [place for place in places if not place.startswith("tf.") and _exists(place)]
        if not homes:
            return None
    return ModuleSpec(name, _Importer(), loader_state=homes, is_package=True)


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent does not exist or is not a package
        return False


class _Importer(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        if not _begins(name, {"tensorflow.contrib": 0, "tensorflow.examples": 0, "tensorflow.estimator": 0}):
            return None
        spec = _spec(name)
        if spec is None:
            raise ImportError(_message(name), name=name)
        return spec

    def create_module(self, spec: ModuleSpec) -> OldModule:
        return OldModule(spec.name, spec.loader_state)

    def exec_module(self, module: types.ModuleType) -> None:
        """An OldModule has nothing to execute."""


def install() -> None:
    """Makes `tensorflow` the TensorFlow 1 module for all later imports in this process."""
    from tensorflow.python.util import deprecation

    tfcompat.restore_moved_names(MOVED_INSIDE)
    # Scripts get "weights:0" by name: of a reference variable the value, of a resource variable only the handle.
    tf.disable_resource_variables()
    for name in flags.FLAGS:
        flags.FLAGS[name].allow_override = True  # scripts define flags such as log_dir, which absl defines too
    tf.logging.set_verbosity(tf.logging.WARN)  # the default of TensorFlow 1
    tf.get_logger().propagate = False  # after tf.app.run absl logs the root's messages too: each would appear twice
    deprecation._PRINT_DEPRECATION_WARNINGS = False  # show the script's own warnings only
    restored.install()
    real = sys.modules["tensorflow"]
    old = OldModule("tensorflow", ("tf",))
    old.__path__, old.__spec__, old.__file__ = real.__path__, real.__spec__, real.__file__
    sys.modules["tensorflow"] = old
    sys.meta_path.insert(0, _Importer())
