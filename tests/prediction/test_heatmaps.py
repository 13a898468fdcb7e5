"""Class activation maps, on graphs small enough to compute by hand."""

import json
import pathlib

import cv2
import numpy as np
import pytest

from classifier import Classifier
from engine.metrics import class_logits
from prediction import heatmaps
from tfcompat import slim, tf


@pytest.fixture(autouse=True)
def _graph_of_its_own():
    with tf.Graph().as_default():
        yield


def test_the_cam_is_the_feature_map_times_the_gradient_of_the_winning_class():
    images = tf.placeholder(tf.float32, [None, 8, 8, 1])
    weights = np.zeros((64, 3), np.float32)
    weights[9, 2], weights[20, 2], weights[30, 2], weights[40, 0] = 2, 1, -1, 9
    logits = tf.reshape(tf.nn.relu(images), [-1, 64]) @ weights
    pixels = np.zeros((1, 8, 8, 1), np.float32)
    pixels.flat[[9, 20, 30]] = 1, 1, 1  # logits 0, 0, 2: class 2, less a third of all
    with tf.Session() as session:
        (cam,) = session.run(heatmaps.class_activation_map(images, logits), {images: pixels})
    expected = np.zeros(64)
    expected[[9, 20]] = 1, 0.5  # evidence against the class is not shown
    np.testing.assert_allclose(cam.ravel(), expected, rtol=1e-6)


def test_both_classes_of_a_sigmoid_unit_are_explained():
    images = tf.placeholder(tf.float32, [None, 8, 8, 1])
    weights = np.zeros((64, 1), np.float32)
    weights[5], weights[50] = 1, -1
    logits = class_logits(tf.reshape(images, [-1, 64]) @ weights)
    pixels = np.zeros((3, 8, 8, 1), np.float32)
    pixels[0].flat[5] = pixels[1].flat[50] = 1  # the third has no evidence
    with tf.Session() as session:
        cam = session.run(heatmaps.class_activation_map(images, logits), {images: pixels}).reshape(3, 64)
    assert [values.argmax() for values in cam[:2]] == [5, 50]
    np.testing.assert_array_equal(cam.max(1), [1, 1, 0])


def test_the_last_map_of_seven_places_is_taken_and_no_kernel_or_other_branch():
    images = tf.placeholder(tf.float32, [None, 28, 28, 3])
    net = slim.conv2d(images, 4, 9, stride=4, scope="seven")
    logits = tf.reduce_mean(slim.conv2d(net, 5, 8, stride=2), [1, 2])  # 4×4; its kernel is 8×8
    slim.conv2d(images, 2, 3, scope="beside")
    taken = heatmaps.last_map(images, logits)
    assert taken.shape.as_list() == [None, 7, 7, 4]
    assert taken.name.startswith("seven/")
    assert heatmaps.last_map(images, tf.reduce_mean(images, [1, 2])) is images


def test_the_parts_are_grad_cam_and_layer_cam_as_their_papers_define_them():
    images = tf.placeholder(tf.float32, [None, 28, 28, 3])
    fine = slim.conv2d(images, 6, 3, stride=2, scope="fine")
    coarse = slim.conv2d(fine, 5, 3, stride=2, scope="coarse")
    logits = slim.conv2d(tf.reduce_mean(coarse, [1, 2], keepdims=True), 4, 1, activation_fn=None, scope="head")[:, 0, 0]
    best = tf.reduce_max(logits, 1) - tf.reduce_mean(logits, 1)
    tensors = [coarse, fine, *tf.gradients(best, [coarse, fine]), heatmaps.class_activation_map(images, logits)]
    tf.set_random_seed(3)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        pixels = np.random.default_rng(0).normal(size=(2, 28, 28, 3))
        last, middle, d_last, d_middle, cams = session.run(tensors, {images: pixels})
    for i in range(2):
        # Grad-CAM, equations 1 and 2: weights are means of the gradient over the places.
        grad_cam = np.maximum((last[i] * d_last[i].mean((0, 1))).sum(2), 0)
        layer_cam = np.maximum((middle[i] * np.maximum(d_middle[i], 0)).sum(2), 0)  # equations 5 and 6
        padded = np.pad(layer_cam, [(0, 1), (0, 1)], constant_values=np.nan)
        layer_cam = np.nanmean([padded[y : 14 + y, x : 14 + x] for y in (0, 1) for x in (0, 1)], axis=0)
        product = cv2.resize(grad_cam, (14, 14), interpolation=cv2.INTER_LINEAR) * layer_cam
        np.testing.assert_allclose(cams[i], product / product.max(), rtol=1e-4, atol=1e-6)


def test_a_strided_convolution_of_single_pixels_leaves_no_grid():
    """It reads every second place of the finer map: the others have no gradient."""
    images = tf.placeholder(tf.float32, [None, 28, 28, 1])
    fine = tf.nn.relu(slim.conv2d(images, 1, 1, 2, weights_initializer=tf.ones_initializer()))
    coarse = slim.conv2d(fine, 1, 1, 2, weights_initializer=tf.ones_initializer())
    mean = tf.reduce_mean(coarse, [1, 2])
    cam = heatmaps.class_activation_map(images, tf.concat([mean, -mean], 1))
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        np.testing.assert_allclose(session.run(cam, {images: np.ones((1, 28, 28, 1))})[0, :-1, :-1], 1, atol=0.01)


def test_a_branch_beside_a_shortcut_is_no_map():
    images = tf.placeholder(tf.float32, [None, 16, 16, 3])
    trunk = slim.conv2d(images, 4, 3, stride=2, scope="trunk")
    branch = slim.conv2d(trunk, 4, 3, scope="branch")  # the last with 8×8 places
    block = slim.max_pool2d(trunk, 1, 2) + slim.conv2d(branch, 4, 3, stride=2)
    taken = heatmaps.last_map(images, tf.reduce_mean(block, [1, 2]))
    assert taken.name.startswith("trunk/")


SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared/data"
WEIGHTS, PICTURES = SHARED / "weights/mobilenet_v1_1.0_224_slim.npz", SHARED / "imagenet_sample/images"


@pytest.mark.skipif(not (WEIGHTS.exists() and PICTURES.exists()), reason=f"needs {WEIGHTS} and {PICTURES}")
def test_the_pointing_game(tmp_path):
    archive = np.load(WEIGHTS)
    with tf.Session() as session:
        for name in archive.files:
            tf.get_variable(name.replace("|", "/"), initializer=archive[name])
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(tmp_path / "model.ckpt-0"))
    boxes = json.loads((pathlib.Path(__file__).parent / "boxes.json").read_text())
    classifier = Classifier.load(tmp_path / "model.ckpt-0", net="mobilenet_v1", preprocessing="inception_crop")
    hits = centres = 0
    for found in classifier.stream([PICTURES / name for name in boxes], cam=True):
        name = pathlib.Path(found.file).name
        height, width = cv2.imread(found.file).shape[:2]
        scale = 256 / min(height, width)  # the input is the centre of the picture after its short side became 256
        cam = cv2.resize(found.cam, (224, 224), interpolation=cv2.INTER_CUBIC)
        row, column = np.unravel_index(cam.argmax(), cam.shape)
        x, y = (0.5 + (place + 0.5 - 112) / side / scale for place, side in ((column, width), (row, height)))
        hits += any(left <= x <= right and top <= y <= bottom for left, top, right, bottom in boxes[name])
        centres += any(left <= 0.5 <= right and top <= 0.5 <= bottom for left, top, right, bottom in boxes[name])
    assert (len(boxes), centres) == (30, 25)
    assert hits >= 29  # measured: 30; 24 with Grad-CAM alone


@pytest.mark.parametrize(("channels", "side", "shown"), [(1, 28, 224), (3, 300, 300)])
def test_overlay_colors_only_the_places_of_the_map(channels, side, shown):
    image = np.zeros((side, side, channels), np.float32)
    image[: side // 2] = 1
    cam = np.zeros((7, 7), np.float32)
    cam[5, 3] = 1
    drawn = heatmaps.overlay(image, cam)
    assert (drawn.shape, drawn.dtype) == ((shown, shown, 3), np.uint8)
    assert drawn[0, 0].tolist() == [255] * 3
    assert drawn[-1, 0].tolist() == [0] * 3
    red, green, blue = drawn[round(shown * 5.5 / 7), shown // 2].astype(int)
    assert red > 50 > 10 > green + blue
