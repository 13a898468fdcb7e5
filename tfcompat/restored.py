"""Names, arguments and behaviours of 2017 that today's NumPy, tf.data and absl no longer have, set again.

    restored.install()

Only what has an exact counterpart today. For all else, tfcompat.hints says what to change.
"""

import functools
import pickle
import re
import sys
from collections.abc import Callable, Sequence

import numpy as np
from absl import flags

from tfcompat import tf

# NumPy's old name to what it meant.
NUMPY = {
    "int": int, "float": float, "object": object, "str": str, "complex": complex, "unicode": str,
    "bool8": np.bool_, "cfloat": np.complex128, "complex_": np.complex128, "float_": np.float64, "int0": np.intp,
    "longfloat": np.longdouble, "object0": np.object_, "singlecomplex": np.complex64, "string_": np.bytes_,
    "uint0": np.uintp, "unicode_": np.str_, "typeDict": np.sctypeDict,
    "Inf": np.inf, "Infinity": np.inf, "NINF": -np.inf, "NaN": np.nan, "PINF": np.inf, "infty": np.inf,
    "alltrue": np.all, "cumproduct": np.cumprod, "issubsctype": np.issubdtype, "loads": pickle.loads,
    "mat": np.asmatrix, "product": np.prod, "rank": np.ndim, "round_": np.round, "row_stack": np.vstack,
    "sometrue": np.any, "trapz": getattr(np, "trapezoid", None),
    "asfarray": lambda a, dtype=np.float64: np.asarray(a, dtype if np.issubdtype(dtype, np.inexact) else np.float64),
    "asscalar": lambda a: a.item(),
    "in1d": lambda ar1, ar2, **options: np.isin(np.ravel(ar1), ar2, **options),
    "msort": lambda a: np.sort(a, axis=0),
}  # fmt: skip
# NumPy's functions, and the arguments of theirs that have another name now.
NUMPY_ARGUMENTS = {
    "histogram": {"normed": "density"}, "percentile": {"interpolation": "method"}, "reshape": {"newshape": "shape"},
}  # fmt: skip

# Functions whose arguments had another order before TensorFlow 1.0, and whether a call has that order.
BEFORE_1_0: dict[str, tuple[Callable[[Sequence[object]], bool], str]] = {
    "concat": (lambda args: bool(args) and isinstance(args[0], int), "tf.concat(values, axis)"),
    "split": (lambda args: bool(args) and isinstance(args[0], int), "tf.split(value, num_or_size_splits, axis)"),
    **{
        # It was (logits, labels), then without positions. Today (labels, logits) passes, so the old order would
        # compute another loss.
        f"nn.{name}": (bool, f"tf.nn.{name}(labels=…, logits=…)")
        for name in (
            "softmax_cross_entropy_with_logits", "sparse_softmax_cross_entropy_with_logits",
            "sigmoid_cross_entropy_with_logits", "weighted_cross_entropy_with_logits",
        )
    },
}  # fmt: skip


def _renaming(function: Callable, names: dict[str, str]) -> Callable:
    """The function, which also takes arguments by their old names."""

    @functools.wraps(function)
    def renaming(*args: object, **kwargs: object) -> object:
        return function(*args, **{names.get(name, name): value for name, value in kwargs.items()})

    return renaming


def _restore_numpy() -> None:
    for name, value in NUMPY.items():
        if name not in vars(np) and value is not None:
            setattr(np, name, value)
    for name, renamed in NUMPY_ARGUMENTS.items():
        setattr(np, name, _renaming(getattr(np, name), renamed))
    text_only = np.fromstring

    @functools.wraps(text_only)
    def fromstring(string: "str | bytes", dtype: object = float, count: int = -1, sep: str = "") -> np.ndarray:
        data = string.encode("latin1") if isinstance(string, str) else string
        return text_only(string, dtype, count, sep=sep) if sep else np.frombuffer(data, dtype, count).copy()

    np.fromstring = fromstring


def _restore_data() -> None:
    """Dataset.map with tf.contrib.data's arguments: threads, and the elements that are computed ahead."""
    today = tf.data.Dataset.map

    @functools.wraps(today)
    def map(self, map_func, num_parallel_calls=None, *args, num_threads=None, output_buffer_size=None, **kwargs):
        mapped = today(self, map_func, num_parallel_calls or num_threads, *args, **kwargs)
        return mapped.prefetch(output_buffer_size) if output_buffer_size else mapped

    tf.data.Dataset.map = map


def _refusing(function: Callable, name: str) -> Callable:
    """The function, which raises ValueError for a call in the order from before TensorFlow 1.0."""
    is_old, call = BEFORE_1_0[name]

    @functools.wraps(function)
    def refusing(*args: object, **kwargs: object) -> object:
        if is_old(args):
            raise ValueError(f"TensorFlow 1.0 changed the order of tf.{name}'s arguments; write {call}")
        return function(*args, **kwargs)

    return refusing


def _refuse_old_order() -> None:
    for name in BEFORE_1_0:
        owner, word = (tf.nn, name.removeprefix("nn.")) if name.startswith("nn.") else (tf, name)
        setattr(owner, word, _refusing(getattr(owner, word), name))


def joined(argv: Sequence[str], boolean: Callable[[str], bool]) -> list[str]:
    """A command line in which `--train False` is one word, --train=False, if --train is a boolean flag.

    argparse, which parsed the flags until TensorFlow 1.4, took the second word as the value; absl takes none, so the
    flag would be true.
    """
    words: list[str] = []
    for i, word in enumerate(argv):
        if word == "--":
            return [*words, *argv[i:]]
        flag = re.fullmatch(r"--?(\w+)", words[-1]) if words else None
        if flag and re.fullmatch(r"(?i)true|false|t|f|0|1", word) and boolean(flag[1]):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _restore_flags() -> None:
    kind, parse = flags.FlagValues, flags.FlagValues.__call__

    @functools.wraps(parse)
    def parse_all(self: flags.FlagValues, argv: Sequence[str], known_only: bool = False) -> list[str]:
        def boolean(name: str) -> bool:
            return name in self and bool(self[name].boolean)

        return parse(self, joined(argv, boolean), known_only)

    kind.__call__ = parse_all
    kind._parse_flags = lambda self: self(sys.argv, known_only=True)
    setattr(kind, "__parsed", property(kind.is_parsed))
    # FLAGS.__flags had the values. Today it has the flags: printed, they are the same.
    flags.Flag.__str__ = lambda self: str(self.value)
    flags.Flag.__repr__ = lambda self: repr(self.value)
    vars(tf.app.flags.FLAGS)["__flags"] = flags.FLAGS._flags()


def install() -> None:
    """Sets all of it again, in this process."""
    _restore_numpy()
    _restore_data()
    _refuse_old_order()
    _restore_flags()
