"""The tf.data graph: batches of pictures in an order that is a function of (seed, epoch, position).

The index of record offsets is shuffled in each epoch, records are read by offset, then decoded in parallel. Only a few
batches are buffered, so starting at step N costs the same as starting at step 0, and no state needs to be saved.
"""

import os
from collections.abc import Callable

import numpy as np

from errors import UserError
from pipeline.index import Index, parse_tensor
from pipeline.preprocess import Preprocessor
from pipeline.records import RecordKeys
from tfcompat import tf

ORDER, AUGMENTATION = range(2)  # folded into keys, since two draws with one seed are identical
BLOCK = 4096  # records whose file names are gathered at a time: one by one is slow, all at once takes 300 MB
READ_BUFFER_BYTES = 64 * 1024


class Batches:
    """The tensors of a batch, and the position in the split that they come from.

    Attributes:
        images: float32 [N, height, width, C], preprocessed; [N * crops, …] where a picture gives several.
        labels: int64 [N].
        rows: int64 [N], position of each example in the index.
        index: the records that are read; `start` feeds it.
        batch_size: of all workers together.
    """

    def __init__(self, index: Index, batch_size: int, seed: int | None = None):
        self.index, self.batch_size, self.seed = index, batch_size, seed  # no seed: evaluation, in order
        # Placeholders, since constants of a million records would be part of the graph and of every event file.
        self.files = tf.placeholder(tf.string, [None], "index/files")
        self.shards = tf.placeholder(tf.int32, [None], "index/shards")
        self.offsets = tf.placeholder(tf.int64, [None], "index/offsets")
        self.start_position = tf.placeholder(tf.int64, [], "index/start_position")
        self.iterator = self.images = self.labels = self.rows = None  # until `read` builds them

    @property
    def examples(self) -> int:
        """Number of examples in an epoch."""
        return len(self.index.offsets)

    def start(self, session: tf.Session, step: int = 0) -> None:
        """Moves to the batch of a step. Evaluation starts at 0, training anywhere."""
        fed = {self.files: self.index.files, self.shards: self.index.shards, self.offsets: self.index.offsets}
        session.run(self.iterator.initializer, {**fed, self.start_position: step * self.batch_size})

    def rows_at(self, step: int) -> np.ndarray:
        """The rows of the index that the batch of a step reads, int64; of evaluation, all rows."""
        if self.seed is None:
            return np.arange(self.examples)
        return training_rows(self.examples, self.seed, step * self.batch_size, self.batch_size)

    def read(self, dataset: "tf.data.Dataset") -> None:
        """Makes the tensors of a data set of (image, label, row)."""
        options = tf.data.Options()
        options.deterministic = True
        self.iterator = tf.data.make_initializable_iterator(dataset.with_options(options))
        self.images, self.labels, self.rows = self.iterator.get_next("batch")


def training_batches(
    index: Index,
    preprocessor: Preprocessor,
    batch_size: int,
    seed: int,
    *,
    workers: int = 1,
    worker: int = 0,
    augment: bool = True,
) -> Batches:
    """Endless batches, each epoch in an order of its own; a batch may span two epochs.

    `batch_size` is that of all workers together, which see the same pictures as one worker; `worker`, from 0, is the
    place of this worker's part in each batch. The non-negative seed is of order and augmentation. Without `augment`,
    pictures are preprocessed as in evaluation.

    Raises UserError where the batch cannot be shared, and for statistics that the preprocessor lacks.
    """
    if workers < 1 or not 0 <= worker < workers or batch_size % workers:
        raise UserError(f"a batch of {batch_size} cannot be shared by {workers} workers, of which this is {worker}")

    def preprocess(encoded: tf.Tensor, key: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        picture = preprocessor.picture(encoded)
        return (
            preprocessor.train(picture, tf.random.fold_in(key, position)) if augment else preprocessor.evaluate(picture)
        )

    batches = Batches(index, batch_size, seed)
    places = _places(
        batches,
        epochs=tf.int64.max,
        order=lambda epoch, examples: _shuffled(examples, seed, epoch),
        key=lambda epoch: _key(seed, AUGMENTATION, epoch),
    )
    part = batch_size // workers
    if workers > 1:
        mine = slice(worker * part, (worker + 1) * part)
        places = places.batch(batch_size, drop_remainder=True).flat_map(
            lambda *whole: tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(lambda values: values[mine], whole))
        )
    batches.read(_loaded(places, index.keys, preprocess).batch(part).prefetch(2))
    return batches


def evaluation_batches(index: Index, preprocessor: Preprocessor, batch_size: int, *, crops: int = 1) -> Batches:
    """Every record once, in the order of the index, without augmentation; the last batch may be smaller.

    crops=10 gives the ten pictures of Preprocessor.crops for each record. Raises UserError where there are none.
    """
    if crops not in (1, 10):
        raise UserError(f"--crops is {crops}; it must be 1 or 10")
    view = preprocessor.evaluate if crops == 1 else preprocessor.crops
    batches = Batches(index, batch_size)
    places = _places(
        batches, epochs=1, order=lambda epoch, examples: tf.range(examples), key=lambda epoch: tf.zeros([2], tf.int32)
    )
    dataset = _loaded(places, index.keys, lambda encoded, key, position: view(preprocessor.picture(encoded)))
    batches.read(dataset.batch(batch_size).prefetch(2))
    if crops > 1:
        batches.images = tf.reshape(batches.images, [-1, *batches.images.shape[2:]])
    return batches


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


def _places(batches: Batches, epochs: int, order: Callable, key: Callable) -> "tf.data.Dataset":
    """((key of the epoch, position in it, row), (shard, byte offset)) of each example, from the start position on.

    order gives the rows of an epoch, from its number and the number of examples; key the epoch's key.
    """
    examples = tf.shape(batches.offsets, out_type=tf.int64)[0]
    start_epoch = batches.start_position // examples

    def places_of(epoch: tf.Tensor) -> tf.data.Dataset:
        rows, key_of_epoch = order(epoch, examples), key(epoch)

        def block_of(begin: tf.Tensor) -> tf.data.Dataset:
            block = rows[begin : begin + BLOCK]
            size = tf.shape(block, out_type=tf.int64)[0]
            place = tf.broadcast_to(key_of_epoch, [size, 2]), tf.range(begin, begin + size), block
            where = tf.gather(batches.files, tf.gather(batches.shards, block)), tf.gather(batches.offsets, block)
            return tf.data.Dataset.from_tensor_slices((place, where))

        first = tf.where(tf.equal(epoch, start_epoch), batches.start_position % examples, 0)
        return tf.data.Dataset.range(first, examples, BLOCK).flat_map(block_of)

    return tf.data.Dataset.range(start_epoch, epochs).flat_map(places_of)


def _loaded(places: "tf.data.Dataset", keys: RecordKeys, preprocess: Callable) -> "tf.data.Dataset":
    """(image, label, row) of each place; preprocess(encoded, key, position) gives the image."""

    def read(place: tuple, where: tuple[tf.Tensor, tf.Tensor]) -> tf.data.Dataset:
        file, offset = where
        record = tf.raw_ops.TFRecordDatasetV2(
            filenames=[file], compression_type="", buffer_size=READ_BUFFER_BYTES, byte_offsets=[offset]
        )
        found = tf.data.experimental.from_variant(record, tf.TensorSpec([], tf.string))
        # A file that has become shorter has no record there, and all later ones would move up: raise an error instead.
        # A replacement by concatenate would make the map below run one element at a time under op determinism.
        return found.take(1).apply(tf.data.experimental.assert_cardinality(1))

    @tf.autograph.experimental.do_not_convert  # it would wrap a family's UserError in its own stack
    def load(record: tf.Tensor, place_and_where: tuple) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        (key_of_epoch, position, row), _ = place_and_where
        encoded, label = parse_tensor(record, keys)
        return preprocess(encoded, key_of_epoch, position), label, row

    # Reading in flat_map and decoding in map: a map that reads as well runs one element at a time under op determinism
    # (1,081 pictures/s fell to 902; this form does 1,745 with and without).
    dataset = tf.data.Dataset.zip((places.flat_map(read), places))
    # Twice the cores: a picture that takes long then leaves none idle (5 %).
    return dataset.map(load, num_parallel_calls=2 * os.cpu_count())
