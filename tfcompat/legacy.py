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
from tfcompat import tf

# Old module to the places that have its names now, searched in this order. Its submodules are below the same places.
HOMES = {
    "tensorflow.contrib": (),
    "tensorflow.contrib.data": ("tf.data.experimental", "tf.data"),
    "tensorflow.contrib.deprecated": (),
    "tensorflow.contrib.distributions": ("tf.distributions",),
    "tensorflow.contrib.framework": (
        "tf_slim.ops.arg_scope", "tf_slim.ops.variables", "tf_slim.ops.framework_ops", "tf.train",
    ),
    "tensorflow.contrib.framework.python.framework": ("tensorflow.python.training", "tensorflow.python.framework"),
    "tensorflow.contrib.framework.python.ops": ("tf_slim.ops.arg_scope", "tf_slim.ops", "tf_slim.ops.variables"),
    "tensorflow.contrib.keras": ("tf.keras",),
    "tensorflow.contrib.layers": ("tf_slim.layers",),
    "tensorflow.contrib.layers.python.layers": ("tf_slim.layers",),
    "tensorflow.contrib.learn": (),
    "tensorflow.contrib.learn.datasets.mnist": ("tfcompat.mnist",),
    "tensorflow.contrib.learn.python.learn.datasets.mnist": ("tfcompat.mnist",),
    "tensorflow.contrib.losses": ("tf_slim.losses",),
    "tensorflow.contrib.losses.python.losses": ("tf_slim.losses",),
    "tensorflow.contrib.metrics": ("tf_slim.metrics",),
    "tensorflow.contrib.metrics.python.ops": ("tf_slim.metrics",),
    "tensorflow.contrib.quantize": (),  # slim's scripts import it always and call it for --quantize only
    "tensorflow.contrib.rnn": ("tf.nn.rnn_cell", "tf.nn"),
    "tensorflow.contrib.slim": ("tf_slim",),
    "tensorflow.contrib.slim.python.slim": ("tf_slim",),
    "tensorflow.contrib.tensorboard.plugins": ("tensorboard.plugins",),
    "tensorflow.contrib.training": ("tf_slim.training.training", "tf_slim.training.evaluation"),
    "tensorflow.contrib.training.python.training": ("tf_slim.training",),
    "tensorflow.examples.tutorials.mnist": (),
    "tensorflow.examples.tutorials.mnist.input_data": ("tfcompat.mnist",),
}  # fmt: skip

# Single names, and where they are now.
MOVED = {
    "tensorflow.contrib.deprecated.histogram_summary": "tf.summary.histogram",
    "tensorflow.contrib.deprecated.image_summary": "tf.summary.image",
    "tensorflow.contrib.deprecated.merge_all_summaries": "tf.summary.merge_all",
    "tensorflow.contrib.deprecated.merge_summary": "tf.summary.merge",
    "tensorflow.contrib.deprecated.scalar_summary": "tf.summary.scalar",
    "tensorflow.contrib.framework.is_tensor": "tf.is_tensor",
    "tensorflow.contrib.framework.nest": "tf.nest",
    "tensorflow.contrib.framework.sort": "tf.sort",
    "tensorflow.contrib.framework.argsort": "tf.argsort",
    "tensorflow.contrib.framework.zero_initializer": "tf.zeros_initializer",
    "tensorflow.contrib.layers.safe_embedding_lookup_sparse": "tf.nn.safe_embedding_lookup_sparse",
    "tensorflow.contrib.util.constant_value": "tf.get_static_value",
    "tensorflow.contrib.util.make_ndarray": "tf.make_ndarray",
    "tensorflow.contrib.util.make_tensor_proto": "tf.make_tensor_proto",
}

# Alternatives to names without a counterpart. The longest key that a missing name begins with applies.
NO_CONTRIB = "TensorFlow 2 has no tf.contrib, and tf_slim does not have this part of it"
INSTEAD = {
    "tensorflow.estimator": "TensorFlow 2.16 removed it; run model_fn's graph in a tf.train.MonitoredTrainingSession",
    "tensorflow.contrib": NO_CONTRIB,
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
            "audio_summary": "summary.audio", "batch_matmul": "matmul", "complex_abs": "abs", "concat_v2": "concat",
            "histogram_summary": "summary.histogram", "image_summary": "summary.image", "inv": "reciprocal",
            "merge_all_summaries": "summary.merge_all", "merge_summary": "summary.merge", "mul": "multiply",
            "neg": "negative", "pack": "stack", "scalar_summary": "summary.scalar", "select": "where",
            "sub": "subtract", "unpack": "unstack",
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
    return ModuleSpec(name, _Loader(homes), is_package=True)


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent does not exist or is not a package
        return False


class _Loader(importlib.abc.Loader):
    def __init__(self, homes: Sequence[str]):
        self.homes = homes

    def create_module(self, spec: ModuleSpec) -> OldModule:
        return OldModule(spec.name, self.homes)

    def exec_module(self, module: types.ModuleType) -> None:
        """An OldModule has nothing to execute."""


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        if not _begins(name, {"tensorflow.contrib": 0, "tensorflow.examples": 0, "tensorflow.estimator": 0}):
            return None
        spec = _spec(name)
        if spec is None:
            raise ImportError(_message(name), name=name)
        return spec


def install() -> None:
    """Makes `tensorflow` the TensorFlow 1 module for all later imports in this process."""
    from tensorflow.python.util import deprecation

    tfcompat.restore_moved_names(MOVED_INSIDE)
    # Scripts get "weights:0" by name: of a reference variable the value, of a resource variable only the handle.
    tf.disable_resource_variables()
    for name in flags.FLAGS:
        flags.FLAGS[name].allow_override = True  # scripts define flags such as log_dir, which absl defines too
    tf.logging.set_verbosity(tf.logging.WARN)  # the default of TensorFlow 1
    tf.get_logger().propagate = (
        False  # after tf.app.run absl logs the root's messages too: each line would be printed twice
    )
    deprecation._PRINT_DEPRECATION_WARNINGS = False  # show the script's own warnings only
    real = sys.modules["tensorflow"]
    old = OldModule("tensorflow", ("tf",))
    old.__path__, old.__spec__, old.__file__ = real.__path__, real.__spec__, real.__file__
    sys.modules["tensorflow"] = old
    sys.meta_path.insert(0, _Finder())
