"""Pictures that are not square: --image-size 224x320."""

import json
import pathlib

import cv2
import numpy as np
import pytest

import config
import nets
from classifier import Classifier
from config import Config
from errors import UserError
from export import export
from pipeline.convert import convert
from pipeline.preprocess import CENTER_CROPPED, FAMILIES, Preprocessor
from pipeline.statistics import Statistics
from presets import parse_command_line
from sizes import Size, as_size, sides
from tfcompat import tf
from tiny_net import configured, tensors, train

HEIGHT, WIDTH = 24, 40
PICTURE = cv2.resize(np.random.default_rng(0).uniform(0, 255, (6, 7, 3)).astype(np.float32), (90, 60)).round()
STATISTICS = Statistics(np.full(3, 100.0), np.full(3, 9.0), np.float64([4, 2, 1]), np.eye(3))
OF_EACH_PIXEL = ("min_max", "standardize")


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ("224", 224),
        ("224x320", (224, 320)),
        ("224×320", (224, 320)),
        ([8, 8], 8),
        ((8, 9), (8, 9)),
        (7, 7),
        (np.int64(7), 7),
        ((np.int32(8), 9), (8, 9)),
    ],
)
def test_a_size_is_a_number_or_height_and_width(given, size):
    found = as_size(given)
    assert found == size
    assert type(found) is (int if isinstance(size, int) else Size)
    assert sides(found) == (size if isinstance(size, tuple) else (size, size))
    assert Config.of(image_size=given).input.image_size == size


@pytest.mark.parametrize("text", ["", "x", "224x", "x224", "2x3x4", "-1", "2.5", "1e3", "224,320", "224 x 320", "٣"])
def test_other_texts_are_refused(text, capsys):
    with pytest.raises(UserError, match=r"--image-size is .*224x320"):
        Config.of(image_size=text)
    with pytest.raises(SystemExit) as stopped:
        parse_command_line(["digits", "--image-size", text])
    assert stopped.value.code == 2


@pytest.mark.parametrize("value", [(20, 16, 3), (20,), 20.0, True, (20, "16"), {}])
def test_other_values_are_refused(value, tmp_path):
    words = "it must be a number of pixels, or height and width, such as 224 or 224x320"
    with pytest.raises(UserError, match=f"--image-size is .*; {words}"):
        Config.of(image_size=value)
    (tmp_path / "config.json").write_text(json.dumps(Config().flat() | {"image_size": value}))
    with pytest.raises(UserError, match=f"mend or restore .*config.json: image_size is .*; {words}"):
        config.load(str(tmp_path / "config.json"))


@pytest.mark.parametrize("text", ["0x5", "5x0", "4097x5", "5x4097"])
def test_each_side_has_the_range_of_a_size(text):
    with pytest.raises(UserError, match=r"--image-size is .* at least 1 and at most 4,096"):
        config.check(parse_command_line(["digits", "--image-size", text]))


def test_a_size_is_kept_in_config_json(tmp_path):
    for given in (24, "24x40"):
        config.save(Config.of(image_size=given), str(tmp_path / "config.json"))
        assert config.load(str(tmp_path / "config.json")) == Config.of(image_size=given)


def outputs(family, *, picture=PICTURE, key=None, crops=False, size=(HEIGHT, WIDTH)):
    encoded = tf.constant(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
    to = Preprocessor(family, size, 3, STATISTICS)
    given = to.picture(encoded)
    made = to.train(given, tf.constant(key)) if key else to.crops(given) if crops else to.evaluate(given)
    with tf.Session() as session:
        return made.shape.as_list(), session.run(made)


@pytest.mark.parametrize("family", sorted(set(FAMILIES).difference(OF_EACH_PIXEL)))
def test_every_family_makes_pictures_of_the_height_and_width(family):
    for key in (None, [3, 5]):
        shape, made = outputs(family, key=key)
        assert shape == [HEIGHT, WIDTH, 3] == list(made.shape)
        assert made.std() > 0


@pytest.mark.parametrize("height_and_width", [(60, 90), (90, 60), (30, 300), (300, 30)])
def test_the_centre_is_cut_after_a_resize_that_just_covers_the_size(height_and_width):
    picture = cv2.resize(PICTURE, height_and_width[::-1]).round()
    _, made = outputs("vgg", picture=picture)
    cover = round(HEIGHT * 256 / 224), round(WIDTH * 256 / 224)
    scale = max(side / whole for side, whole in zip(cover, height_and_width, strict=True))
    rows, columns = (round(side * scale) for side in height_and_width)
    whole = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_LINEAR)
    top, left = (rows - HEIGHT) // 2, (columns - WIDTH) // 2
    expected = whole[top : top + HEIGHT, left : left + WIDTH] - np.float32([123.68, 116.78, 103.94])
    # Of a very long picture only a part is resized, whose length is rounded: half a pixel at most.
    close = 1e-2 if max(height_and_width) < 300 else 12
    np.testing.assert_allclose(made, expected, atol=close)


@pytest.mark.parametrize("family", CENTER_CROPPED)
def test_ten_crops_are_corners_and_centre(family):
    shape, made = outputs(family, crops=True)
    assert shape == [10, HEIGHT, WIDTH, 3]
    np.testing.assert_allclose(made[4], outputs(family)[1], atol=1e-3)
    np.testing.assert_array_equal(made[5:], made[:5, :, ::-1])
    assert len({crop.tobytes() for crop in made[:5]}) == 5


def test_vgg_crops_keep_the_aspect():
    """A ramp along the height and one along the width: their slopes in the crop are those of one scale."""
    down, right = np.mgrid[0:120, 0:200].astype(np.float32)
    ramps = np.stack([down, right, 0 * down], 2)
    for key in ([0, 1], [7, 2], [5, 9]):
        _, made = outputs("vgg", picture=ramps, key=key)
        made = made + np.float32([123.68, 116.78, 103.94])
        rise = (made[-3, 20, 0] - made[2, 20, 0]) / (HEIGHT - 5), abs(made[12, -3, 1] - made[12, 2, 1]) / (WIDTH - 5)
        assert rise[0] == pytest.approx(rise[1], rel=0.06)


def test_preprocessing_of_a_square_is_as_with_one_number():
    for family in ("vgg", "alexnet", "inception_crop", "cifar"):
        one, pair = outputs(family, key=[1, 2], size=32), outputs(family, key=[1, 2], size=Size(32, 32))
        np.testing.assert_array_equal(one[1], pair[1])


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    """Photographs of 30×50 of two classes: stripes from left to right, and from top to bottom."""
    place, random = tmp_path_factory.mktemp("stripes"), np.random.default_rng(0)
    for name, axis in (("lying", 0), ("standing", 1)):
        (place / "raw" / name).mkdir(parents=True)
        for i in range(30):
            wave = np.sin(np.arange((30, 50)[axis]) * 0.9 + i) * 60 + 128
            picture = np.broadcast_to(wave[:, None] if axis == 0 else wave[None], (30, 50))[..., None]
            picture = np.clip(picture + random.normal(0, 12, (30, 50, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(place / "raw" / name / f"{i:02d}.png"), picture)
    convert("folder", str(place / "data"), str(place / "raw"))
    return place


def test_a_run_of_pictures_that_are_not_square(stripes, capsys):
    """Trained, resumed to the bit, evaluated, predicted and exported."""
    settings = ["--data", str(stripes / "data"), "--image-size", "16x28", "--batch-size", "8"]
    settings += ["--preprocessing", "cifar", "--schedule", "constant"]
    whole, halves = (str(stripes / name) for name in ("whole", "halves"))
    assert train(configured("--run-dir", whole, *settings)) == 0
    assert train(configured("--run-dir", halves, *settings, "--total-steps", "20")) == 0
    assert train(configured("--run-dir", halves, *settings, "--total-steps", "40")) == 0
    out = capsys.readouterr().out
    assert "tiny, 16×28 px, preprocessing cifar" in out
    expected, got = (tensors(pathlib.Path(run) / "model.ckpt-40") for run in (whole, halves))
    assert expected.keys() == got.keys()
    assert expected["tiny/logits/weights"].shape == (16 * 28 * 4, 2)
    assert all(np.array_equal(expected[name], got[name]) for name in expected)

    net = Classifier.load(whole)
    assert net.preprocessor.size == net.trained_size == (16, 28)
    assert net.inputs().shape.as_list() == [None, 16, 28, 3]
    evaluation = net.evaluate("train")
    assert evaluation.summary.top1 > 0.9
    assert json.loads(json.dumps(evaluation.as_dict()))["image_size"] == [16, 28]
    predictions = net.predict(stripes / "raw")
    wrong = [each.file for each in predictions if each.top[0][0] not in each.file]
    assert len(predictions) == 60
    assert len(wrong) <= 6

    made = export(net, "onnx", stripes / "onnx")
    metadata = json.loads((stripes / "onnx" / "metadata.json").read_text())
    assert (metadata["height"], metadata["width"]) == (16, 28)
    assert made.differences


@pytest.mark.parametrize("name", ["resnet_v2_50", "mobilenet_v1_025", "inception_v1", "vgg_11", "alexnet_v2"])
def test_fully_convolutional_nets_have_the_same_variables(name):
    net = nets.find(name)
    assert net.variable_shapes(7, Size(240, 336)) == net.variable_shapes(7)


def test_a_net_that_is_too_small_in_one_side_is_refused():
    with pytest.raises(UserError, match="pictures of 16×300: --image-size must be at least"):
        nets.find("alexnet_v2").variable_shapes(7, (16, 300))
