"""Batches: their order is a function of (seed, epoch, position), and starting at step N is starting there."""

import contextlib
from functools import partial

import numpy as np
import pytest

from errors import UserError
from pipeline.batches import evaluation_batches, training_batches, training_rows
from pipeline.preprocess import Preprocessor
from tfcompat import tf

EXAMPLES = 11
SIZE = 6


@pytest.fixture
def split(write_split):
    dataset, pictures = write_split([4, 5, 2], SIZE)
    return dataset.index("train"), pictures


@pytest.fixture
def index(split):
    return split[0]


def train(index, steps, batch_size=4, seed=0, start=0, preprocessing="cifar"):
    """(images, labels, rows) of some steps, one array each [steps, N, ...]."""
    with tf.Graph().as_default(), tf.Session() as session:
        batches = training_batches(index, Preprocessor(preprocessing, SIZE, 3), batch_size, seed)
        batches.start(session, start)
        fetched = [session.run((batches.images, batches.labels, batches.rows)) for _ in range(steps)]
    return [np.stack(arrays) for arrays in zip(*fetched, strict=True)]


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_workers_see_together_what_one_would(workers, index):
    expected = train(index, 8, 8)
    with tf.Graph().as_default(), tf.Session() as session:
        share = partial(training_batches, index, Preprocessor("cifar", SIZE, 3), 8, 0, workers=workers)
        parts = [share(worker=worker) for worker in range(workers)]
        fetches = [tf.concat([getattr(part, name) for part in parts], 0) for name in ("images", "labels", "rows")]
        for start in 0, 3:
            for part in parts:
                part.start(session, start)
            for step in range(start, start + 5):
                for one, other in zip(expected, session.run(fetches), strict=True):
                    np.testing.assert_array_equal(one[step], other)


@pytest.mark.parametrize(("workers", "worker"), [(3, 0), (2, 2), (0, 0), (2, -1)])
def test_workers_that_cannot_share_a_batch(workers, worker, index):
    with pytest.raises(UserError, match="cannot be shared"):
        training_batches(index, Preprocessor("unit", SIZE, 3), 8, 0, workers=workers, worker=worker)


@pytest.mark.parametrize("family", ["standardize", "min_max", "alexnet"])
def test_missing_statistics_are_reported_in_one_line(family, index):
    for batches in partial(training_batches, seed=0), evaluation_batches:
        with pytest.raises(UserError, match=f"^--preprocessing {family} needs [^\n]*$"):
            batches(index, Preprocessor(family, SIZE, 3), 4)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_order_and_augmentation_do_not_depend_on_the_threads(threads, index, monkeypatch):
    expected = train(index, 6)
    monkeypatch.setattr("os.cpu_count", lambda: threads)
    config = tf.ConfigProto(inter_op_parallelism_threads=threads, intra_op_parallelism_threads=threads)
    with tf.Graph().as_default(), tf.Session(config=config) as session:
        batches = training_batches(index, Preprocessor("cifar", SIZE, 3), 4, 0)
        batches.start(session)
        fetched = [session.run((batches.images, batches.labels, batches.rows)) for _ in range(6)]
    for one, other in zip(expected, map(np.stack, zip(*fetched, strict=True)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("position", "count"), [(0, 11), (3, 4), (9, 4), (22, 1), (5, 40)])
def test_training_rows_are_those_that_are_read(position, count, index):
    expected = order(index, 5).reshape(-1)[position : position + count]
    np.testing.assert_array_equal(training_rows(EXAMPLES, 0, position, count), expected)


@pytest.mark.parametrize("batch_size", [4, 11])
def test_ten_crops_lie_one_after_another(batch_size, index):
    with tf.Session() as session:
        whole = evaluation_batches(index, Preprocessor("vgg", SIZE, 3), batch_size)
        crops = evaluation_batches(index, Preprocessor("vgg", SIZE, 3), batch_size, crops=10)
        for batches in whole, crops:
            batches.start(session)
        one, ten = session.run((whole.images, crops.images))
    assert ten.shape == (batch_size * 10, SIZE, SIZE, 3)
    np.testing.assert_allclose(ten[4::10], one, atol=1e-3)  # the centre


@pytest.mark.parametrize(
    ("family", "crops", "message"),
    [
        ("unit", 10, "10 crops are for alexnet, inception_crop, torchvision, vgg"),
        ("vgg", 5, "--crops is 5; it must be 1 or 10"),
    ],
)
def test_crops_that_a_family_does_not_have(family, crops, message, index):
    with pytest.raises(UserError, match=message):
        evaluation_batches(index, Preprocessor(family, SIZE, 3), 4, crops=crops)


def test_a_file_that_becomes_shorter_is_an_error_and_moves_no_other_up(split):
    index, _ = split
    with tf.Session() as session:
        batches = evaluation_batches(index, Preprocessor("unit", SIZE, 3), 1)
        with open(index.files[2], "r+b") as file:  # the last two records
            file.truncate(0)
        batches.start(session)
        rows = [int(session.run(batches.labels)[0]) for _ in range(9)]
        assert rows == list(range(9))
        with pytest.raises(tf.errors.OpError):
            session.run(batches.labels)


def order(index, epochs, batch_size=1, seed=0):
    steps = -(-epochs * EXAMPLES // batch_size)
    rows = train(index, steps, batch_size, seed, preprocessing="unit")[2].reshape(-1)
    return rows[: epochs * EXAMPLES].reshape(epochs, EXAMPLES)


def test_each_epoch_is_a_permutation_of_its_own(index):
    epochs = order(index, 4)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(EXAMPLES), (4, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 4
    other_seed = order(index, 4, seed=1)
    assert not {tuple(epoch) for epoch in epochs} & {tuple(epoch) for epoch in other_seed}


@pytest.mark.parametrize("batch_size", [3, 11, 16])  # 16: more than an epoch
def test_the_order_does_not_depend_on_the_batch_size(batch_size, index):
    np.testing.assert_array_equal(order(index, 3, batch_size), order(index, 3))


def test_pictures_and_labels_are_those_of_the_rows(split):
    index, pictures = split
    images, labels, rows = train(index, 6, preprocessing="unit")
    np.testing.assert_array_equal(labels, rows)  # write_split's labels count the examples
    np.testing.assert_allclose(images, pictures[rows] / 255, atol=1e-6)


@pytest.mark.parametrize("start", [1, 4, 11])  # 4: the batch before it spans two epochs; 11: an epoch begins
def test_starting_at_a_step_is_having_run_up_to_it(start, index):
    for one, other in zip(train(index, start + 6), train(index, 6, start=start), strict=True):
        np.testing.assert_array_equal(one[start:], other)


def test_augmentation_differs_between_epochs_and_between_positions(write_split):
    dataset, _ = write_split([1, 1], 16)
    one = dataset.index("train")._replace(shards=np.zeros(8, np.int32), offsets=np.zeros(8, np.int64))
    with tf.Session() as session:  # eight times the same picture, in two epochs
        batches = training_batches(one, Preprocessor("inception", SIZE, 3), 8, 0)
        batches.start(session)
        images = np.concatenate([session.run(batches.images) for _ in range(2)])
    assert len(np.unique(images.reshape(16, -1), axis=0)) == 16


@pytest.mark.parametrize("batch_size", [1, 4, 11, 16])
def test_evaluation_gives_every_record_once_in_order(batch_size, split):
    index, pictures = split
    with tf.Session() as session:
        batches = evaluation_batches(index, Preprocessor("unit", SIZE, 3), batch_size)
        for _ in range(2):  # again from the start
            batches.start(session)
            fetched = []
            with contextlib.suppress(tf.errors.OutOfRangeError):
                while True:
                    fetched.append(session.run((batches.images, batches.labels, batches.rows)))
            images, labels, rows = map(np.concatenate, zip(*fetched, strict=True))
            assert {len(f[2]) for f in fetched[:-1]} <= {batch_size}
            assert rows.tolist() == labels.tolist() == list(range(EXAMPLES))
            np.testing.assert_allclose(images, pictures / 255, atol=1e-6)
    assert (batches.examples, batches.batch_size) == (EXAMPLES, batch_size)


@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_and_types_are_static(channels, index):
    training = training_batches(index, Preprocessor("vgg", 8, channels), 4, 0)
    for batches in training, evaluation_batches(index, Preprocessor("vgg", 8, channels), 4):
        assert batches.images.shape.as_list() == [None, 8, 8, channels]
        assert (batches.images.dtype, batches.labels.dtype, batches.rows.dtype) == (tf.float32, tf.int64, tf.int64)


def test_the_index_is_no_part_of_the_graph(index):
    large = index._replace(shards=np.zeros(10**5, np.int32), offsets=np.arange(10**5))
    batches = training_batches(large, Preprocessor("unit", SIZE, 3), 4, 0)
    assert len(batches.images.graph.as_graph_def().SerializeToString()) < 10**5


def test_smaller_training_sets_contain_one_another(index):
    def places(examples, seed=0):
        taken = index.first_shuffled(examples, seed)
        assert taken.files == index.files
        return list(zip(taken.shards.tolist(), taken.offsets.tolist(), strict=True))

    everything = places(None)
    assert everything == places(EXAMPLES) == places(EXAMPLES + 1)
    for examples in range(1, EXAMPLES):
        part = places(examples)
        assert len(set(part)) == len(part) == examples
        assert set(part) < set(places(examples + 1)) <= set(everything)
    assert places(5) == places(5)
    assert len({frozenset(places(5, seed)) for seed in range(4)}) > 1
    assert places(5) != everything[:5]
