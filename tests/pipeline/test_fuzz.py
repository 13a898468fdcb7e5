"""Thousands of damaged files: none crashes, hangs or uses much memory, and stored pictures decode in training."""

import collections
import io
import resource

import numpy as np
import pytest
from PIL import Image

from errors import UserError
from pipeline import images, tfrecord
from pipeline.pictures import decode
from tfcompat import tf

FEW, MANY = 300, 5000  # number of pictures and of shards; MANY is slow
MEMORY = 1_000_000  # kB, largest growth of the peak


def encoded(extension, channels, **kwargs):
    random = np.random.default_rng(1)
    small = Image.fromarray(random.integers(0, 256, (6, 8, channels), np.uint8).squeeze()).resize((40, 30))
    file = io.BytesIO()
    (small.convert("CMYK") if extension == "JPEG" and channels == 4 else small).save(file, extension, **kwargs)
    return file.getvalue()


SEEDS = [
    encoded("JPEG", 3, quality=80), encoded("JPEG", 1), encoded("JPEG", 3, progressive=True), encoded("JPEG", 4),
    encoded("PNG", 3), encoded("PNG", 1), encoded("PNG", 4),
    encoded("TIFF", 3, compression="tiff_lzw"), encoded("BMP", 3), encoded("WEBP", 4),
]  # fmt: skip


def mutated(data, other, random):
    """data with some bits flipped, the end removed, zeros inserted, or its start replaced by that of another file."""
    data, kind = bytearray(data), random.integers(5)
    if kind == 0:
        for bit in random.integers(0, 8 * len(data), random.integers(1, 9)):
            data[bit // 8] ^= 1 << bit % 8
    elif kind == 1:  # in the header, which has the sizes
        for bit in random.integers(0, 8 * min(64, len(data)), random.integers(1, 4)):
            data[bit // 8] ^= 1 << bit % 8
    elif kind == 2:
        del data[random.integers(len(data)) :]
    elif kind == 3:
        start = random.integers(len(data))
        data[start : start + 40] = bytes(len(data[start : start + 40]))
    else:
        head = random.integers(2, 60)
        data[:head] = other[:head]
    return bytes(data)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("number", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_a_damaged_picture_is_rejected_or_decodes_to_the_same_pixels_in_training(number):
    random, outcomes = np.random.default_rng(number), collections.Counter()
    data = tf.placeholder(tf.string, [])
    pixels = decode(data, 3)
    before = peak()
    with tf.Session() as session:
        for i in range(number):
            picture = mutated(SEEDS[i % len(SEEDS)], SEEDS[random.integers(len(SEEDS))], random)
            try:
                stored = images.store(picture)
            except images.ImageError:
                outcomes["rejected"] += 1
                continue
            outcomes["stored unchanged" if stored.data == picture else "encoded again"] += 1
            np.testing.assert_array_equal(session.run(pixels, {data: stored.data}), stored.pixels)
    print(number, dict(outcomes), f"peak +{(peak() - before) / 1000:.0f} MB")
    assert peak() - before < MEMORY
    assert min(outcomes.values()) > number / 50
    assert len(outcomes) == 3


@pytest.mark.parametrize("number", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_the_intact_records_of_a_damaged_shard_are_read(number, write_split, tmp_path):
    dataset, pictures = write_split([6, 5])
    paths = [tmp_path / "shards" / shard.file for shard in dataset.splits["train"].shards]
    intact = [path.read_bytes() for path in paths]
    whole = dataset.index("train")
    payloads = [tfrecord.read_at(*whole.place(row)).payload for row in range(len(pictures))]
    random, outcomes = np.random.default_rng(number), collections.Counter()
    before = peak()
    for i in range(number):
        which = i % 2
        paths[which].write_bytes(mutated(intact[which], intact[1 - which], random))
        (tmp_path / "shards" / ".index.npz").unlink(missing_ok=True)
        try:
            index = dataset.index("train", "skip")
        except UserError:
            outcomes["refused"] += 1
        else:
            outcomes["replaced" if index.replaced.any() else "unchanged"] += 1
            for row in range(len(pictures)):
                found = tfrecord.read_at(*index.place(row))
                assert found.fault is None
                assert index.replaced[row] or found.payload == payloads[row]
        paths[which].write_bytes(intact[which])
    print(number, dict(outcomes), f"peak +{(peak() - before) / 1000:.0f} MB")
    assert peak() - before < MEMORY
    assert outcomes["replaced"] > number / 2
