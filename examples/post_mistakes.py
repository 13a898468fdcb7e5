"""Common mistakes in TensorFlow 1 posts: each is trained beside the correct code, with the same seeds.

    python examples/post_mistakes.py                                      # all of them, 5 seeds: a few minutes
    python examples/post_mistakes.py softmax_twice unflattened --seeds 3

The data are scikit-learn's handwritten digits (8×8, 1,437 for training and 360 for testing): no download. Each function
in MISTAKES is one mistake; docs/what-the-posts-got-wrong.md explains how to find it in your own code. A figure is the
median over the seeds, with the lowest and the highest. Accuracies are in percent of the test pictures.
"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tfcompat import batch_norm, slim, tf

BATCH, CLASSES = 64, 10
ONE_THREAD = tf.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
Pictures = tuple[np.ndarray, np.ndarray]  # float32 [N, 8, 8, 1] from 0 to 255, and int64 labels [N]
Measures = dict[str, tuple[float, float]]  # name of a figure: its value for the correct and for the wrong code


def digits() -> tuple[Pictures, Pictures]:
    """Training and test pictures, the same for every seed."""
    images, labels = load_digits(return_X_y=True)
    images = np.float32(np.round(images.reshape(-1, 8, 8, 1) * 255 / 16))
    parts = train_test_split(images, labels, test_size=360, stratify=labels, random_state=0)
    return parts[::2], parts[1::2]


TRAIN, TEST = digits()


def by_class(pictures: Pictures) -> Pictures:
    """The same pictures, all zeros first, all nines last."""
    order = np.argsort(pictures[1], kind="stable")
    return pictures[0][order], pictures[1][order]


# The correct code. Each mistake below replaces one of these parts.


def features(images: tf.Tensor, is_training: bool, norm: Callable | None = batch_norm) -> tf.Tensor:
    """Two convolutions with pools: [N, H/4, W/4, 32]."""
    settings = {"is_training": is_training, "decay": 0.9} if norm else None
    with slim.arg_scope([slim.conv2d], normalizer_fn=norm, normalizer_params=settings):
        net = slim.max_pool2d(slim.conv2d(images, 16, 3, scope="conv1"), 2, scope="pool1")
        return slim.max_pool2d(slim.conv2d(net, 32, 3, scope="conv2"), 2, scope="pool2")


def head(net: tf.Tensor) -> tf.Tensor:
    """A linear layer over the last axis, 10 outputs."""
    return slim.fully_connected(net, CLASSES, activation_fn=None, scope="head")


def logits_of(
    images: tf.Tensor, is_training: bool, norm: Callable | None = batch_norm, scale: float = 1 / 255
) -> tf.Tensor:
    """The net: pictures [N, H, W, 1] to logits [N, 10]."""
    return head(slim.flatten(features(images * scale, is_training, norm)))


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """The loss, in nats."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))


def minimize(loss: tf.Tensor, rule: Callable = tf.train.AdamOptimizer, rate: float = 0.003) -> tf.Operation:
    """The train op: batch norm's moving averages, then a step."""
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        return rule(rate).minimize(loss)


def batches(seed: int, steps: int) -> Iterator[Pictures]:
    """Random training batches."""
    random = np.random.default_rng(seed)
    for _ in range(steps):
        rows = random.choice(len(TRAIN[1]), BATCH, replace=False)
        yield TRAIN[0][rows], TRAIN[1][rows]


@contextlib.contextmanager
def trained(
    seed: int,
    data: Iterable[Pictures],
    net: Callable = logits_of,
    loss_of: Callable = cross_entropy,
    train_op: Callable = minimize,
) -> Iterator[tuple[tf.Session, tf.Tensor, tf.Tensor, float]]:
    """Trains a net(images, is_training); yields session, placeholder for pictures, evaluation logits, last loss."""
    with (
        tf.Graph().as_default(),
        tf.variable_scope("net", reuse=tf.AUTO_REUSE),
    ):  # the net is built twice on the same variables
        tf.set_random_seed(seed)
        x, y = tf.placeholder(tf.float32, [None, 8, 8, 1]), tf.placeholder(tf.int64, [None])
        loss = loss_of(net(x, is_training=True), y)
        step = train_op(loss)
        logits = net(x, is_training=False)
        with tf.Session(config=ONE_THREAD) as session:
            session.run(tf.global_variables_initializer())
            for images, labels in data:
                _, last = session.run([step, loss], {x: images, y: labels})
            yield session, x, logits, float(last)


def accuracy(session: tf.Session, logits: tf.Tensor, x: tf.Tensor, test: Pictures = TEST, size: int = 360) -> float:
    """Percent of the test pictures with a correct prediction, in batches of `size`; each counts once."""
    parts = [session.run(logits, {x: test[0][i : i + size]}) for i in range(0, len(test[1]), size)]
    return 100 * float(np.mean(np.concatenate(parts).reshape(-1, CLASSES).argmax(1) == test[1]))


def compared(setting: str, seed: int, steps: int, right: dict, wrong: dict) -> Measures:
    """Accuracy and last training loss of two trainings. right and wrong are the arguments for `trained`."""
    found = []
    for parts in (right, wrong):
        with trained(seed, batches(seed, steps), **parts) as (session, x, logits, last):
            found.append((accuracy(session, logits, x), last))
    return dict(zip([f"{setting}: accuracy", f"{setting}: last training loss"], zip(*found, strict=True), strict=True))


# The mistakes. Each trains for `steps` steps with one seed.


def softmax_twice(seed: int, steps: int) -> Measures:
    """The net ends in a softmax, and the loss treats its probabilities as logits."""

    def on_probabilities(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return cross_entropy(tf.nn.softmax(logits), labels)

    plain, momentum = partial(logits_of, norm=None), partial(tf.train.MomentumOptimizer, momentum=0.9)
    settings = {
        "momentum": {"net": plain, "train_op": partial(minimize, rule=momentum, rate=0.01)},
        "Adam": {"net": plain},
        "Adam, pictures 0 to 255": {"net": partial(plain, scale=1.0)},
        "Adam, batch norm": {},
    }
    measures = {}
    for setting, parts in settings.items():
        measures |= compared(setting, seed, steps, parts, {**parts, "loss_of": on_probabilities})
    return measures


def batch_norm_updates(seed: int, steps: int) -> Measures:
    """The train op does not run UPDATE_OPS, so batch norm's moving averages stay at 0 and 1."""
    found = []
    for train_op in (minimize, lambda loss: tf.train.AdamOptimizer(0.003).minimize(loss)):
        with trained(seed, batches(seed, steps), train_op=train_op) as (session, x, logits, _):
            found.append((accuracy(session, logits, x), accuracy(session, logits_of(x, True), x)))
    right, wrong = found
    return {"is_training=False": (right[0], wrong[0]), "is_training=True": (right[1], wrong[1])}


def batch_statistics(seed: int, steps: int) -> Measures:
    """The evaluation runs with is_training=True: a prediction depends on the other pictures in the batch."""

    def dense_norm(images: tf.Tensor, is_training: bool) -> tf.Tensor:
        settings = {"is_training": is_training, "decay": 0.9}
        net = slim.flatten(features(images / 255, is_training))
        return head(slim.fully_connected(net, 64, normalizer_fn=batch_norm, normalizer_params=settings, scope="dense"))

    measures = {}
    for kind, net in (("convolutions", logits_of), ("and a dense layer", dense_norm)):
        with trained(seed, batches(seed, steps), net) as (session, x, logits, _):
            by_batch = net(x, is_training=True)
            for order, size in (("mixed", 360), ("mixed", 36), ("mixed", 1), ("by class", 360), ("by class", 36)):
                test = TEST if order == "mixed" else by_class(TEST)
                figures = (accuracy(session, each, x, test, size) for each in (logits, by_batch))
                measures[f"{kind}: {order}, batch {size}"] = tuple(figures)
    return measures


def bare_except(seed: int, steps: int) -> Measures:
    """A bare except, meant for the end of the data, also catches the error of a file that cannot be decoded."""
    files = [cv2.imencode(".png", np.uint8(image))[1].tobytes() for image in TRAIN[0]]
    broken = int(np.random.default_rng(seed).integers(len(files)))
    files[broken] = files[broken][: len(files[broken]) // 2]

    def run(rows: list[int], end_of_data: type[Exception]) -> tuple[int, float]:
        with tf.Graph().as_default(), tf.variable_scope("net", reuse=tf.AUTO_REUSE):
            tf.set_random_seed(seed)
            data = tf.data.Dataset.from_tensor_slices(([files[row] for row in rows], TRAIN[1][rows]))
            data = data.shuffle(len(rows), seed=seed).repeat().take(steps * BATCH)
            data = data.map(lambda png, label: (tf.cast(tf.io.decode_png(png, 1), tf.float32), label)).batch(BATCH)
            images, labels = tf.data.make_one_shot_iterator(data).get_next()
            images.set_shape([None, 8, 8, 1])
            step = minimize(cross_entropy(logits_of(images, is_training=True), labels))
            x = tf.placeholder(tf.float32, [None, 8, 8, 1])
            logits, saver, done = logits_of(x, is_training=False), tf.train.Saver(), 0
            with tempfile.TemporaryDirectory() as place, tf.Session(config=ONE_THREAD) as session:
                session.run(tf.global_variables_initializer())
                try:
                    while True:
                        session.run(step)
                        done += 1
                except end_of_data:
                    saver.save(session, f"{place}/model.ckpt")
                saver.restore(session, f"{place}/model.ckpt")
                return done, accuracy(session, logits, x)

    rows = list(range(len(files)))
    with contextlib.suppress(tf.errors.InvalidArgumentError):
        run(rows, tf.errors.OutOfRangeError)  # the correct code stops here; the file is then repaired or removed
        raise AssertionError("the broken file raised no error")
    right = run(rows[:broken] + rows[broken + 1 :], tf.errors.OutOfRangeError)
    wrong = run(rows, Exception)  # a bare `except:` also catches Ctrl-C
    return {"steps": (right[0], wrong[0]), "accuracy of the checkpoint": (right[1], wrong[1])}


def unflattened(seed: int, steps: int) -> Measures:
    """fully_connected on [N, H, W, C] is a 1×1 convolution: its logits are [N, H, W, 10], but the labels [N]."""

    def averaged(images: tf.Tensor, is_training: bool) -> tf.Tensor:
        return tf.reduce_mean(head(features(images / 255, is_training)), [1, 2])  # so that the shapes fit

    def pooled(images: tf.Tensor, is_training: bool, keepdims: bool) -> tf.Tensor:
        return head(tf.reduce_mean(features(images / 255, is_training), [1, 2], keepdims=keepdims))

    def by_hand(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        # [N, 10] * [N, 10]; with logits [N, 1, 1, 10] it is every picture with every label: [N, 1, N, 10]
        return -tf.reduce_mean(tf.reduce_sum(tf.one_hot(labels, CLASSES) * tf.nn.log_softmax(logits), -1))

    pool, keep = ({"net": partial(pooled, keepdims=keep), "loss_of": by_hand} for keep in (False, True))
    return {
        **compared("averaged over places", seed, steps, {}, {"net": averaged}),
        **compared("pooled to [N, 1, 1, 32]", seed, steps, pool, keep),
    }


def other_preprocessing(seed: int, steps: int) -> Measures:
    """The preprocessing in prediction differs from that in training."""
    mean, resize = TRAIN[0].mean(), tf.compat.v2.image.resize

    def net(images: tf.Tensor, is_training: bool) -> tf.Tensor:
        return logits_of(resize(images, [16, 16]) - mean, is_training)

    with trained(seed, batches(seed, steps), net) as (session, x, logits, _):
        ways = {
            "0 to 255 instead of 0 to 1": logits_of(resize(x, [16, 16]) - mean, False, scale=1.0),
            "divided by 255 twice": logits_of(resize(x, [16, 16]) - mean, False, scale=1 / 255**2),
            "mean not subtracted": logits_of(resize(x, [16, 16]), False),
            "dark on white": net(255 - x, is_training=False),
            "resized by tf.image.resize_bilinear of v1": logits_of(tf.image.resize_bilinear(x, [16, 16]) - mean, False),
            "resized to the nearest pixel": logits_of(resize(x, [16, 16], "nearest") - mean, False),
        }
        right = accuracy(session, logits, x)
        return {way: (right, accuracy(session, wrong, x)) for way, wrong in ways.items()}


def small_buffer(seed: int, steps: int) -> Measures:
    """Records are sorted by class, and the shuffle buffer is smaller than a class."""
    found = {}
    for buffer in (len(TRAIN[1]), 500, 100):
        with tf.Graph().as_default(), tf.Session() as session:
            data = tf.data.Dataset.from_tensor_slices(by_class(TRAIN)).shuffle(buffer, seed).repeat().batch(BATCH)
            batch = tf.data.make_one_shot_iterator(data).get_next()
            sorted_batches = [session.run(batch) for _ in range(steps)]
        with trained(seed, sorted_batches) as (session, x, logits, _):
            found[buffer] = accuracy(session, logits, x)
    right = found.pop(len(TRAIN[1]))
    return {f"buffer of {buffer}": (right, wrong) for buffer, wrong in found.items()}


MISTAKES = {mistake.__name__: mistake for mistake in (
    softmax_twice, batch_norm_updates, batch_statistics, bare_except,
    unflattened, other_preprocessing, small_buffer,
)}  # fmt: skip


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mistakes", nargs="*", metavar="MISTAKE", help=f"of {', '.join(MISTAKES)}; default: all")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="0 to N - 1 (default: 5)")
    parser.add_argument("--steps", type=int, default=300, metavar="N", help="of each training (default: 300)")
    args = parser.parse_args()
    if unknown := [name for name in args.mistakes if name not in MISTAKES]:
        parser.error(f"unknown mistake '{unknown[0]}'; known are {', '.join(MISTAKES)}")
    if args.seeds < 1 or args.steps < 23:
        parser.error("--seeds is at least 1, --steps at least 23: a pass over the pictures")
    for name in args.mistakes or MISTAKES:
        print(f"\n{name:<50}{'right':>25}{'wrong':>25}", flush=True)
        runs = [MISTAKES[name](seed, args.steps) for seed in range(args.seeds)]
        for measure in runs[0]:
            sides = zip(*(run[measure] for run in runs), strict=True)
            cells = [f"{np.median(side):.2f} ({min(side):.2f} to {max(side):.2f})" for side in sides]
            print(f"  {measure:<48}{cells[0]:>25}{cells[1]:>25}", flush=True)


if __name__ == "__main__":
    main()
