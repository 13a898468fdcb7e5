"""Drawings redrawn like MNIST's digits."""

import time

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits

from errors import UserError
from pipeline.convert import convert
from pipeline.dataset import Dataset
from pipeline.images import ImageError
from pipeline.preprocess import Preprocessor
from pipeline.statistics import Statistics
from prediction import drawings
from prediction.pictures import PictureReader
from tfcompat import tf


def written(digit, side=28, thickness=2, margin=4):
    """A digit, light on black, as MNIST's."""
    picture = np.zeros((280, 280), np.uint8)
    cv2.putText(picture, str(digit), (60, 220), cv2.FONT_HERSHEY_SIMPLEX, 8, 255, thickness * 10, cv2.LINE_AA)
    return drawings.redrawn(picture[..., None], side, side - 2 * margin, False)


def statistics_of(pictures):
    return Statistics(pixels={"mean": np.mean(pictures, 0, np.float64)})


LIKE_MNIST = statistics_of([written(digit) for digit in range(10)])


def test_the_box_follows_from_the_training_pictures():
    assert drawings.box_side(LIKE_MNIST) == 20
    digits = np.rint(load_digits().images * 255 / 16)[..., None]
    assert drawings.box_side(statistics_of(digits)) == 8  # they have no margin
    assert all(drawings.is_like(picture, statistics_of(digits)) for picture in digits)
    assert drawings.box_side(statistics_of(255 - digits)) is None  # dark on white
    assert drawings.box_side(statistics_of(digits.repeat(3, 3))) is None  # colours
    assert drawings.box_side(statistics_of([np.full((28, 28, 1), 90)])) is None
    assert drawings.box_side(Statistics()) is None


def test_pictures_like_the_training_pictures_are_recognized():
    assert drawings.is_like(written(3), LIKE_MNIST)
    assert not drawings.is_like(255 - written(3), LIKE_MNIST)
    assert not drawings.is_like(written(3, side=56), LIKE_MNIST)


@pytest.mark.parametrize("digit", range(10))
def test_size_place_and_colours_of_a_drawing_do_not_matter(digit):
    small = written(digit)
    large = cv2.resize(small, None, fx=10, fy=10, interpolation=cv2.INTER_CUBIC)
    large = np.pad(large, ((0, 90), (200, 40)))[..., None]
    for picture in (large, 255 - large, 60 + large // 2, 200 - large // 2):
        again = drawings.redrawn(picture, 28, 20)
        # The centre of mass may be rounded to the next pixel.
        assert cv2.matchTemplate(np.pad(again[..., 0], 1), small[..., 0], cv2.TM_CCOEFF_NORMED).max() > 0.97


@pytest.mark.parametrize("thickness", [1, 3, 40])
def test_strokes_fill_the_box_about_the_middle_and_are_as_thick_as_mnists(thickness):
    picture = np.full((800, 600, 1), 255, np.uint8)
    cv2.line(picture, (100, 100), (300, 600), 0, thickness)
    cv2.line(picture, (300, 600), (400, 600), 0, thickness)
    made = drawings.redrawn(picture, 28, 20)
    assert (made.shape, made.dtype, made.max()) == ((28, 28, 1), np.uint8, 255)
    rows, columns, _ = np.nonzero(made)
    assert np.ptp(rows) + 1 == 20
    assert np.ptp(columns) + 1 <= 20
    weights = made.sum((1, 2)), made.sum((0, 2))
    for weight in weights:
        assert abs(np.average(np.arange(28), weights=weight) - 14) <= 0.5
    assert made[10].astype(int).sum() >= 1.6 * 255  # across the stroke


def test_the_polarity_can_be_forced():
    picture = written(3)
    np.testing.assert_array_equal(drawings.redrawn(picture, 28, 20), drawings.redrawn(picture, 28, 20, False))
    inside_out = drawings.redrawn(np.pad(picture, ((9, 9), (9, 9), (0, 0)), constant_values=255), 28, 20, True)
    assert np.median(drawings.border(inside_out[..., 0])) == 0


@pytest.mark.parametrize(
    "picture", [np.full((30, 40, 1), 255), np.full((1, 1, 1), 7), 100 + np.eye(50)[..., None] * 20]
)
def test_a_picture_without_strokes_is_an_error(picture):
    with pytest.raises(ImageError, match="it has no strokes"):
        drawings.redrawn(picture.astype(np.uint8), 28, 20)


def test_a_thin_line_on_a_large_drawing_takes_no_longer_than_on_a_small_one():
    picture = np.full((800, 800, 1), 255, np.uint8)
    cv2.polylines(picture, [np.array([[150, 120], [560, 90], [300, 700]])], False, 0, 3, cv2.LINE_AA)
    large = cv2.resize(picture, (3200, 3200), interpolation=cv2.INTER_CUBIC)[..., np.newaxis]
    start = time.process_time()
    made = drawings.redrawn(large, 28, 20)
    assert time.process_time() - start < 3  # seconds; 15 if they are not shrunk first
    assert np.abs(made.astype(int) - drawings.redrawn(picture, 28, 20)).max() < 60


def reader_of(pictures, tmp_path, invert="auto", names=("one", "two")):
    """A PictureReader for a net trained on these pictures, in two classes; and its data set."""
    for name in names:
        (tmp_path / "raw" / name).mkdir(parents=True)
        for i, picture in enumerate(pictures):
            cv2.imwrite(str(tmp_path / "raw" / name / f"{i}.png"), picture)
    convert("folder", str(tmp_path / "data"), str(tmp_path / "raw"), channels=1)
    dataset = Dataset.load(str(tmp_path / "data"))
    with tf.Graph().as_default() as graph:
        session = tf.Session(graph=graph)
        preprocessor = Preprocessor("lenet", 28, 1, dataset.statistics)
        return PictureReader(preprocessor, dataset, session, invert, dataset.max_pixels), dataset


def brain(side):
    """A disc with texture on black: no drawing."""
    picture = np.random.default_rng(0).integers(90, 170, (256, 256)).astype(np.float32)
    picture = cv2.GaussianBlur(picture, (0, 0), 5) * (np.hypot(*np.mgrid[-128:128, -128:128]) < 95)
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8)


def test_pictures_that_are_no_strokes_are_not_redrawn(tmp_path):
    reader, dataset = reader_of([brain(28)] * 10, tmp_path)
    assert drawings.box_side(dataset.statistics) == 20  # by its border alone it looks like MNIST
    cv2.imwrite(str(tmp_path / "large.png"), brain(84))
    read = reader.read(str(tmp_path / "large.png"))
    assert not read.redrawn
    expected = (cv2.resize(brain(84), (28, 28)).astype(float) - 128) / 128
    np.testing.assert_allclose(read.image[..., 0], expected, atol=1 / 128)
    assert "but no strokes; --invert yes" in drawings.describe(dataset, "auto")
    assert drawings.box_of(dataset, "yes") == 20  # who asks for it gets it


def test_drawings_are_redrawn_as_large_as_the_training_pictures(tmp_path):
    wide = [written(digit, margin=1)[..., 0] for digit in range(10)]
    reader, dataset = reader_of(wide, tmp_path)
    assert reader.box == 26
    assert "pictures that look different are redrawn like them" in drawings.describe(dataset, "auto")
    assert drawings.box_of(dataset, "no") is None
    assert drawings.describe(dataset, "no") is None
    cv2.imwrite(str(tmp_path / "drawn.png"), 255 - cv2.resize(wide[3], (140, 140)))
    read = reader.read(str(tmp_path / "drawn.png"))
    assert read.redrawn
    assert np.corrcoef(read.image.ravel(), wide[3].ravel())[0, 1] > 0.97


def test_data_of_an_earlier_version_are_not_redrawn_without_being_asked(tmp_path):
    _, dataset = reader_of([written(digit)[..., 0] for digit in range(10)], tmp_path)
    description = {key: value for key, value in dataset.description.items() if key != "light_strokes"}
    older = Dataset.of(dataset.directory, description)
    assert drawings.box_of(dataset, "auto") == drawings.box_of(older, "yes") == 20
    assert drawings.box_of(older, "auto") is None
    assert "of an earlier version" in drawings.describe(older, "auto")


def test_the_largest_picture_is_that_of_the_conversion(tmp_path):
    _, dataset = reader_of([written(digit)[..., 0] for digit in range(10)], tmp_path)
    assert dataset.max_pixels == 64_000_000
    assert Dataset.of(dataset.directory, {**dataset.description, "max_pixels": 7}).max_pixels == 7
    for key, value in (("max_pixels", 0), ("light_strokes", True), ("light_strokes", {"longer_side": "20"})):
        with pytest.raises(UserError, match=f"{key} must"):
            Dataset.of(dataset.directory, {**dataset.description, key: value})
