"""A net for pictures of five channels: trained, evaluated, predicted, exported and fine-tuned, as one for RGB."""

import csv
import json
import pathlib
import re

import cv2
import numpy as np
import pytest

import eval as evaluation
import export
import predict
from channels import named, visible
from checkpoints import shapes_of
from classifier import Classifier
from config import Config, check
from errors import UserError
from exporting.comparison import noise
from nets import NETS, Net
from nets.weights import input_channels, inspect, restorer, write_checkpoint
from nets.weights.restoring import adapted_kernel
from pipeline import preprocess
from pipeline.convert import convert
from pipeline.images import stored_pixels
from pipeline.montage import sheet
from pipeline.preprocess import FAMILIES, Preprocessor
from pipeline.statistics import Statistics
from prediction.heatmaps import overlay
from tfcompat import tf
from tiny_net import configured, exported, train

ROOT = pathlib.Path(__file__).resolve().parent.parent
CUT = re.findall(r"```python\n(.*?)```", (ROOT / "docs/export.md").read_text(), re.DOTALL)[0]


def deep_picture(label, number):
    """Samples of 16 bits from 0 to 10000, [20, 18, 5]; the fourth channel tells the class."""
    values = np.random.default_rng([label, number]).integers(0, 10_000, (20, 18, 5), np.uint16)
    values[..., 3] = values[..., 3] // 4 + 6_000 * label
    return values


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with pictures in `raw`, their shards in `data`, and a run of 30 steps in `run`."""
    directory = tmp_path_factory.mktemp("five")
    for label, name in enumerate(("grass", "water")):
        (directory / "raw" / name).mkdir(parents=True)
        for number in range(20):
            np.save(directory / "raw" / name / f"{number}.npy", deep_picture(label, number))
    convert("folder", str(directory / "data"), str(directory / "raw"), sample_range=(0.0, 10_000.0))
    steps = ("--total-steps", "30", "--validate-every-steps", "30", "--snapshot-every-steps", "30", "--batch-size", "8")
    assert train(configured("--run-dir", str(directory / "run"), "--data", str(directory / "data"), *steps)) == 0
    return directory


def test_the_net_learns_what_only_the_fourth_channel_shows(place):
    figures = Classifier.load(place / "run").evaluate("train").summary
    assert (figures.examples, figures.top1 > 0.9) == (32, True)


def test_a_prediction_equals_the_evaluation(place, capsys):
    per_image, out = place / "per_image.csv", place / "predicted.csv"
    evaluation.main(evaluation.EvalOptions(str(place / "run"), per_image=str(per_image), mistakes=str(place / "m.png")))
    options = {"csv": str(out), "sheet": str(place / "sheet.png"), "explain": str(place / "cam")}
    assert (
        predict.predict(predict.PredictOptions(ckpt=str(place / "run"), pictures=(str(place / "raw"),), **options)) == 0
    )
    with per_image.open() as one, out.open() as two:
        evaluated = {row["file"]: (row["prediction"], float(row["probability"])) for row in csv.DictReader(one)}
        best = [row for row in csv.DictReader(two) if row["rank"] == "1"]
    predicted = {"/".join(row["file"].split("/")[-2:]): (row["label"], float(row["probability"])) for row in best}
    assert len(evaluated) == 4
    for file, (label, probability) in evaluated.items():
        assert predicted[file][0] == label
        assert predicted[file][1] == pytest.approx(probability, abs=1e-6)
    assert cv2.imread(str(place / "sheet.png")).shape[2] == 3
    assert len(list((place / "cam").rglob("*.png"))) == 40


def test_the_thumbnail_of_a_large_picture_is_in_colour(place, tmp_path):
    np.save(tmp_path / "large.npy", np.tile(deep_picture(0, 0), (10, 10, 1)))
    (found,) = Classifier.load(place / "run").predict(tmp_path)
    assert found.error is None
    assert found.thumbnail.shape == (160, 144, 3)


def test_a_picture_of_another_number_is_an_error_of_its_own(place, tmp_path):
    cv2.imwrite(str(tmp_path / "rgb.png"), np.zeros((9, 9, 3), np.uint8))
    (found,) = Classifier.load(place / "run").predict(tmp_path)
    assert found.error == "has 3 channels; 5 are needed"


@pytest.mark.parametrize("format", export.FORMATS)
def test_an_export_takes_five_channels_as_the_client_in_the_docs_cuts_them(place, format):
    directory = place / "export" / format
    exported(place / "run", format, out=str(directory))  # compares it with the checkpoint
    rule = json.loads((directory / "metadata.json").read_text())
    assert (rule["channels"], rule["sample_range"], rule["height"]) == (5, [0, 10_000], 8)
    if format == "onnx":
        from exporting.runtimes import onnx_runtime

        client, file = {}, place / "raw" / "water" / "3.npy"
        exec(CUT, client)
        images = client["cut"](str(file), directory)
        assert images.shape == (8, 8, 5)
        (expected,) = Classifier.load(place / "run").predict(file, top_k="all")
        probabilities = onnx_runtime(directory)(images[np.newaxis])["probabilities"][0]
        for name, probability in expected.top:
            assert probabilities[rule["classes"].index(name)] == pytest.approx(probability, abs=1e-5)


def test_files_of_pictures_are_no_input_of_five_channels(place, tmp_path):
    with pytest.raises(UserError, match="--input jpeg is for grey and RGB, and the net takes 5 channels; leave it out"):
        exported(place / "run", "saved_model", input="jpeg", out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_data_of_other_samples_are_not_evaluated(place, tmp_path):
    raw, run = str(place / "raw"), Classifier.load(place / "run")
    convert("folder", str(tmp_path / "other"), raw, sample_range=(0.0, 9_000.0))
    with pytest.raises(UserError, match=r"with --sample-range 0\.0 9000\.0, .* with 0\.0 10000\.0; convert it with"):
        run.evaluate(data=str(tmp_path / "other"))
    for label, name in enumerate(("grass", "water")):
        (tmp_path / "rgb" / name).mkdir(parents=True)
        for number in range(4):
            pixels = np.uint8(deep_picture(label, number)[..., :3] // 40)
            cv2.imwrite(str(tmp_path / "rgb" / name / f"{number}.png"), pixels)
    convert("folder", str(tmp_path / "three"), str(tmp_path / "rgb"))
    with pytest.raises(UserError, match=r"three has 3 channels, and .*run/model.ckpt-30 takes 5"):
        run.evaluate(data=str(tmp_path / "three"))


def test_tensorboard_shows_the_first_three_channels(place):
    tags = {}
    for events in (place / "run").glob("events.*"):
        for event in tf.train.summary_iterator(str(events)):
            tags |= {value.tag.split("/")[0]: value.image for value in event.summary.value if value.HasField("image")}
    assert {name: image.colorspace for name, image in tags.items() if "/" not in name}["training_inputs"] == 3
    assert tags["weight_filters"].colorspace == 3


def test_what_is_shown():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 16), np.uint8)
    for channels, shown in ((1, [0]), (2, [0]), (3, [0, 1, 2]), (4, [0, 1, 2]), (16, [0, 1, 2])):
        np.testing.assert_array_equal(visible(pixels[..., :channels]), pixels[..., shown])
        drawn = sheet([(pixels[..., :channels], "name")]).axes[0].images[0].get_array()
        np.testing.assert_array_equal(np.atleast_3d(drawn), pixels[..., shown])
        assert overlay(pixels[..., :channels].astype(np.float32), np.zeros((2, 2), np.float32)).shape[2] == 3
    assert [named(channels) for channels in (1, 2, 3, 4)] == ["grey", 2, "RGB", 4]


@pytest.mark.parametrize("channels", [2, 5])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_takes_other_channels(name, channels):
    random = np.random.default_rng(0)
    data = random.integers(0, 256, (12, 10, channels), np.uint8)
    pixels = {"mean": data * 0.9, "deviation": data * 0 + 2.0, "minimum": data * 0.0, "maximum": data * 0 + 255.0}
    components = np.linalg.qr(random.normal(size=(channels, channels)))[0]
    mean = np.arange(channels) * 10.0
    to = Preprocessor(name, 8, channels, Statistics(mean, mean + 1, mean + 1, components, pixels))
    with tf.Graph().as_default(), tf.Session() as session:
        encoded = tf.placeholder(tf.string, [])
        views = to.evaluate(to.picture(encoded)), to.train(to.picture(encoded), tf.constant([0, 1]))
        from pipeline.images import encode_png

        evaluated, trained = session.run(views, {encoded: encode_png(data).data})
        assert evaluated.shape == trained.shape == (8, 8, channels)
        assert np.isfinite(trained).all()
        ground = np.full((8, 8, channels), 100, np.float32)
        if name in ("vgg", "alexnet"):
            grey = preprocess.GRAY_MEAN
            first = {"alexnet": mean, "vgg": [grey] * 2 if channels == 2 else [*preprocess.VGG_MEAN, grey, grey]}[name]
            normalized = np.zeros((8, 8, channels)) + to.normalize(ground)  # of the array itself
            np.testing.assert_allclose(normalized[0, 0], 100 - np.float32(first), rtol=1e-6)


@pytest.mark.parametrize("channels", [2, 4, 16])
def test_the_pictures_of_noise_have_the_channels(channels):
    for data in noise(8, channels):
        assert stored_pixels(data, channels).shape == (10, 12, channels)


KERNEL = np.random.default_rng(0).normal(size=(3, 3, 3, 7)).astype(np.float32)


def test_the_mean_keeps_the_response_to_grey():
    for channels in (1, 2, 5, 16):
        adapted = adapted_kernel(KERNEL, channels, "mean")
        assert (adapted.shape, adapted.dtype) == ((3, 3, channels, 7), np.float32)
        np.testing.assert_allclose(
            adapted, np.repeat(KERNEL.mean(2, keepdims=True), channels, 2) * 3 / channels, 1e-5, 1e-6
        )
        np.testing.assert_allclose(adapted.sum(2), KERNEL.sum(2), rtol=1e-4, atol=1e-6)  # equal channels in
    timm = KERNEL.sum(2, keepdims=True)  # adapt_input_conv for in_chans == 1
    np.testing.assert_allclose(adapted_kernel(KERNEL, 1, "mean"), timm, rtol=1e-5, atol=1e-6)
    grey = KERNEL[:, :, :1]
    np.testing.assert_allclose(adapted_kernel(grey, 3, "mean"), np.repeat(grey / 3, 3, 2), rtol=1e-6)


def test_zeros_keep_rgb():
    adapted = adapted_kernel(KERNEL, 5, "zeros")
    np.testing.assert_array_equal(adapted[:, :, :3], KERNEL)
    assert not adapted[:, :, 3:].any()
    for weights, channels in ((KERNEL, 1), (KERNEL[:, :, :1], 5)):
        with pytest.raises(UserError, match=r"--adapt-channels zeros adds channels to RGB; .* use mean"):
            adapted_kernel(weights, channels, "zeros")
    with pytest.raises(UserError, match="not finite"):
        adapted_kernel(KERNEL * np.inf, 5, "mean")


@pytest.fixture
def rgb_weights(tmp_path):
    """A checkpoint of the tiny net for RGB, and its values."""
    shapes = NETS["tiny"].variable_shapes(2)
    random = np.random.default_rng(1)
    values = {name: random.random(shape).astype(np.float32) for name, shape in shapes.items()}
    write_checkpoint(values, tmp_path / "rgb.ckpt")
    return str(tmp_path / "rgb.ckpt"), values


def fine_tuning(place, start, run, *more):
    steps = ("--total-steps", "2", "--validate-every-steps", "2", "--snapshot-every-steps", "1", "--batch-size", "8")
    rate = ("--learning-rate", "1e-30")  # so that the weights stay as they were set
    data = ("--data", str(place / "data"), "--run-dir", str(run), "--init-from", start)
    return configured(*steps, *rate, *data, *more)


@pytest.mark.parametrize("how", ["mean", "zeros"])
def test_fine_tuning_starts_from_the_adapted_convolution(how, place, rgb_weights, tmp_path, capsys):
    start, values = rgb_weights
    config = fine_tuning(place, start, tmp_path / "run", "--adapt-channels", how, "--ema-decay", "0.5")
    assert train(config) == 0
    assert f"adapted tiny/Conv/weights from 3 to 5 channels: {how}" in capsys.readouterr().out
    reader = tf.train.load_checkpoint(str(tmp_path / "run" / "model.ckpt-2"))
    for suffix in ("", "/ExponentialMovingAverage"):
        np.testing.assert_allclose(
            reader.get_tensor(f"tiny/Conv/weights{suffix}"),
            adapted_kernel(values["tiny/Conv/weights"], 5, how),
            1e-6,
            1e-20,
        )
    np.testing.assert_array_equal(reader.get_tensor("tiny/logits/weights"), values["tiny/logits/weights"])
    assert input_channels(shapes_of(str(tmp_path / "run" / "model.ckpt-2")), NETS["tiny"]) == 5
    resumed = fine_tuning(place, start, tmp_path / "run", "--adapt-channels", how, "--ema-decay", "0.5")
    assert train(resumed.replace(total_steps=3)) == 0
    assert "adapted" not in capsys.readouterr().out


def test_without_the_option_the_error_names_it(place, rgb_weights, tmp_path):
    with pytest.raises(UserError, match=r"is \[3, 3, 3, 4\], .*for 3 channels, and the data 5: --adapt-channels mean"):
        train(fine_tuning(place, rgb_weights[0], tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_only_the_first_convolution_is_adapted(tmp_path, capsys):
    """A narrower net's depthwise kernels differ in the same axis, but are no weights for other pictures."""
    narrow, wide = NETS["mobilenet_v1_025"], NETS["mobilenet_v1_050"]
    values = {name: np.zeros(shape, np.float32) for name, shape in narrow.variable_shapes(2).items()}
    write_checkpoint(values, tmp_path / "narrow.ckpt")
    with tf.Graph().as_default():
        wide.build(tf.zeros([1, 32, 32, 3]), 2, False, 0.0)
        with pytest.raises(UserError, match="does not fit"):
            restorer(str(tmp_path / "narrow.ckpt"), wide, "mean")
    assert "adapted" not in capsys.readouterr().out


def test_there_must_be_something_to_adapt(rgb_weights):
    with tf.Graph().as_default():
        NETS["tiny"].build(tf.zeros([1, 8, 8, 3]), 2, False, 0.0)
        with pytest.raises(UserError, match=r"--adapt-channels mean: no convolution of .* needs it; leave it out"):
            restorer(rgb_weights[0], NETS["tiny"], "mean")
    with pytest.raises(UserError, match="--adapt-channels zeros needs weights to adapt; add --init-from"):
        check(Config.of(adapt_channels="zeros"))


def test_the_own_net_of_a_checkpoint_without_convolutions_takes_its_own_channels():
    dense = Net(function=lambda inputs, num_classes, is_training, scope: (inputs, {}), scope="dense", heads=("logits",))
    assert input_channels({"dense/weights": [4, 2]}, dense) == 3


def test_inspect_takes_a_net_for_five_channels_as_it_is(place):
    report = inspect(str(place / "run" / "model.ckpt-30"), "tiny")
    assert "fits tiny\n" in report
    assert "8 px, 5 channels" in report
