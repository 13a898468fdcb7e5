"""MNIST as TensorFlow's tutorials read it: replaces `tensorflow.examples.tutorials.mnist.input_data`.

mnist = read_data_sets("MNIST_data/", one_hot=True)
images, labels = mnist.train.next_batch(100)
"""

import collections
import gzip
import math
import os
import zlib

import numpy as np
import pooch

from tfcompat import tf

URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"  # LeCun's own site no longer serves the files
FILES = {  # checksums of LeCun's files
    "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
}
MOST_BYTES = 2**31  # of one unpacked file
Datasets = collections.namedtuple("Datasets", ["train", "validation", "test"])


class DataSet:
    """Pictures and labels, in batches, in a new order for each epoch, from the seed or, by default, the graph's.

    images are float32 [N, 784] in 0 to 1; [N, 28, 28, 1] without `reshape`, uint8 in 0 to 255 with dtype=tf.uint8.
    labels are uint8 [N]; float64 [N, 10] if one-hot. num_examples is N, and epochs_completed counts how many times
    next_batch has returned all N.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        dtype: tf.DType = tf.float32,
        reshape: bool = True,
        seed: int | None = None,
    ):
        dtype = tf.as_dtype(dtype)
        if dtype not in (tf.uint8, tf.float32):
            raise TypeError(f"dtype {dtype.name} of the images: must be uint8 or float32")
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} pictures, but {len(labels)} labels")
        if reshape:
            images = images.reshape(len(images), -1)
        self.images = images * np.float32(1 / 255) if dtype == tf.float32 else images
        self.labels = labels
        self.num_examples = len(images)
        self.epochs_completed = 0
        self._index_in_epoch = 0
        self._random = np.random.RandomState(tf.get_default_graph().seed if seed is None else seed)

    def next_batch(self, batch_size: int, fake_data: bool = False, shuffle: bool = True) -> tuple[np.ndarray, ...]:
        """The next pictures and labels. If an epoch ends inside the batch, the first ones of the next epoch fill it.

        Raises ValueError for fake_data, and for a batch with more pictures than there are.
        """
        if fake_data:
            raise ValueError("fake_data is not supported; leave it out to get the real pictures")
        if batch_size > self.num_examples:
            raise ValueError(f"batch_size is {batch_size}; there are only {self.num_examples} pictures")
        if self.epochs_completed == self._index_in_epoch == 0 and shuffle:
            self._shuffle()
        start, stop = self._index_in_epoch, self._index_in_epoch + batch_size
        parts = [(self.images[start:stop], self.labels[start:stop])]
        if stop > self.num_examples:
            self.epochs_completed += 1
            stop -= self.num_examples
            if shuffle:
                self._shuffle()
            parts.append((self.images[:stop], self.labels[:stop]))
        self._index_in_epoch = stop
        images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return images, labels

    def _shuffle(self) -> None:
        order = self._random.permutation(self.num_examples)
        self.images, self.labels = self.images[order], self.labels[order]


def _read(directory: str, name: str, url: str) -> np.ndarray:
    """A gzipped IDX file as a uint8 array with the shape in its header. Downloads the file if it is missing."""
    path = os.path.join(directory, name)
    if not os.path.exists(path):
        try:
            pooch.retrieve(url + name, FILES[name] if url == URL else None, name, directory, progressbar=True)
        except (OSError, ValueError) as error:  # no network, or a wrong checksum
            raise OSError(
                f"{path} is missing, and {url}{name} could not be downloaded ({error}); put MNIST's four files there: "
                + ", ".join(FILES)
            ) from None
    print("Extracting", path)
    rank = 3 if "idx3" in name else 1
    start = 4 + 4 * rank
    try:
        with gzip.open(path) as file:
            magic, *shape = np.frombuffer(file.read(start).ljust(start, b"\0"), ">i4").tolist()
            size = math.prod(shape)
            # No more than the header promises: a small file can unpack to any size.
            content = file.read(size + 1) if magic == 2048 + rank and 0 <= size <= MOST_BYTES else b""
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error})") from None
    data = np.frombuffer(content, np.uint8)
    if magic != 2048 + rank or data.size != size:
        raise ValueError(f"{path} is not a complete IDX file of unsigned bytes with rank {rank}")
    return data.reshape(shape)


def read_data_sets(
    train_dir: str,
    fake_data: bool = False,
    one_hot: bool = False,
    dtype: tf.DType = tf.float32,
    reshape: bool = True,
    validation_size: int = 5000,
    seed: int | None = None,
    source_url: str = URL,
) -> Datasets:
    """Reads MNIST's four IDX .gz files, or others in that format, from a directory; downloads missing ones into it.

    one_hot, dtype, reshape and seed are described in DataSet. The first validation_size training pictures become the
    validation set. Raises OSError if a file is missing and cannot be downloaded; ValueError for a damaged file, a
    validation_size that is too large, and fake_data.
    """
    if fake_data:
        raise ValueError("fake_data is not supported; leave it out to get the real pictures")
    train_images, train_labels, test_images, test_labels = (_read(train_dir, name, source_url or URL) for name in FILES)
    if not 0 <= validation_size <= len(train_images):
        raise ValueError(f"validation_size is {validation_size}; there are {len(train_images)} training pictures")
    if one_hot:
        train_labels, test_labels = np.eye(10)[train_labels], np.eye(10)[test_labels]
    train_images, test_images = train_images[..., np.newaxis], test_images[..., np.newaxis]
    return Datasets(
        DataSet(train_images[validation_size:], train_labels[validation_size:], dtype, reshape, seed),
        DataSet(train_images[:validation_size], train_labels[:validation_size], dtype, reshape, seed),
        DataSet(test_images, test_labels, dtype, reshape, seed),
    )
