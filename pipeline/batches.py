"""The tf.data graph: batches of pictures whose order is a function of (seed, epoch, position).

The index of record offsets is shuffled anew each epoch, records are read by offset, then decoded in parallel. Nothing
is buffered but a few batches, so starting at step N costs what starting at step 0 does, and nothing needs saving.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from errors import UserError
from pipeline.dataset import FEATURES, Index
from pipeline.pictures import Picture
from pipeline.preprocess import CENTER_CROPPED, PREPROCESSINGS
from pipeline.statistics import Statistics
from tfcompat import tf

ORDER, AUGMENTATION, SUBSET = range(3)  # folded into keys: two draws with one seed are identical
NEEDED = ("image/encoded", "image/class/label")
BLOCK = 4096  # records whose file names are gathered at a time: for each one it is slow, for all it takes 300 MB
READ_BUFFER_BYTES = 64 * 1024


class Batches(NamedTuple):
    """Tensors of one batch, and what `start` needs."""

    images: tf.Tensor  # float32 [N, size, size, C], preprocessed; [N * crops, …] where a picture gives several
    labels: tf.Tensor  # int64 [N]
    rows: tf.Tensor  # int64 [N], index of each example in its split
    examples: int  # in an epoch
    batch_size: int  # of all workers
    iterator: "tf.data.Iterator"
    start_position: tf.Tensor
    feed: dict

    def start(self, session: tf.Session, step: int = 0) -> None:
        """Puts the iterator before the batch of `step`. Evaluation starts at 0, training anywhere."""
        session.run(self.iterator.initializer, {**self.feed, self.start_position: step * self.batch_size})


def first_shuffled(index: Index, examples: int | None, seed: int) -> Index:
    """The first `examples` of the shuffled index, all of it for None: smaller training sets contain one another."""
    if examples is None or examples >= len(index.offsets):
        return index
    return index.take(np.random.default_rng([seed, SUBSET]).permutation(len(index.offsets))[:examples])


def training_batches(
    index: Index,
    channels: int,
    preprocessing: str,
    size: int,
    batch_size: int,
    seed: int,
    statistics: Statistics | None = None,
    workers: int = 1,
    worker: int = 0,
    augment: bool = True,
) -> Batches:
    """Endless batches, each epoch in an order of its own; a batch may span two epochs.

    Args:
        index: records of the training split.
        channels: of the decoded pictures.
        preprocessing: key of PREPROCESSINGS.
        size: height and width that preprocessing gives.
        batch_size: pictures per step, of all workers together.
        seed: of order and augmentation, non-negative.
        statistics: of the training pictures, for the families that need them.
        workers: how many share a batch. They see, together, what one alone would.
        worker: which of them this is, from 0; it gets the part at that place of each batch.
        augment: whether preprocessing is that of training; else it is that of evaluation.
    """
    if workers < 1 or not 0 <= worker < workers or batch_size % workers:
        raise UserError(f"a batch of {batch_size} cannot be shared by {workers} workers, of which this is {worker}")

    family = partial(PREPROCESSINGS[preprocessing], size=size, statistics=statistics or Statistics())
    return _batches(
        index,
        channels,
        batch_size,
        epochs=tf.int64.max,
        rows=lambda epoch, examples: _shuffled(examples, seed, epoch),
        key=lambda epoch: _key(seed, AUGMENTATION, epoch),
        preprocess=lambda picture, key, position: family(
            picture, key=tf.random.fold_in(key, position) if augment else None
        ),
        share=(worker * batch_size // workers, (worker + 1) * batch_size // workers),
    )


def _key(seed: int, purpose: int, epoch: tf.Tensor) -> tf.Tensor:
    return tf.random.fold_in(tf.random.fold_in([seed, 0], purpose), epoch)


def _shuffled(examples: "int | tf.Tensor", seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """The rows of an epoch in its order, int64 [examples]."""
    rows = tf.range(tf.cast(examples, tf.int64))
    return tf.random.experimental.stateless_shuffle(rows, _key(seed, ORDER, epoch))


def training_rows(examples: int, seed: int, position: int, count: int) -> np.ndarray:
    """The rows that training_batches reads from a position on, int64 [count]; step N begins at N * batch_size."""
    first, last = position // examples, (position + count - 1) // examples
    with tf.Graph().as_default(), tf.Session() as session:
        # int64 as in the graph of batches: a key folded with an int32 is another.
        numbers = [tf.constant(epoch, tf.int64) for epoch in range(first, last + 1)]
        epochs = session.run([_shuffled(examples, seed, epoch) for epoch in numbers])
    return np.concatenate(epochs)[position - first * examples :][:count]


def evaluation_batches(
    index: Index,
    channels: int,
    preprocessing: str,
    size: int,
    batch_size: int,
    statistics: Statistics | None = None,
    crops: int = 1,
) -> Batches:
    """Every record once, in the order of the shards, without augmentation; the last batch may be smaller.

    Arguments as for training_batches, and crops: 10 gives ten pictures for each, those of ten_crops, one after another.
    Raises UserError where the family has no such crops.
    """
    family = partial(PREPROCESSINGS[preprocessing], size=size, key=None, statistics=statistics or Statistics())
    if crops != 1:
        if crops != 10 or preprocessing not in CENTER_CROPPED:
            raise UserError(
                f"--crops {crops} with --preprocessing {preprocessing}: 10 crops are for {', '.join(CENTER_CROPPED)}"
            )
        family = partial(family, crops=crops)
    batches = _batches(
        index,
        channels,
        batch_size,
        epochs=1,
        rows=lambda epoch, examples: tf.range(examples),
        key=lambda epoch: tf.zeros([2], tf.int32),
        preprocess=lambda picture, key, position: family(picture),
        share=(0, batch_size),
    )
    if crops == 1:
        return batches
    return batches._replace(images=tf.reshape(batches.images, [-1, *batches.images.shape[2:]]))


def _batches(
    index: Index,
    channels: int,
    batch_size: int,
    epochs: int,
    rows: Callable,
    key: Callable,
    preprocess: Callable,
    share: tuple[int, int],
) -> Batches:
    # Placeholders, since constants of a million records would go into the graph and every event file.
    files = tf.placeholder(tf.string, [None], "index/files")
    shards = tf.placeholder(tf.int32, [None], "index/shards")
    offsets = tf.placeholder(tf.int64, [None], "index/offsets")
    start_position = tf.placeholder(tf.int64, [], "index/start_position")
    examples = tf.shape(offsets, out_type=tf.int64)[0]
    start_epoch = start_position // examples

    def places_of(epoch: tf.Tensor) -> tf.data.Dataset:
        order = rows(epoch, examples)
        key_of_epoch = key(epoch)

        def block_of(begin: tf.Tensor) -> tf.data.Dataset:
            block = order[begin : begin + BLOCK]
            size = tf.shape(block, out_type=tf.int64)[0]
            place = tf.broadcast_to(key_of_epoch, [size, 2]), tf.range(begin, begin + size), block
            where = tf.gather(files, tf.gather(shards, block)), tf.gather(offsets, block)
            return tf.data.Dataset.from_tensor_slices((place, where))

        first = tf.where(tf.equal(epoch, start_epoch), start_position % examples, 0)
        return tf.data.Dataset.range(first, examples, BLOCK).flat_map(block_of)

    def shared(*places: tuple) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(lambda part: part[share[0] : share[1]], places))

    def read(place: tuple, where: tuple[tf.Tensor, tf.Tensor]) -> tf.data.Dataset:
        file, offset = where
        record = tf.raw_ops.TFRecordDatasetV2(
            filenames=[file], compression_type="", buffer_size=READ_BUFFER_BYTES, byte_offsets=[offset]
        )
        found = tf.data.experimental.from_variant(record, tf.TensorSpec([], tf.string))
        # A file that has become shorter has nothing there, and all that follow would move up: an error instead. To put
        # something in its place, by concatenate, makes the map below run one element at a time under op determinism.
        return found.take(1).apply(tf.data.experimental.assert_cardinality(1))

    @tf.autograph.experimental.do_not_convert  # it would wrap a family's UserError in its own stack
    def load(record: tf.Tensor, place_and_where: tuple) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        (key_of_epoch, position, row), _ = place_and_where
        features = tf.io.parse_single_example(record, {name: FEATURES[name] for name in NEEDED})
        image = preprocess(Picture.of(features["image/encoded"], channels), key_of_epoch, position)
        return image, features["image/class/label"], row

    places = tf.data.Dataset.range(start_epoch, epochs).flat_map(places_of)
    part = share[1] - share[0]
    if part != batch_size:
        places = places.batch(batch_size, drop_remainder=True).flat_map(shared)
    # Reading in flat_map and decoding in map: a map that reads as well runs one element at a time once op determinism
    # is on (1,081 pictures/s fell to 902; this form does 1,745 with and without).
    dataset = tf.data.Dataset.zip((places.flat_map(read), places))
    # Twice the cores: a picture that takes long then leaves none idle (5 %).
    dataset = dataset.map(load, num_parallel_calls=2 * os.cpu_count()).batch(part).prefetch(2)
    options = tf.data.Options()
    options.deterministic = True
    iterator = tf.data.make_initializable_iterator(dataset.with_options(options))
    images, labels, rows_read = iterator.get_next("batch")
    feed = {files: index.files, shards: index.shards, offsets: index.offsets}
    return Batches(images, labels, rows_read, len(index.offsets), batch_size, iterator, start_position, feed)
