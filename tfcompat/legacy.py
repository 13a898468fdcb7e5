"""What scripts of TensorFlow 1 import, put together from today's TensorFlow and tf_slim.

    legacy.install()
    import tensorflow as tf, tensorflow.contrib.slim as slim

From then on `tensorflow` is `tensorflow.compat.v1` with tf.contrib and tensorflow.examples. Names that nothing of
today can stand for raise an error that says what to use instead, where there is something. `tensorflow.python` and
`tensorflow.compat` stay what they are.
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

# Old module: where its names are now, in this order. Submodules are looked for below the same places.
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

# Names that only moved.
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

# What nothing of today can stand for: the longest beginning of a missing name that is here says what to use instead.
NO_CONTRIB = "TensorFlow 2 has no tf.contrib, and tf_slim does not have this part of it"
INSTEAD = {
    "tensorflow.estimator": "TensorFlow 2.16 dropped it; run model_fn's graph in a tf.train.MonitoredTrainingSession",
    "tensorflow.contrib": NO_CONTRIB,
    "tensorflow.contrib.eager": "use tf.enable_eager_execution and tf.GradientTape",
    "tensorflow.contrib.estimator": "TensorFlow 2.16 dropped it; use a tf.train.MonitoredTrainingSession",
    "tensorflow.contrib.image": "use tf.image, or tf.raw_ops.ImageProjectiveTransformV3 for transform and rotate",
    "tensorflow.contrib.layers": "use tf.feature_column for its columns; " + NO_CONTRIB,
    "tensorflow.contrib.learn": "use scikit-learn, or a tf.train.MonitoredTrainingSession; of tf.contrib.learn only "
    "datasets.mnist is here",
    "tensorflow.contrib.lookup": "use tf.lookup.StaticHashTable",
    "tensorflow.contrib.opt": "use tf.train's optimizers; " + NO_CONTRIB,
    "tensorflow.contrib.quantize": "use TFLite's post-training quantization",
    "tensorflow.contrib.summary": "use tf.summary",
    "tensorflow.contrib.tpu": "use tf.tpu",
    "tensorflow.contrib.training.HParams": "use types.SimpleNamespace or argparse",
    "tensorflow.examples": "of TensorFlow's examples only tutorials.mnist.input_data is here",
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

# As tfcompat.MOVED_NAMES: what scripts took from inside TensorFlow and tf_slim does not.
MOVED_INSIDE = (
    ("pywrap_tensorflow", "NewCheckpointReader", "training.py_checkpoint_reader"),
    ("framework.graph_util", "convert_variables_to_constants", "framework.convert_to_constants"),
)


def _begins(name: str, table: dict[str, object]) -> str:
    """The longest beginning of a dotted name that a table has, or nothing."""
    while name and name not in table:
        name = name.rpartition(".")[0]
    return name


def _message(name: str) -> str:
    hint = INSTEAD.get(_begins(name, INSTEAD), "neither tensorflow.compat.v1 nor anything else here has it")
    return f"tf{name.removeprefix('tensorflow')} is gone in TensorFlow {tf.__version__}: {hint}"


def _at(place: str) -> object:
    """What is at a place: below tf by its attributes, elsewhere a module."""
    first, *rest = place.split(".")
    return functools.reduce(getattr, rest, tf) if first == "tf" else importlib.import_module(place)


class OldModule(types.ModuleType):
    """A module of TensorFlow 1 whose names are looked up, when asked for, where they are now."""

    def __init__(self, name: str, homes: Sequence[str] = ()):
        super().__init__(name)
        self.__path__ = []  # without it `from module import name` would not ask the finder, whose error says more
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
            if full_name in sys.modules:  # tensorflow.python and its like
                return sys.modules[full_name]
        raise AttributeError(_message(full_name), name=name, obj=self)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(word for home in map(_at, self._homes) for word in dir(home))})


def _spec(name: str) -> ModuleSpec | None:
    """How to load an old module by its full name, or None where neither HOMES nor the places below have it."""
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
    except ModuleNotFoundError:  # its parent does not exist or is no package
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
    """Makes `tensorflow` what it was in TensorFlow 1, for all that is imported from here on in this process."""
    from tensorflow.python.util import deprecation

    tfcompat.restore_moved_names(MOVED_INSIDE)
    # Scripts ask for "weights:0" by name: a reference variable's value, but a resource variable's handle.
    tf.disable_resource_variables()
    for name in flags.FLAGS:
        flags.FLAGS[name].allow_override = True  # absl's own, such as log_dir, which scripts define too
    tf.logging.set_verbosity(tf.logging.WARN)  # as TensorFlow 1 began, and
    tf.get_logger().propagate = False  # tf.app.run has absl log what reaches the root: each line would come twice
    deprecation._PRINT_DEPRECATION_WARNINGS = False  # the script's warnings, not those about its age
    real = sys.modules["tensorflow"]
    old = OldModule("tensorflow", ("tf",))
    old.__path__, old.__spec__, old.__file__ = real.__path__, real.__spec__, real.__file__
    sys.modules["tensorflow"] = old
    sys.meta_path.insert(0, _Finder())
