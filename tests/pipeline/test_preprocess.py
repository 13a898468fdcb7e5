"""Decoding, and every preprocessing family in evaluation and in training."""

import cv2
import numpy as np
import pytest
import scipy.ndimage

from errors import UserError
from pipeline.augmentation import Affine, affine
from pipeline.pictures import Picture, decode, resize
from pipeline.preprocess import CENTER_CROPPED, FAMILIES, Preprocessor, ten_crops
from pipeline.statistics import Statistics
from tfcompat import tf

SIZE = 16
PICTURE = cv2.resize(np.random.default_rng(0).uniform(0, 255, (5, 7, 3)).astype(np.float32), (40, 30)).round()
GRAY = PICTURE[..., :1]
VGG_MEAN = np.float32([123.68, 116.78, 103.94])
AUGMENTED = ("alexnet", "cifar", "digits", "flip", "inception", "inception_crop", "keras_affine", "torchvision", "vgg")


def statistics(channels):
    """Of training pictures of 20×24, some of whose pixels never change."""
    random = np.random.default_rng(7)
    pictures = random.integers(0, 256, (9, 20, 24, channels)).astype(float)
    pictures[:, 3:9] = 17
    covariance = np.cov(pictures.reshape(-1, channels).T, bias=True).reshape(channels, channels)
    eigenvalues, vectors = np.linalg.eigh(covariance)
    pixels = {"mean": pictures.mean(0), "deviation": pictures.std(0)}
    pixels |= {"minimum": pictures.min(0), "maximum": pictures.max(0)}
    pixels["deviation"][3:9] = 0  # of 17s NumPy's is 1e-15
    mean = pictures.mean((0, 1, 2))
    return Statistics(mean, pictures.std((0, 1, 2)), eigenvalues[::-1], vectors.T[::-1], pixels)


def preprocessed(family, picture, keys, size=SIZE, crops=False):
    """The result of a family for a picture of a size unknown to the graph, one for each key; None for evaluation."""
    encoded, key = tf.placeholder(tf.string, []), tf.placeholder(tf.int32, [2])
    channels = picture.shape[2]
    preprocessor = Preprocessor(family, size, channels, statistics(channels))
    given = preprocessor.picture(encoded)
    if keys is not None:
        outputs = preprocessor.train(given, key)
    else:
        outputs = preprocessor.crops(given) if crops else preprocessor.evaluate(given)
    assert outputs.shape.as_list()[-3:] == [size, size, channels]
    stored = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
    with tf.Session() as session:
        if keys is None:
            return session.run(outputs, {encoded: stored})
        return np.stack([session.run(outputs, {encoded: stored, key: k}) for k in keys])


def scaled(picture, height, width):
    return np.atleast_3d(cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR))


def crop(picture, size):
    top, left = (picture.shape[0] - size) // 2, (picture.shape[1] - size) // 2
    return picture[top : top + size, left : left + size]


def standardized(picture):
    return (picture - picture.mean()) / max(picture.std(), 1 / np.sqrt(picture.size))


def per_pixel(picture, offset, scale):
    scale = np.where(scale == 0, 1, scale)
    return scaled(((scaled(picture, *offset.shape[:2]) - offset) / scale).astype(np.float32), SIZE, SIZE)


def pixels(picture, key):
    return statistics(picture.shape[2]).pixels[key]


def torch_values(picture):
    """Mean and deviation of torchvision's Normalize, which follows x / 255; of one channel the mean of RGB's."""
    values = np.float32([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]) * 255
    return values if picture.shape[2] == 3 else values.mean(1, keepdims=True)


EVALUATION = {
    "alexnet": lambda x: crop(scaled(x, 18, 24), SIZE) - statistics(x.shape[2]).mean,
    "cifar": lambda x: standardized(scaled(x, SIZE, SIZE)),
    "digits": lambda x: scaled(x, SIZE, SIZE) / 255,
    "flip": lambda x: scaled(x, SIZE, SIZE) / 255,
    # The central 87.5 % of 30×40, borders rounded down: 1 and 2 pixels.
    "inception": lambda x: scaled(x[1:-1, 2:-2], SIZE, SIZE) / 127.5 - 1,
    # Short side 256 for a crop of 224, here 18 for 16.
    "inception_crop": lambda x: crop(scaled(x, 18, 24), SIZE) / 127.5 - 1,
    "keras_affine": lambda x: scaled(x, SIZE, SIZE) / 255,
    "min_max": lambda x: per_pixel(x, pixels(x, "minimum"), pixels(x, "maximum") - pixels(x, "minimum")),
    "none": lambda x: scaled(x, SIZE, SIZE),
    "standardize": lambda x: per_pixel(x, pixels(x, "mean"), pixels(x, "deviation")),
    "lenet": lambda x: (scaled(x, SIZE, SIZE) - 128) / 128,
    "torchvision": lambda x: (crop(scaled(x, 18, 24), SIZE) - torch_values(x)[0]) / torch_values(x)[1],
    "unit": lambda x: scaled(x, SIZE, SIZE) / 255,
    "vgg": lambda x: crop(scaled(x, 18, 24), SIZE) - (VGG_MEAN if x.shape[2] == 3 else VGG_MEAN.mean()),
}


def test_every_family_is_tested():
    assert sorted(EVALUATION) == sorted(FAMILIES)


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
    assert distinct == 2 if family == "flip" else distinct > len(KEYS) / 2  # digits has 25 places to crop at


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(AUGMENTED)))
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


def test_flip_mirrors_and_no_more():
    upright = scaled(PICTURE, SIZE, SIZE) / 255
    candidates = {False: upright, True: upright[:, ::-1]}
    found = [matches(result, candidates) for result in preprocessed("flip", PICTURE, KEYS)]
    assert {len(f) for f in found} == {1}
    assert 6 < sum(f[0] for f in found) < 26


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


def test_inception_crop_takes_boxes_and_leaves_colours():
    side = 60
    rows = np.mgrid[0:side, 0:side][0].astype(np.float32)[..., None] * 2 + 64
    results = (preprocessed("inception_crop", rows, KEYS) + 1) * 127.5
    assert results.min() >= 64 - 1e-3
    assert results.max() <= 182 + 1e-3
    heights = np.diff(results[:, 2:-2, 2:-2], axis=1).mean((1, 2, 3)) * SIZE / 2 / side
    assert 0.2 < heights.min() < 0.5
    assert 0.9 < heights.max() <= 1.01


def test_alexnet_moves_mirrors_and_adds_noise_along_the_components():
    larger = scaled(PICTURE, 18, 24)[:, 3:21]
    crops = {(top, left): larger[top : top + SIZE, left : left + SIZE] for top in range(3) for left in range(3)}
    candidates = {(*at, False): c for at, c in crops.items()} | {(*at, True): c[:, ::-1] for at, c in crops.items()}
    stats, found, noise = statistics(3), [], []
    for result in preprocessed("alexnet", PICTURE, KEYS * 4) + stats.mean:
        offsets = {at: (result - candidate).reshape(-1, 3) for at, candidate in candidates.items()}
        at = min(offsets, key=lambda at: offsets[at].std(0).sum())
        assert offsets[at].std(0).max() < 1e-3  # the same for all pixels
        found.append(at)
        noise.append(stats.components @ offsets[at].mean(0) / np.sqrt(stats.eigenvalues))
    assert {at[:2] for at in found} == set(crops)
    alphas = np.array(noise[: len(KEYS)])
    np.testing.assert_allclose(alphas.std(0), 0.1, rtol=0.45)  # of 32 draws
    assert np.abs(np.corrcoef(alphas.T) - np.eye(3)).max() < 0.6
    mirrored = sum(at[2] for at in found[: len(KEYS)])
    assert 6 < mirrored < 26


@pytest.mark.parametrize("family", CENTER_CROPPED)
def test_ten_crops_are_corners_centre_and_their_mirror_images(family):
    larger = scaled(PICTURE, 18, 24)[:, 3:21]
    views = [larger[y : y + SIZE, x : x + SIZE] for y, x in ((0, 0), (0, 2), (2, 0), (2, 2), (1, 1))]
    views += [view[:, ::-1] for view in views]
    values = {"alexnet": (statistics(3).mean, 1), "inception_crop": (127.5, 127.5), "vgg": (VGG_MEAN, 1)}
    offset, scale = {**values, "torchvision": torch_values(PICTURE)}[family]
    results = preprocessed(family, PICTURE, None, crops=True)
    np.testing.assert_allclose(results, (np.stack(views) - offset) / scale, atol=1e-3)
    np.testing.assert_allclose(results[4], preprocessed(family, PICTURE, None), atol=1e-3)
    assert ten_crops(tf.zeros([18, 18, 3]), 16).shape.as_list() == [10, 16, 16, 3]


@pytest.mark.parametrize(
    "parameters",
    [
        {"angle": 30.0}, {"down": 2.5}, {"right": -3.0}, {"shear": 10.0}, {"zoom_y": 0.8, "zoom_x": 1.2},
        {"angle": -35.0, "down": 1.5, "right": 3.0, "shear": 0.2, "zoom_y": 1.1, "zoom_x": 0.9},
    ],
    ids=["rotation", "down", "right", "shear", "zoom", "all"],
)  # fmt: skip
def test_affine_is_kerass(parameters):
    """As keras.preprocessing.image's apply_affine_transform computes it, with SciPy."""
    image = scaled(PICTURE, SIZE, SIZE)
    p = {"angle": 0.0, "down": 0.0, "right": 0.0, "shear": 0.0, "zoom_y": 1.0, "zoom_x": 1.0} | parameters
    a, s = np.deg2rad(p["angle"]), np.deg2rad(p["shear"])
    matrix = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    matrix = matrix @ [[1, 0, p["down"]], [0, 1, p["right"]], [0, 0, 1]]
    matrix = matrix @ [[1, -np.sin(s), 0], [0, np.cos(s), 0], [0, 0, 1]]
    matrix = matrix @ np.diag([p["zoom_y"], p["zoom_x"], 1])
    centre = SIZE / 2 - 0.5
    matrix = [[1, 0, centre], [0, 1, centre], [0, 0, 1]] @ matrix @ [[1, 0, -centre], [0, 1, -centre], [0, 0, 1]]
    expected = [
        scipy.ndimage.affine_transform(image[..., c], matrix[:2, :2], matrix[:2, 2], order=1, mode="nearest")
        for c in range(3)
    ]
    result = affine(tf.constant(image), Affine(**{key: tf.constant(value) for key, value in p.items()}))
    np.testing.assert_allclose(tf_run(result), np.stack(expected, -1), atol=0.02)


def test_keras_affine_turns_shifts_zooms_and_mirrors():
    """On a picture whose value is its column, then its row: the slopes give the transform."""
    side, inner = 64, slice(24, 40)
    ramp = np.tile(np.arange(side, dtype=np.float32), (side, 1))[..., None]
    keys = KEYS * 2
    columns, rows = (
        preprocessed("keras_affine", picture, keys, size=side)[: len(KEYS), inner, inner, 0] * 255
        for picture in (ramp, ramp.transpose(1, 0, 2))
    )
    (xy, xx), (yy, _) = ([np.diff(v, axis=axis).mean((1, 2)) for axis in (1, 2)] for v in (columns, rows))
    mirrored = xx < 0
    assert 6 < mirrored.sum() < 26
    angles = np.rad2deg(np.arctan2(-xy, yy))
    assert -50 < angles.min() < -20
    assert 20 < angles.max() < 50
    zoom = np.hypot(xy, yy)
    assert 0.79 < zoom.min() < 0.9
    assert 1.1 < zoom.max() < 1.21
    assert len(np.unique(columns[:, 8, 8].round(2))) > 24  # shifts


@pytest.mark.parametrize(("family", "lacking"), [("min_max", "pixels"), ("standardize", "pixels"), ("alexnet", "mean")])
def test_missing_statistics_are_named(family, lacking):
    preprocessor = Preprocessor(family, SIZE, 3, statistics(3)._replace(**{lacking: None}))
    picture = preprocessor.picture(tf.constant(b""))
    with pytest.raises(UserError, match=f"--preprocessing {family} needs"):
        preprocessor.evaluate(picture)


# Only what is needed is decoded


@pytest.mark.parametrize(("side", "ratio"), [(64, 1), (33, 1), (32, 2), (17, 2), (16, 4), (9, 4), (8, 8), (7, 8)])
def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(side, ratio):
    picture = cv2.resize(np.random.default_rng(3).uniform(0, 255, (6, 8, 3)).astype(np.float32), (97, 64))
    data = cv2.imencode(".jpg", picture)[1]
    flag = {1: 1, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
    reduced = cv2.imdecode(data, flag[ratio])[..., ::-1].astype(np.float32)
    result = tf_run(Picture.of(tf.constant(data.tobytes()), 3)._replace(in_part=True).resized(side, side))
    np.testing.assert_allclose(result, scaled(reduced, side, side), atol=1e-3)


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize("box", [(0, 0, 30, 40), (3, 5, 20, 11), (29, 39, 1, 1), (0, 7, 30, 33)])
def test_a_window_is_that_part_of_the_whole(extension, box):
    data = cv2.imencode(extension, PICTURE)[1]
    top, left, height, width = box
    whole = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB).astype(np.float32)[top : top + height, left : left + width]
    picture = Picture.of(tf.constant(data.tobytes()), 3)
    np.testing.assert_allclose(tf_run(picture.window(*box, SIZE, SIZE)), scaled(whole, SIZE, SIZE), atol=1e-3)
    result = tf_run(picture._replace(in_part=True).window(*box, SIZE, SIZE))
    if extension == ".png":
        np.testing.assert_allclose(result, scaled(whole, SIZE, SIZE), atol=1e-3)
    else:  # at the border of a window the decoder lacks the neighbours that it smooths colours with
        assert np.abs(result - scaled(whole, SIZE, SIZE)).mean() < 4


def test_training_decodes_in_part_and_evaluation_the_whole(monkeypatch):
    decoded = []
    monkeypatch.setattr(Picture, "window", lambda self, *_: decoded.append(self.in_part) or tf.zeros([SIZE, SIZE, 3]))
    for family in AUGMENTED:
        preprocessor = Preprocessor(family, SIZE, 3, statistics(3))
        picture = preprocessor.picture(tf.constant(b""))
        decoded.clear()
        preprocessor.train(picture, tf.constant([0, 0]))
        preprocessor.evaluate(picture)
        assert decoded == [True, False]


@pytest.mark.parametrize("family", ["vgg", "inception_crop", "alexnet", "inception"])
@pytest.mark.parametrize("shape", [(1, 60000), (60000, 1), (2, 3)])
def test_pictures_of_any_shape_cost_no_more_than_they_must(family, shape):
    picture = np.full((*shape, 1), 100, np.float32)
    for keys in None, KEYS[:1]:
        assert np.ptp(preprocessed(family, picture, keys)) < 1e-3


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
