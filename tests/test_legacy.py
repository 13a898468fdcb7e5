"""`python -m tfcompat` runs scripts of 2017 unchanged, with the real command, to their usual accuracy."""

import gzip
import http.server
import io
import os
import pathlib
import pickle
import re
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest

from pipeline.convert.sources.arrays import MNIST_FILES, MNIST_URL
from tfcompat import hints, legacy, mnist, restored, slim, tf
from tfcompat.__main__ import main

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "tests" / "legacy_scripts"


def run_legacy(*arguments, code=0):
    command = [sys.executable, "-m", "tfcompat", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done


def accuracy(done):
    return float(re.search(r"test accuracy (\S+)", done.stdout).group(1))


@pytest.fixture(scope="module")
def digits():
    """Images uint8 [1797, 8, 8] and labels int64 [1797], in a shuffled order."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.RandomState(0).permutation(len(bunch.target))
    return np.rint(bunch.images * (255 / 16)).astype(np.uint8)[order], bunch.target[order]


@pytest.fixture(scope="module")
def arrays(digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("arrays") / "digits.npz"
    np.savez(path, images=digits[0], labels=digits[1])
    return path


def write_idx(path, values):
    header = struct.pack(f">i{values.ndim}i", 2048 + values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes(), 1))


@pytest.fixture(scope="module")
def idx_files(digits, tmp_path_factory):
    """The digits as MNIST's four files: 28×28, the training pictures six times, each time shifted."""
    images, labels = np.pad(digits[0].repeat(3, 1).repeat(3, 2), ((0, 0), (2, 2), (2, 2))), digits[1]
    shifts = [(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0), (1, 1)]
    directory = tmp_path_factory.mktemp("mnist")
    train_images, train_labels, test_images, test_labels = (directory / name for name in mnist.FILES)
    write_idx(train_images, np.concatenate([np.roll(images[:1400], shift, (1, 2)) for shift in shifts]))
    write_idx(train_labels, np.tile(labels[:1400], len(shifts)))
    write_idx(test_images, images[1400:])
    write_idx(test_labels, labels[1400:])
    return directory


def test_mnist_tutorial(idx_files, tmp_path):
    done = run_legacy(SCRIPTS / "mnist_deep.py", "--data_dir", idx_files, "--log_dir", tmp_path / "logs")
    assert accuracy(done) > 0.85
    assert "first weights (5, 5, 1, 8)" in done.stdout
    assert "deprecated" not in done.stderr
    left = {path.name for path in (tmp_path / "logs").iterdir()}
    assert {"checkpoint", "model.ckpt-137.index", "model.ckpt-137.meta"} <= left
    assert any(name.startswith("events.out.tfevents") for name in left)


@pytest.fixture(scope="module")
def slim_run(digits, tmp_path_factory):
    directory = tmp_path_factory.mktemp("slim")
    for name, part in (("train", slice(0, 1400)), ("test", slice(1400, None))):
        with tf.python_io.TFRecordWriter(str(directory / f"{name}.tfrecord")) as writer:
            for image, label in zip(digits[0][part], digits[1][part], strict=True):
                feature = {
                    "image_raw": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image.tobytes()])),
                    "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    done = run_legacy(SCRIPTS / "train_slim.py", f"--data_dir={directory}", f"--train_dir={directory / 'train'}")
    return done, directory / "train"


def test_slim_with_queues(slim_run):
    done, directory = slim_run
    assert accuracy(done) > 0.9
    assert "Done testing, 397 pictures" in done.stdout
    logged = re.findall(r"global step (\d+): loss = ", done.stderr)
    assert len(logged) == len(set(logged)) >= 3
    assert "deprecated" not in done.stderr
    assert tf.train.latest_checkpoint(str(directory)).endswith("model.ckpt-200")
    names = {name for name, _ in tf.train.list_variables(str(directory))}
    assert {"digits_net/conv1/conv1_2/BatchNorm/moving_mean", "digits_net/logits/weights", "global_step"} <= names
    (events,) = directory.glob("events.out.tfevents*")
    tags = {value.tag for event in tf.train.summary_iterator(str(events)) for value in event.summary.value}
    assert {"losses/total_loss", "activations/digits_net/conv2"} <= tags


def test_contrib_layers_and_supervisor(slim_run, arrays, tmp_path):
    start = tf.train.latest_checkpoint(str(slim_run[1]))
    done = run_legacy(
        SCRIPTS / "finetune.py", f"--data={arrays}", f"--checkpoint_path={start}", f"--log_dir={tmp_path}"
    )
    assert accuracy(done) > 0.9
    assert "step 150 loss" in done.stderr
    kept, new = tf.train.load_checkpoint(start), tf.train.load_checkpoint(str(tmp_path))
    name = "digits_net/conv2/weights"
    np.testing.assert_array_equal(kept.get_tensor(name), new.get_tensor(name))
    assert new.has_tensor("fc6/weights")
    assert new.get_tensor("global_step") == 150


@pytest.mark.slow
def test_tf_layers(arrays, tmp_path):
    done = run_legacy(SCRIPTS / "layers_bn.py", "--data", arrays, "--logdir", tmp_path)
    assert accuracy(done) > 0.9
    assert float(re.search(r"moved (\S+)", done.stdout).group(1)) > 0.01
    assert (tmp_path / "model.ckpt-150.index").exists()


IMPORTS = """
import sys, tensorflow as tf, tensorflow.contrib.slim as slim, tensorflow.contrib.slim.python.slim.nets.resnet_v2 as r2
import tensorflow.contrib.layers as layers
import tensorflow.python.ops.math_ops
from tensorflow.contrib import framework, quantize, rnn, slim as slim_too
from tensorflow.contrib.framework import *
from tensorflow.contrib.framework.python.framework import checkpoint_utils
from tensorflow.contrib.framework.python.ops import add_arg_scope, variables
from tensorflow.contrib.layers.python.layers import initializers, regularizers, utils
from tensorflow.contrib.learn.python.learn.datasets.mnist import read_data_sets
from tensorflow.contrib.slim import nets
from tensorflow.contrib.slim.nets import inception
from tensorflow.contrib.slim.python.slim.learning import train_step
from tensorflow.contrib.tensorboard.plugins import projector
from tensorflow.contrib.training import evaluate_once
from tensorflow.python import pywrap_tensorflow
from tensorflow.python.framework import graph_util
from tensorflow.python.training import moving_averages
assert slim.conv2d is slim_too.conv2d is tf.contrib.slim.conv2d is layers.conv2d is tf.contrib.layers.convolution2d
assert nets.resnet_v2.resnet_v2_50 is r2.resnet_v2_50
assert arg_scope is slim.arg_scope and assign_from_checkpoint_fn is slim.assign_from_checkpoint_fn
assert tf.contrib.learn.datasets.mnist.read_data_sets is read_data_sets
assert tf.__version__ == tf.VERSION and tf.python.ops is tensorflow.python.ops
assert (hasattr(tf, "contrib"), hasattr(tf.contrib, "learn"), hasattr(tf.contrib, "crf")) == (True, True, False)
graph_util.convert_variables_to_constants, pywrap_tensorflow.NewCheckpointReader
outputs, state = tf.nn.dynamic_rnn(rnn.BasicLSTMCell(4), tf.zeros([2, 3, 5]), dtype=tf.float32)
v = tf.get_variable("v", [3], initializer=tf.ones_initializer())
loss = tf.reduce_sum(tf.nn.softmax(v, dim=0), keep_dims=True)
from local_neighbour import number
with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    print(sess.run("v:0"), number, __name__, __file__, sys.argv, sys.path[0], sep="|")
sys.exit(7)
"""


def test_a_script_is_main_and_finds_what_it_imports(tmp_path):
    script = tmp_path / "old.py"
    script.write_text(IMPORTS)
    (tmp_path / "local_neighbour.py").write_text("import tensorflow as tf\nnumber = tf.contrib.slim.__name__\n")
    done = run_legacy(script, "--flag", "x", code=7)
    printed = ["[1. 1. 1.]", "tensorflow.contrib.slim", "__main__", script, [str(script), "--flag", "x"], tmp_path]
    assert done.stdout.strip() == "|".join(map(str, printed))


OWN = """
import config, files, nets, elsewhere
print(config.name, files.name, nets.name, elsewhere.name)
"""


def test_a_scripts_own_modules_come_before_the_projects(tmp_path):
    """Run as in docs/migrating.md, with another directory on PYTHONPATH, before or after the project."""
    home, library = tmp_path / "old", tmp_path / "library"
    for place in (home / "nets", library):
        place.mkdir(parents=True)
    (home / "old.py").write_text(OWN)
    own = (home / "config.py", home / "nets" / "__init__.py", library / "files.py", library / "elsewhere.py")
    for path in own:
        path.write_text(f"name = {path.parent.name + '/' + path.name!r}\n")
    for paths in ([ROOT, library], [library, ROOT]):
        done = subprocess.run(
            [sys.executable, "-m", "tfcompat", "old.py"],
            cwd=home,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["old/config.py", "library/files.py", "nets/__init__.py", "library/elsewhere.py"]


SPAWNING = """
import multiprocessing, sys
import tensorflow.contrib.slim as slim
def name(queue):
    queue.put(slim.__name__)
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    queue = context.Queue()
    process = context.Process(target=name, args=(queue,))
    process.start()
    process.join()
    print(process.exitcode, queue.get(timeout=1))
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_that_a_script_starts_have_the_old_modules(method, tmp_path):
    script = tmp_path / "old.py"
    script.write_text(SPAWNING)
    assert run_legacy(script, method).stdout.split() == ["0", "tensorflow.contrib.slim"]


REMOVED = """
import tensorflow as tf
for code in {codes!r}:
    try:
        exec(code)
    except (AttributeError, ImportError) as error:
        print(type(error).__name__, error)
    else:
        print("is there", code)
def first(n):
    return list(xrange(n))
try:
    first(3)
except NameError:
    import sys
    sys.excepthook(*sys.exc_info())
import of_python_2
"""
NAMED = {  # code to the error's type, the name in it, and the alternative in it
    "tf.estimator.Estimator": ("AttributeError", "tf.estimator", "MonitoredTrainingSession"),
    "from tensorflow import estimator": ("ImportError", "tf.estimator", "MonitoredTrainingSession"),
    "from tensorflow.contrib import crf": ("ImportError", "tf.contrib.crf", "tf_slim does not have"),
    "tf.contrib.learn.DNNClassifier": ("AttributeError", "tf.contrib.learn.DNNClassifier", "scikit-learn"),
    "import tensorflow.contrib.learn.python.learn.estimators": (
        "ImportError", "tf.contrib.learn.python.learn.estimators", "scikit-learn",
    ),
    "from tensorflow.contrib.layers import embedding_column": (
        "ImportError", "tf.contrib.layers.embedding_column", "tf.feature_column",
    ),
    "from tensorflow.contrib import quantize; quantize.create_eval_graph": (
        "AttributeError", "tf.contrib.quantize.create_eval_graph", "TFLite",
    ),
    "from tensorflow.contrib.slim.nets import mobilenet_v1": (
        "ImportError", "tf.contrib.slim.nets.mobilenet_v1", "tf_slim does not have",
    ),
    "from tensorflow.examples.tutorials.mnist import mnist": (
        "ImportError", "tf.examples.tutorials.mnist.mnist", "input_data",
    ),
    "tf.pack": ("AttributeError", "tf.pack", "tf.stack"),
    "tf.no_such": ("AttributeError", "tf.no_such", "tensorflow.compat.v1"),
}  # fmt: skip


def test_the_error_for_a_removed_name_has_an_alternative(tmp_path):
    script, neighbour = tmp_path / "old.py", tmp_path / "of_python_2.py"
    script.write_text(REMOVED.format(codes=list(NAMED)))
    neighbour.write_text("import tensorflow as tf\nprint tf.__version__\n")
    done = run_legacy(script, code=1)
    for line, (kind, name, instead) in zip(done.stdout.splitlines(), NAMED.values(), strict=True):
        assert line.startswith(f"{kind} {name} is not in TensorFlow 2.")
        assert instead in line
    *report, hint, syntax = done.stderr[done.stderr.index("Traceback") :].splitlines()
    places = [f'  File "{script}", line 13, in <module>', f'  File "{script}", line 11, in first']
    assert [line for line in report if line.startswith("  File")] == places  # no frame of this project
    assert hint.startswith("hint: xrange was Python 2's; use range")
    assert syntax.startswith(f"error: {neighbour}, line 2: Missing parentheses in call to 'print'")
    assert f"python -m fissix -w {neighbour}" in syntax


HINTS = {  # code of 2017 to a part of its hint
    "import collections; collections.Iterable": "use collections.abc",
    "from collections import Mapping": "use collections.abc",
    "import urllib; urllib.urlretrieve": "urllib.request.urlretrieve",
    "import itertools; itertools.izip": "use zip",
    "import Queue": "use queue",
    "(i for i in 'ab').next()": "next(iterator)",
    "'text'.decode('utf8')": "bytes.decode",
    "1 / 0": None,
    "{}.keys()[0]": "list(…)",
    "import random; random.shuffle(range(3))": "list(…)",
    "len(map(int, '12'))": "list(…)",
    "import time; time.clock()": "time.perf_counter",
    "from scipy.misc import imread": "PIL.Image.open",
    "from scipy.misc import imresize": "resize((width, height))",
    "import scipy; scipy.misc.toimage": "PIL.Image",
    "from sklearn.cross_validation import train_test_split": "sklearn.model_selection",
    "np.ones(2).tostring()": "tobytes",
    "np.array([[1], [1, 2]])": "dtype=object",
    "np.load(io.BytesIO(npy)).item()": "allow_pickle=True, encoding='latin1'",
    "pickle.loads(b\"S'\\xff'\\n.\")": "encoding='latin1'",
    "pickle.load(io.StringIO('x'))": "'rb'",
    "tf.train.SummaryWriter": "tf.summary.FileWriter",
    "tf.image.per_image_whitening": "per_image_standardization",
    "tf.train.BytesList(value=['a'])": "text.encode()",
    "tf.app.flags.DEFINE_integer('steps', 1e4, '')": "96//2",
    "[1, 2]['a']": None,
    "np.file": None,
    "from itertools import imap": "use map",
    "import sys; sys.maxint": "sys.maxsize",
    "{}.has_key(1)": "`in`",
    "raw_input()": "use input",
    **dict.fromkeys((
        "[0][2/2]", "list(range(4/2))", "np.zeros(4/2)", "np.arange(9)[4/2]", "np.arange(9)[:4/2]",
        "np.random.choice(9, 4/2)", "tf.get_variable('w', [11, 11, 96/2, 256])", "tf.truncated_normal([96/2, 3])",
        "tf.placeholder(tf.float32, [None, 96/2])", "tf.reshape(tf.zeros([4]), [4/2, 2])", "tf.zeros([4])[:4/2]",
        "tf.split(tf.zeros([4]), 4/2, 0)", "tf.image.resize_images(tf.zeros([1, 8, 8, 3]), [8/2, 8/2])",
        "slim.conv2d(tf.zeros([1, 8, 8, 3]), 4, [6/2, 3])", "slim.max_pool2d(tf.zeros([1, 8, 8, 3]), 4/2)",
        "slim.conv2d(tf.zeros([1, 8, 8, 3]), 4, 3, stride=4/2)", "slim.fully_connected(tf.zeros([1, 4]), 8/2)",
        "tf.data.Dataset.range(9).batch(8/2)", "tf.argmax([1, 2], 0/2)", "tf.one_hot([1], 4/2)",
    ), "write 96//2"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:scipy.misc", "ignore:list indices")
@pytest.mark.parametrize(("code", "part"), HINTS.items())
def test_the_hint_for_an_error_of_an_old_script(code, part):
    pickled = io.BytesIO()
    np.save(pickled, {"conv1": [np.ones(3)]})
    names = {"np": np, "tf": tf, "slim": slim, "io": io, "pickle": pickle, "npy": pickled.getvalue()}
    with tf.Graph().as_default(), pytest.raises(Exception) as raised:
        exec(code, names)
    hint = hints.hint(raised.value)
    assert hint is None if part is None else part in hint


RESTORED = """
import pickle, sys
import numpy as np, tensorflow as tf
from tensorflow.contrib.data import Dataset, batch_and_drop_remainder
assert (np.int, np.float, np.object, np.product([2, 3]), np.asscalar(np.ones(1))) == (int, float, object, 6, 1.0)
assert np.in1d([[1, 2]], [2]).tolist() == [False, True] and np.NINF == -np.inf and np.float_ is np.float64
assert np.reshape(np.ones(4), newshape=(2, 2)).shape == np.reshape(np.ones(4), (2, 2)).shape == (2, 2)
assert np.fromstring(b"ab", np.uint8).tolist() == [97, 98] and np.fromstring("1 2", sep=" ").tolist() == [1, 2]
assert np.histogram([1, 2, 2], 2, normed=True)[0].tolist() == np.histogram([1, 2, 2], 2, density=True)[0].tolist()

squares = Dataset.range(5).map(lambda x: x * x, num_threads=2, output_buffer_size=10)
pairs = squares.apply(batch_and_drop_remainder(2)).make_one_shot_iterator().get_next()
with tf.Session() as session:
    assert [session.run(pairs).tolist() for _ in range(2)] == [[0, 1], [4, 9]]
    try:
        session.run(pairs)
    except tf.errors.OutOfRangeError:
        print("two batches")

for call in ("softmax_cross_entropy_with_logits", "sigmoid_cross_entropy_with_logits"):
    function = getattr(tf.nn, call)
    try:
        function(tf.zeros([1, 2]), tf.zeros([1, 2]))
    except ValueError as error:
        print(error)
    function(labels=tf.zeros([1, 2]), logits=tf.zeros([1, 2]))
try:
    tf.concat(1, [tf.zeros([1, 2])] * 2)
except ValueError as error:
    print(error)
assert tf.concat([tf.zeros([1, 2])] * 2, 1).shape == [1, 4]

flags = tf.app.flags
flags.DEFINE_boolean("train", True, "")
flags.DEFINE_boolean("crop", False, "")
flags.DEFINE_integer("batch_size", 3, "")
FLAGS = flags.FLAGS
FLAGS._parse_flags()
print({name: str(value) for name, value in FLAGS.__flags.items() if name in ("train", "crop", "batch_size")})
assert FLAGS.__dict__["__flags"] is FLAGS.__flags and FLAGS.__parsed
tf.app.run(lambda argv: print(FLAGS.train, FLAGS.crop, FLAGS.batch_size, argv[1:]))
"""


def test_old_names_and_arguments_work_as_they_did(tmp_path):
    script = tmp_path / "old.py"
    script.write_text(RESTORED)
    done = run_legacy(script, "--train", "False", "--crop", "true", "--batch_size", "7")
    order = "TensorFlow 1.0 changed the order of tf.{0}'s arguments; write tf.{0}({1})"
    assert done.stdout.splitlines() == [
        "two batches",
        order.format("nn.softmax_cross_entropy_with_logits", "labels=…, logits=…"),
        order.format("nn.sigmoid_cross_entropy_with_logits", "labels=…, logits=…"),
        order.format("concat", "values, axis"),
        "{'train': 'False', 'crop': 'true', 'batch_size': '7'}".replace("true", "True"),
        "False True 7 []",
    ]


def test_a_word_after_a_boolean_flag_is_its_value():
    line = "x --train False --name true -crop 1 --train --no --train -- --train false"
    assert restored.joined(line.split(), {"train", "crop"}.__contains__) == [
        "x", "--train=False", "--name", "true", "-crop=1", "--train", "--no", "--train", "--", "--train", "false",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (b"def f():\n    if 1:\n\treturn 2\n", "expand -i"),
        (b"x = 'caf\xe9'\n", "iconv -f latin1"),
        (b"print 'x'\n", "fissix"),
    ],
)
def test_the_remedy_for_a_file_that_does_not_compile(tmp_path, content, remedy):
    path = tmp_path / "old.py"
    with pytest.raises(SyntaxError) as raised:
        compile(content, str(path), "exec", dont_inherit=True)
    assert remedy in hints.syntax_hint(raised.value)
    assert str(path) in hints.syntax_hint(raised.value)


def test_every_place_of_an_old_name_exists():
    for place in {*legacy.MOVED.values(), *(home for homes in legacy.HOMES.values() for home in homes)}:
        legacy._at(place)


def test_usage(tmp_path, monkeypatch, capsys):
    missing = tmp_path / "missing.py"
    for arguments, message in (
        ([], "usage: python -m tfcompat OLD"),
        ([str(missing)], f"error: {missing} cannot be read"),
    ):
        monkeypatch.setattr(sys, "argv", ["tfcompat", *arguments])
        with pytest.raises(SystemExit) as raised:
            main()
        assert raised.value.code == 2
        assert capsys.readouterr().err.startswith(message)


@pytest.fixture
def small_mnist(tmp_path):
    rng = np.random.RandomState(0)
    for name in mnist.FILES:
        write_idx(tmp_path / name, rng.randint(0, 10, (10, 28, 28) if "idx3" in name else 10))
    return tmp_path


def test_an_mnist_batch_can_span_two_epochs(small_mnist):
    data = mnist.read_data_sets(str(small_mnist), one_hot=True, validation_size=3, seed=1)
    assert [part.num_examples for part in data] == [7, 3, 10]
    assert (data.train.images.shape, data.train.images.dtype, data.train.labels.shape) == (
        (7, 784),
        np.float32,
        (7, 10),
    )
    original = {image.tobytes() for image in data.train.images}
    batches = [data.train.next_batch(4)[0] for _ in range(3)]
    assert data.train.epochs_completed == 1
    seen = np.concatenate(batches)
    assert {image.tobytes() for image in seen[:7]} == original
    assert len({image.tobytes() for image in seen[7:]} & original) == 5
    assert data.train.next_batch(4, shuffle=False)[0].shape == (4, 784)
    images, labels = data.validation.next_batch(2, shuffle=False)
    np.testing.assert_array_equal(images, data.validation.images[:2])
    np.testing.assert_array_equal(labels.sum(1), [1, 1])


def test_mnist_as_bytes_and_numbers(small_mnist):
    data = mnist.read_data_sets(str(small_mnist), dtype=tf.uint8, reshape=False, validation_size=0)
    assert (data.train.images.shape, data.train.images.dtype) == ((10, 28, 28, 1), np.uint8)
    assert (data.test.labels.shape, data.test.labels.max() <= 9) == ((10,), True)
    with pytest.raises(ValueError, match="validation_size is 11; there are 10"):
        mnist.read_data_sets(str(small_mnist), validation_size=11)


def test_missing_mnist_files_are_downloaded(small_mnist, tmp_path_factory, monkeypatch):
    assert (mnist.URL, mnist.FILES) == (MNIST_URL, MNIST_FILES)
    monkeypatch.setenv("NO_PROXY", "localhost")
    into = tmp_path_factory.mktemp("downloaded")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(small_mnist))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("localhost", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://localhost:{server.server_address[1]}/"
        data = mnist.read_data_sets(str(into), validation_size=1, source_url=url)
        assert data.test.num_examples == 10
        assert sorted(os.listdir(into)) == sorted(mnist.FILES)
        os.remove(into / "t10k-labels-idx1-ubyte.gz")
        with pytest.raises(OSError, match=r"t10k-labels-idx1-ubyte.gz is missing, and http.* could not be downloaded"):
            mnist.read_data_sets(str(into), validation_size=1, source_url=url + "nowhere/")
        server.shutdown()


def test_a_damaged_mnist_file_is_an_error(small_mnist):
    path = small_mnist / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"train-images.* is damaged"):
        mnist.read_data_sets(str(small_mnist))
    write_idx(path, np.zeros(3))
    with pytest.raises(ValueError, match=r"train-images.* is not a complete IDX file of unsigned bytes with rank 3"):
        mnist.read_data_sets(str(small_mnist))


def test_an_mnist_file_that_unpacks_to_more_than_it_says_is_not_read_on(small_mnist, monkeypatch):
    path = small_mnist / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(struct.pack(">i3i", 2051, 1, 28, 28) + bytes(10**7)))
    most = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, size=-1: most.append(size) or read(self, size))
    with pytest.raises(ValueError, match=r"train-images.* is not a complete IDX file"):
        mnist.read_data_sets(str(small_mnist))
    assert 0 < max(most) <= 28 * 28 + 1
    assert min(most) > 0
    path.write_bytes(gzip.compress(struct.pack(">i3i", 2051, 2**20, 2**10, 2**10)))
    with pytest.raises(ValueError, match=r"train-images.* is not a complete IDX file"):
        mnist.read_data_sets(str(small_mnist))
