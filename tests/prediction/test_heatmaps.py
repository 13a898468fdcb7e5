"""Class activation maps, on graphs small enough to compute by hand."""

import numpy as np
import pytest

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
