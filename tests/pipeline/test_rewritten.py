"""TF-Slim's records whose pictures need more than TensorFlow's decoders: evaluation sees what prediction sees."""

import io
import os
import threading
import time

import numpy as np
import pytest
from PIL import Image

from pipeline import check, images, tfrecord
from pipeline.batches import evaluation_batches
from pipeline.dataset import Dataset
from pipeline.preprocess import Preprocessor
from pipeline.rewritten import DIRECTORY
from prediction.pictures import PictureReader
from tfcompat import tf

SIZE = 24
RANDOM = np.random.default_rng(0)
COLOUR = np.asarray(Image.fromarray(RANDOM.integers(0, 256, (5, 7, 3), np.uint8)).resize((60, 40)))
ALPHA = np.where(np.arange(60) < 30, 0, 255) * np.ones((40, 1))


def saved(pixels, extension, orientation=None, **options):
    file, exif = io.BytesIO(), Image.Exif()
    if orientation:
        exif[274] = orientation
        options["exif"] = exif
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, extension, **options)
    return file.getvalue()


PALETTE = Image.fromarray(COLOUR).quantize(16)
PICTURES = {
    "JPEG": saved(COLOUR, "JPEG"),
    "JPEG, upright by Exif": saved(COLOUR, "JPEG", orientation=1),
    "grey JPEG": saved(COLOUR[..., 0], "JPEG"),
    "PNG": saved(COLOUR, "PNG"),
    "sideways JPEG": saved(COLOUR, "JPEG", orientation=6),
    "mirrored PNG": saved(COLOUR, "PNG", orientation=2),
    "CMYK JPEG": saved(Image.fromarray(COLOUR).convert("CMYK"), "JPEG"),
    "PNG with alpha": saved(np.dstack([COLOUR, ALPHA.astype(np.uint8)]), "PNG"),
    "grey PNG with alpha": saved(Image.fromarray(np.dstack([COLOUR[..., 0], ALPHA.astype(np.uint8)]), "LA"), "PNG"),
    "palette": saved(PALETTE, "PNG"),
    "transparent palette": saved(PALETTE, "PNG", transparency=3),
    "16 bits": saved(COLOUR[..., 0].astype(np.uint16) * 200, "PNG"),
    "transparent colour": saved(COLOUR, "PNG", transparency=tuple(int(each) for each in COLOUR[0, 0])),
}
UNCHANGED = 4  # of the first
DAMAGED = PICTURES["CMYK JPEG"][:-300]


@pytest.fixture
def slim(tmp_path):
    """A directory of a shard of the pictures, a damaged one too, each of a class of its own."""
    directory = tmp_path / "slim"
    directory.mkdir()
    (directory / "labels.txt").write_text("".join(f"{i}:{name}\n" for i, name in enumerate([*PICTURES, "damaged"])))
    with open(directory / "x_test.tfrecord", "wb") as file:
        for label, data in enumerate([*PICTURES.values(), DAMAGED]):
            image = images.StoredImage(data, "any", np.zeros((40, 60, 3), np.uint8))
            file.write(tfrecord.framed(tfrecord.serialize(image, label, "", "")))
    return str(directory)


def predicted(preprocessor, dataset, tmp_path):
    """The inputs that predict.py makes of the picture files."""
    with tf.Session() as session:
        reader = PictureReader(preprocessor, dataset, session, "auto", images.MAX_PIXELS)
        for name, data in PICTURES.items():
            (tmp_path / name).write_bytes(data)
        return [reader.read(str(tmp_path / name)).image for name in PICTURES]


def evaluated(index, preprocessor):
    rows = np.flatnonzero(np.arange(len(index.offsets)) < len(PICTURES))
    batches = evaluation_batches(index.take(rows), preprocessor, len(PICTURES))
    with tf.Session() as session:
        batches.start(session)
        return session.run(batches.images)


@pytest.mark.parametrize("family", ["unit", "inception_crop"])
def test_evaluation_sees_what_prediction_sees(family, slim, tmp_path):
    dataset = Dataset.load(slim)
    assert dataset.channels == 3
    preprocessor = Preprocessor(family, SIZE, 3)
    index = dataset.index("test")
    expected = predicted(preprocessor, dataset, tmp_path)
    for name, seen, wanted in zip(PICTURES, evaluated(index, preprocessor), expected, strict=True):
        np.testing.assert_allclose(seen, wanted, rtol=0, atol=1e-5, err_msg=name)
    for row, data in enumerate(PICTURES.values()):
        np.testing.assert_array_equal(index.pictures([row], 3)[0], images.store(data).pixels)
    copied = [index.files[shard] != os.path.join(slim, "x_test.tfrecord") for shard in index.shards]
    assert copied == [False] * UNCHANGED + [True] * (len(PICTURES) - UNCHANGED) + [False]


def test_records_are_rewritten_once(slim, monkeypatch):
    first = Dataset.load(slim).index("test")
    assert sorted(os.listdir(os.path.join(slim, DIRECTORY))) == ["test.npz", "test.tfrecord"]
    with monkeypatch.context() as patched:
        patched.setattr(images, "standard", lambda *_: pytest.fail("read again"))
        again = Dataset.load(slim).index("test")
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    os.remove(os.path.join(slim, DIRECTORY, "test.tfrecord"))  # by hand
    np.testing.assert_array_equal(Dataset.load(slim).index("test").offsets, first.offsets)
    with open(os.path.join(slim, "x_test.tfrecord"), "ab") as file:  # the shard changes
        image = images.StoredImage(PICTURES["16 bits"], "png", np.zeros((40, 60, 1), np.uint8))
        file.write(tfrecord.framed(tfrecord.serialize(image, 0, "", "")))
    longer = Dataset.load(slim).index("test")
    assert longer.files[longer.shards[-1]].endswith("test.tfrecord")
    assert longer.example(-1).encoded == images.store(PICTURES["16 bits"]).data


def test_two_programs_on_one_directory_write_the_copies_once(slim, monkeypatch, capsys):
    datasets, indexes, decoded = [Dataset.load(slim) for _ in range(2)], [], []
    standard = images.standard

    def slow(encoded, channels):
        time.sleep(0.02)
        decoded.append(encoded)
        return standard(encoded, channels)

    monkeypatch.setattr(images, "standard", slow)
    monkeypatch.setattr("pipeline.rewritten.WAIT", 0.02, raising=False)
    threads = [threading.Thread(target=lambda d=d: indexes.append(d.index("test"))) for d in datasets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(*indexes, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(indexes[0].files) == 2
    assert len(decoded) == len(PICTURES) + 1
    assert "another program is writing" in (err := capsys.readouterr().err)
    assert "cannot be written" not in err
    assert sorted(os.listdir(os.path.join(slim, DIRECTORY))) == ["test.npz", "test.tfrecord"]


def test_damaged_copies_are_made_anew(slim):
    copies = os.path.join(slim, DIRECTORY, "test.tfrecord")
    first = Dataset.load(slim).index("test")
    with open(copies, "r+b") as file:
        content = file.read()
        file.seek(len(content) // 2)
        file.write(bytes(byte ^ 255 for byte in content[len(content) // 2 :][:40]))
    again = Dataset.load(slim).index("test")
    with open(copies, "rb") as file:
        assert file.read() == content
    np.testing.assert_array_equal(again.offsets, first.offsets)


def test_where_copies_cannot_be_written_it_is_said(slim, capsys):
    with open(os.path.join(slim, DIRECTORY), "w"):
        index = Dataset.load(slim).index("test")
    assert len(index.files) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_check_reads_the_records_themselves(slim):
    dataset = Dataset.load(slim)
    dataset.index("test")
    faults = check.check(dataset)[1]
    assert len(faults) == 1
    assert "cannot be decoded" in str(faults[0])
