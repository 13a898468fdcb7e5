"""Hints for the errors that scripts of 2017 end in: what to write instead for Python 2 and for names that are gone."""

import re
import types

# Python 2's names, and what replaces them.
PYTHON_2 = {
    "basestring": "str", "cmp": "(a > b) - (a < b)", "execfile": "exec(open(path).read())", "file": "open",
    "long": "int", "raw_input": "input", "reduce": "functools.reduce", "reload": "importlib.reload", "unichr": "chr",
    "unicode": "str", "xrange": "range",
    "dict.has_key": "the word `in`", "dict.iteritems": "items", "dict.iterkeys": "keys", "dict.itervalues": "values",
    "dict.viewitems": "items", "dict.viewkeys": "keys", "dict.viewvalues": "values",
    "itertools.ifilter": "filter", "itertools.imap": "map", "itertools.izip": "zip",
    "itertools.izip_longest": "itertools.zip_longest", "os.getcwdu": "os.getcwd", "sys.maxint": "sys.maxsize",
    "sys.setdefaultencoding": "nothing, since text is Unicode", "string.join": "' '.join(words)",
    "string.letters": "string.ascii_letters", "string.lowercase": "string.ascii_lowercase",
    "string.maketrans": "str.maketrans", "string.uppercase": "string.ascii_uppercase",
    "urllib.quote": "urllib.parse.quote", "urllib.unquote": "urllib.parse.unquote",
    "urllib.urlencode": "urllib.parse.urlencode", "urllib.urlopen": "urllib.request.urlopen",
    "urllib.urlretrieve": "urllib.request.urlretrieve",
    "ConfigParser": "configparser", "HTMLParser": "html.parser", "Queue": "queue", "StringIO": "io",
    "Tkinter": "tkinter", "__builtin__": "builtins", "cPickle": "pickle", "cStringIO": "io", "commands": "subprocess",
    "httplib": "http.client", "thread": "threading", "urllib2": "urllib.request", "urlparse": "urllib.parse",
    "BaseException.message": "str(error)", "iterator.next": "next(iterator)",
    "str.decode": "the text as it is, or bytes.decode",
}  # fmt: skip
# Names that Python 3 and libraries no longer have, and what replaces them. A name's beginning stands for all below it.
GONE = {
    "collections": "collections.abc", "distutils": "packaging.version or setuptools", "fractions.gcd": "math.gcd",
    "imp": "importlib", "inspect.getargspec": "inspect.getfullargspec", "time.clock": "time.perf_counter",
    "array.fromstring": "frombytes", "array.tostring": "tobytes",
    "ndarray.itemset": "array[index] = value", "ndarray.newbyteorder": "array.view(array.dtype.newbyteorder())",
    "ndarray.ptp": "np.ptp(array)", "ndarray.tostring": "tobytes",
    "scipy.misc": "PIL.Image or imageio.v2 for pictures, scipy.special for comb, factorial and logsumexp, "
    "scipy.datasets for face and ascent",
    "scipy.misc.fromimage": "np.array(image)",
    "scipy.misc.imread": "np.array(PIL.Image.open(path)), or imageio.v2.imread(path)",
    "scipy.misc.imresize": "np.array(PIL.Image.fromarray(array).resize((width, height))) for an array of uint8",
    "scipy.misc.imrotate": "PIL.Image.fromarray(array).rotate(degrees)",
    "scipy.misc.imsave": "PIL.Image.fromarray(array).save(path) for an array of uint8; imsave stretched the values of "
    "other arrays to 0..255",
    "scipy.misc.toimage": "PIL.Image.fromarray(array) for an array of uint8; toimage stretched the values of other "
    "arrays to 0..255",
    "sklearn.cross_validation": "sklearn.model_selection", "sklearn.grid_search": "sklearn.model_selection",
    "sklearn.datasets.fetch_mldata": "sklearn.datasets.fetch_openml", "sklearn.externals.joblib": "import joblib",
    "Image": "from PIL import Image", "PIL.Image.ANTIALIAS": "Image.LANCZOS", "Image.fromstring": "Image.frombytes",
    "Image.tostring": "image.tobytes", "PIL.Image.fromstring": "Image.frombytes",
    "cv2.CV_LOAD_IMAGE_COLOR": "cv2.IMREAD_COLOR", "cv2.CV_LOAD_IMAGE_GRAYSCALE": "cv2.IMREAD_GRAYSCALE",
    "cv2.CV_LOAD_IMAGE_UNCHANGED": "cv2.IMREAD_UNCHANGED", "cv2.cv": "the name in cv2 without the prefix CV_",
    "Dataset.value": "dataset[()]", "matplotlib.pyplot.hold": "nothing, plots are always added",
    "tf.image.per_image_whitening": "tf.image.per_image_standardization",
    "tf.nn.bidirectional_rnn": "tf.nn.static_bidirectional_rnn", "tf.nn.rnn": "tf.nn.static_rnn",
    "tf.nn.seq2seq": "a loop over tf.nn.dynamic_rnn's cells; tf.contrib.seq2seq is gone, too",
    "tf.train.SummaryWriter": "tf.summary.FileWriter",
    "DatasetV1Adapter.dense_to_sparse_batch": "dataset.apply(tf.data.experimental.dense_to_sparse_batch(…))",
}  # fmt: skip

# What an error's type and message say, and the hint. The first row that matches applies.
MESSAGES = (
    (r"allow_pickle=False",
     "np.load(path, allow_pickle=True, encoding='latin1') reads pickled objects, such as the dict in a .npy file with "
     "weights; unpickling can run code, so do it only if you trust the file's source"),
    (r"UnicodeDecodeError|encoding= option to numpy\.load",
     "open a file of bytes with mode 'rb'; a pickle of Python 2 needs pickle.load(file, encoding='latin1')"),
    (r"bytes-like object is required, not 'str'|write\(\) argument must be str, not bytes|expected bytes, str found"
     r"|has type str, but expected one of: bytes|can't concat str to bytes|can only concatenate str \(not .bytes",
     "Python 3 separates text from bytes: text.encode() gives bytes, data.decode() gives text; files of bytes have "
     "mode 'rb' or 'wb', and a pickle is read and written as bytes"),
    (r"'(dict_\w+|map|zip|filter|range|odict_\w+)' object (is not subscriptable|does not support item|has no attribute)"
     r"|object of type '(map|zip|filter)' has no len|unsupported operand type\(s\) for \+: '?(range|dict_\w+|map)",
     "in Python 3, map, zip, filter, range and a dict's keys, values and items are no lists: list(…) makes one"),
    (r"unexpected keyword argument '(concat_dim|split_dim|num_split)'",
     "TensorFlow 1.0 renamed them: tf.concat(values, axis), tf.split(value, num_or_size_splits, axis)"),
    (r"TypeError: 'cmp' is an invalid keyword", "use key=functools.cmp_to_key(function)"),
    (r"ValueError: .*inhomogeneous shape", "for rows of different lengths, use np.array(rows, dtype=object)"),
    # A size, index or count that is a float: almost every function has its own words for it.
    (r"(?s)(Type|Value|Index)Error: (?=.*\b(int(eger)?s?|int32|int64|slices)\b)(?=.*(float|\d\.0\b|indices))"
     r"(?!.*, not (str|tuple|list|NoneType))"
     r"|Error: .*('size' must be a 1-D int32|\baxis must be int\b|`pad_width` must|num_or_size_splits.*: \d+\.0$)"
     r"|IllegalFlagValueError: .*'float'",
     "if a size, index or count comes from a division: in Python 2, 96/2 was the integer 48; in Python 3 it is 48.0: "
     "write 96//2, or int(…) around it"),
)  # fmt: skip


def _missing(error: BaseException) -> list[str]:
    """The dotted names under which a missing name can be in the tables; empty for errors of another kind."""
    name = getattr(error, "name", None)
    if isinstance(error, ImportError):
        found = re.match(r"cannot import name '(\w+)' from '([\w.]+)'", str(error))
        return [f"{found[2]}.{found[1]}"] if found else [str(name)]
    if isinstance(error, NameError):
        return [str(name)]
    if not isinstance(error, AttributeError) or name is None:
        return []
    if isinstance(error.obj, types.ModuleType):
        owner = error.obj.__name__
        return [f"tf{owner.removeprefix('tensorflow._api.v2.compat.v1')}.{name}", f"{owner}.{name}"]
    owners = [kind.__name__ for kind in type(error.obj).__mro__]
    return [f"{owner}.{name}" for owner in [*owners, *(["iterator"] if hasattr(error.obj, "__next__") else [])]]


def _beginnings(name: str) -> list[str]:
    words = name.split(".")
    return [".".join(words[:count]) for count in range(len(words), 0, -1)]


def hint(error: BaseException) -> str | None:
    """What to change in a script of 2017 that ended in this error; None if nothing is known."""
    for name in _missing(error):
        if name in PYTHON_2:
            old = name.rpartition(".")[2]
            return f"{old} was Python 2's; use {PYTHON_2[name]}, or let 2to3 (now fissix) rewrite the script"
        for old in _beginnings(name):
            if old in GONE:
                return f"{name} is gone; use {GONE[old]}"
    text = f"{type(error).__name__}: {error}"
    return next((use for pattern, use in MESSAGES if re.search(pattern, text)), None)


def syntax_hint(error: SyntaxError) -> str:
    """What to do about a file that Python cannot compile."""
    if isinstance(error, TabError):
        return f"`expand -i {error.filename} > new.py` writes it with spaces only"
    if "codec can't decode" in str(error.msg) or "Non-UTF-8" in str(error.msg):
        return f"`iconv -f latin1 -t utf-8 {error.filename} > new.py` writes it as UTF-8, if it is Latin-1"
    return f"if this is Python 2, `pip install fissix; python -m fissix -w {error.filename}` rewrites most of it"
