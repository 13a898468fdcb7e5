"""Decoding, and every preprocessing family in evaluation and in training."""

import cv2
import numpy as np
import pytest

from pipeline.preprocess import PREPROCESSINGS, decode, resize
from tfcompat import tf

SIZE = 16
PICTURE = cv2.resize(np.random.default_rng(0).uniform(0, 255, (5, 7, 3)).astype(np.float32), (40, 30))
GRAY = PICTURE[..., :1]
VGG_MEAN = np.float32([123.68, 116.78, 103.94])
AUGMENTED = ("cifar", "digits", "inception", "inception_crop", "vgg")


def preprocessed(family, picture, keys, size=SIZE):
    """What a family makes of a picture of a size unknown to the graph, one result for each key."""
    image = tf.placeholder(tf.float32, [None, None, picture.shape[2]])
    key = tf.placeholder(tf.int32, [2])
    with tf.Session() as session:
        if keys is None:
            outputs = PREPROCESSINGS[family](image, size, None)
            assert outputs.shape.as_list() == [size, size, picture.shape[2]]
            return session.run(outputs, {image: picture})
        outputs = PREPROCESSINGS[family](image, size, key)
        assert outputs.shape.as_list() == [size, size, picture.shape[2]]
        return np.stack([session.run(outputs, {image: picture, key: k}) for k in keys])


def scaled(picture, height, width):
    return np.atleast_3d(cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR))


def crop(picture, size):
    top, left = (picture.shape[0] - size) // 2, (picture.shape[1] - size) // 2
    return picture[top : top + size, left : left + size]


def standardized(picture):
    return (picture - picture.mean()) / max(picture.std(), 1 / np.sqrt(picture.size))


EVALUATION = {
    "cifar": lambda x: standardized(scaled(x, SIZE, SIZE)),
    "digits": lambda x: scaled(x, SIZE, SIZE) / 255,
    # The central 87.5 % of 30×40, borders rounded down: 1 and 2 pixels.
    "inception": lambda x: scaled(x[1:-1, 2:-2], SIZE, SIZE) / 127.5 - 1,
    # Short side 256 for a crop of 224, here 18 for 16.
    "inception_crop": lambda x: crop(scaled(x, 18, 24), SIZE) / 127.5 - 1,
    "lenet": lambda x: (scaled(x, SIZE, SIZE) - 128) / 128,
    "unit": lambda x: scaled(x, SIZE, SIZE) / 255,
    "vgg": lambda x: crop(scaled(x, 18, 24), SIZE) - (VGG_MEAN if x.shape[2] == 3 else VGG_MEAN.mean()),
}


def test_every_family_is_tested():
    assert sorted(EVALUATION) == sorted(PREPROCESSINGS)


@pytest.mark.parametrize("picture", [PICTURE, GRAY], ids=["RGB", "gray"])
@pytest.mark.parametrize("family", EVALUATION)
def test_evaluation_equals_numpy_and_opencv(family, picture):
    np.testing.assert_allclose(preprocessed(family, picture, None), EVALUATION[family](picture), atol=1e-3)


@pytest.mark.parametrize("shape", [(30, 40), (7, 90), (60, 80), (11, 13)])
def test_resize_equals_opencvs(shape):
    np.testing.assert_allclose(tf_run(resize(tf.constant(PICTURE), *shape)), scaled(PICTURE, *shape), atol=1e-3)


def tf_run(fetches):
    with tf.Session() as session:
        return session.run(fetches)


@pytest.mark.parametrize(
    ("picture", "channels"), [(PICTURE, 3), (GRAY, 3), (GRAY, 1)], ids=["RGB", "gray to RGB", "gray"]
)
@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_decode_equals_opencvs_bit_for_bit(extension, picture, channels):
    noisy = np.clip(picture + np.random.default_rng(1).normal(0, 20, picture.shape), 0, 255).astype(np.uint8)
    encoded = cv2.imencode(extension, noisy)[1]
    expected = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB if channels == 3 else cv2.IMREAD_GRAYSCALE)
    decoded = decode(tf.constant(encoded.tobytes()), channels)
    assert decoded.shape.as_list() == [None, None, channels]
    np.testing.assert_array_equal(tf_run(decoded), np.atleast_3d(expected))


KEYS = [(seed, position) for seed in range(2) for position in range(16)]


@pytest.mark.parametrize("picture", [PICTURE, GRAY], ids=["RGB", "gray"])
@pytest.mark.parametrize("family", AUGMENTED)
def test_training_is_a_function_of_the_key(family, picture):
    results = preprocessed(family, picture, KEYS * 2)
    np.testing.assert_array_equal(results[: len(KEYS)], results[len(KEYS) :])
    with tf.Graph().as_default():  # another graph, another graph seed
        tf.set_random_seed(5)
        tf.random_uniform([])
        np.testing.assert_array_equal(preprocessed(family, picture, KEYS[3:5]), results[3:5])
    distinct = len(np.unique(results[: len(KEYS)].reshape(len(KEYS), -1), axis=0))
    assert distinct > len(KEYS) / 2  # digits has 25 places to crop at


@pytest.mark.parametrize("family", sorted(set(PREPROCESSINGS) - set(AUGMENTED)))
def test_the_others_do_not_augment(family):
    for trained in preprocessed(family, PICTURE, KEYS[:2]):
        np.testing.assert_array_equal(trained, preprocessed(family, PICTURE, None))


def shifted(picture):
    """All crops of a picture that has a border of an eighth of its size in zeros, (top, left) to crop."""
    border = SIZE // 8
    padded = np.pad(picture, [(border, border), (border, border), (0, 0)])
    places = [(top, left) for top in range(2 * border + 1) for left in range(2 * border + 1)]
    return {(top, left): padded[top : top + SIZE, left : left + SIZE] for top, left in places}


def matches(result, candidates):
    return [name for name, candidate in candidates.items() if np.abs(candidate - result).max() < 1e-3]


def test_digits_move_and_are_not_mirrored():
    candidates = shifted(scaled(PICTURE, SIZE, SIZE) / 255)
    found = [matches(result, candidates) for result in preprocessed("digits", PICTURE, KEYS)]
    assert {len(f) for f in found} == {1}
    assert {f[0][0] for f in found} == {f[0][1] for f in found} == set(range(5))


def test_cifar_moves_and_mirrors():
    crops = shifted(scaled(PICTURE, SIZE, SIZE))
    candidates = {(*at, False): standardized(c) for at, c in crops.items()}
    candidates |= {(*at, True): standardized(c[:, ::-1]) for at, c in crops.items()}
    found = [matches(result, candidates) for result in preprocessed("cifar", PICTURE, KEYS)]
    assert {len(f) for f in found} == {1}
    tops, lefts, mirrored = zip(*(f[0] for f in found), strict=True)
    assert set(tops) == set(lefts) == set(range(5))
    assert 6 < sum(mirrored) < 26  # of 32: 3.5 deviations


def test_vgg_scales_crops_and_mirrors():
    """On a picture whose red is its row and whose green is its column."""
    side = 64
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32)
    results = preprocessed("vgg", np.stack([rows, columns, 0 * rows], -1), KEYS) + VGG_MEAN
    np.testing.assert_allclose(results[..., 2], 0, atol=1e-4)
    inner = results[:, 2:-2, 2:-2]
    row_steps = np.diff(inner[..., 0], axis=1).mean((1, 2))
    column_steps = np.diff(inner[..., 1], axis=2).mean((1, 2))
    np.testing.assert_allclose(row_steps, np.abs(column_steps), rtol=0.02)  # the aspect stays
    assert 6 < (column_steps < 0).sum() < 26
    scales = side / row_steps  # the short side: 256 to 512 for 224
    assert 17 < scales.min() < 22
    assert 32 < scales.max() < 38
    assert len(np.unique(results[:, 0, 0, 0].round(1))) > 16  # crops


def test_inception_takes_boxes_and_mirrors():
    side = 60
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32)[..., None] * 2 + 64  # to 182: nothing is clipped

    def box(ramp, axis):
        """Extent of the box along an axis, in shares of the side; negative where mirrored."""
        results = (preprocessed("inception", ramp, KEYS) + 1) * 127.5
        return np.diff(results[:, 2:-2, 2:-2], axis=axis).mean((1, 2, 3)) * SIZE / 2 / side

    height, width = box(rows, 1), box(columns, 2)
    assert height.min() > 0  # upright
    assert 6 < (width < 0).sum() < 26
    area, aspect = height * np.abs(width), np.abs(width) / height
    assert 0.03 < area.min() < 0.2
    assert 0.8 < area.max() <= 1.01
    assert 0.7 < aspect.min() < 0.85  # a box has whole pixels
    assert 1.15 < aspect.max() < 1.4


def test_inception_crop_trains_as_inception():
    np.testing.assert_array_equal(
        preprocessed("inception_crop", PICTURE, KEYS[:4]), preprocessed("inception", PICTURE, KEYS[:4])
    )


def test_inception_changes_brightness_and_saturation():
    color = np.float32([200, 100, 100])
    results = (preprocessed("inception", np.broadcast_to(color, (8, 8, 3)), KEYS) + 1) * 127.5
    np.testing.assert_allclose(results - results[:, :1, :1], 0, atol=1e-3)
    brightness = results[:, 0, 0, 0] - 200  # of HSV, which saturation leaves
    assert -32 <= brightness.min() < -20
    assert 20 < brightness.max() <= 32
    saturation = (results[:, 0, 0, 0] - results[:, 0, 0, 1]) / 100
    np.testing.assert_allclose(results[..., 1], results[..., 2], atol=1e-3)
    assert 0.5 <= saturation.min() < 0.65
    assert 1.35 < saturation.max() <= 1.5


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("channels", [1, 3])
def test_inception_is_clipped_to_its_range(channels, level):
    results = preprocessed("inception", np.full((8, 8, channels), level, np.float32), KEYS)
    assert np.abs(results).max() == 1
    assert 1 - 2 * 32 / 255 - 1e-5 <= np.abs(results).min() < 0.9
