"""Which training pictures count as light strokes on black."""

import gzip
import pathlib

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits

from pipeline import strokes
from pipeline.statistics import Moments

MNIST = pathlib.Path(__file__).resolve().parents[3] / "shared/data/mnist/train-images-idx3-ubyte.gz"
RNG = np.random.default_rng(0)


def measured(pictures):
    moments = Moments(1)
    for picture in pictures:
        moments.add(picture[..., np.newaxis])
    return moments.light_strokes()


def scene(draw, side, blur=0.0):
    """Pictures of a side, drawn at 256 pixels by a function that gets the canvas."""
    pictures = []
    for _ in range(40):
        canvas = np.zeros((256, 256), np.float32)
        draw(canvas)
        canvas = cv2.GaussianBlur(canvas, (0, 0), blur) if blur else canvas
        pictures.append(
            np.clip(cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA), 0, 255).astype(np.uint8)
        )
    return pictures


def number(low, high):
    return int(RNG.integers(low, high))


def letter(canvas):
    at, text = (number(20, 60), number(180, 220)), "ABCDEFGHJKMNRSTXYZ0123456789"[number(0, 28)]
    page = np.zeros(canvas.shape, np.uint8)
    cv2.putText(page, text, at, cv2.FONT_HERSHEY_SIMPLEX, 6, 255, number(12, 22), cv2.LINE_AA)
    canvas += page


def curves(canvas):
    for _ in range(3):
        points = RNG.integers(30, 226, (3, 2)).astype(np.int32)
        cv2.polylines(canvas, [points], False, 255, 8)


def brain(canvas, skull=False):
    inside = np.zeros_like(canvas)
    axes = number(75, 95), number(85, 110)
    cv2.ellipse(inside, (128, 128), axes, 0, 0, 360, 1, -1)
    texture = cv2.GaussianBlur(RNG.normal(size=canvas.shape).astype(np.float32), (0, 0), 6)
    canvas += inside * (90 + 25 * texture / texture.std())
    cv2.circle(canvas, (number(90, 160), number(90, 160)), 20, 30, -1)
    if skull:
        cv2.ellipse(canvas, (128, 128), axes, 0, 0, 360, 250, 7)


def chest(canvas):
    cv2.rectangle(canvas, (number(20, 40), 20), (number(215, 236), 236), 90, -1)
    for y in range(40, 200, 25):
        cv2.ellipse(canvas, (128, y), (80, 14), 0, 180, 360, 180, 6)
    cv2.rectangle(canvas, (118, 20), (138, 236), 210, -1)


def galaxy(canvas):
    y, x = np.mgrid[:256, :256]
    canvas += 255 * np.exp(-np.hypot((x - 128) * RNG.uniform(0.5, 1), y - 128) / RNG.uniform(12, 25))
    for _ in range(number(0, 6)):
        cv2.circle(canvas, (number(20, 236), number(20, 236)), 4, number(80, 255), -1)


def nuclei(canvas):
    for _ in range(12):
        cv2.circle(canvas, (number(20, 236), number(20, 236)), number(6, 16), 255, -1)


def spectrogram(canvas):
    y, x = np.mgrid[:256, :256]
    pitch = RNG.uniform(20, 50)
    for harmonic in range(1, 6):
        line = np.exp(-((y - 250 + harmonic * (pitch + 8 * np.sin(x / 90))) ** 2) / 30)
        canvas += 230 / harmonic * line * ((x > 20) & (x < 236))
    canvas += RNG.gamma(1, 6, canvas.shape)


def clothes(canvas):
    grey = number(120, 255)
    shapes = [
        [(70, 40), (190, 40), (230, 90), (200, 105), (185, 90), (185, 230), (75, 230), (75, 90), (55, 105), (25, 90)],
        [(95, 25), (160, 25), (190, 235), (65, 235)],
        [(20, 130), (100, 100), (236, 110), (240, 180), (20, 190)],
        [
            (60, 30),
            (190, 30),
            (225, 220),
            (190, 220),
            (180, 110),
            (180, 230),
            (70, 230),
            (70, 110),
            (60, 220),
            (30, 220),
        ],
        [(88, 20), (168, 20), (176, 240), (142, 240), (128, 80), (114, 240), (80, 240)],  # trousers
    ]
    cv2.fillPoly(canvas, [np.array(shapes[number(0, 5)], np.int32)], grey)


@pytest.mark.parametrize(
    ("draw", "side"),
    [(letter, 28), (letter, 64), (curves, 105), (curves, 128), (curves, 28)],
)
def test_strokes_are_recognized(draw, side):
    found = measured(scene(draw, side))
    assert found["share"] > 0.9
    assert 0.4 * side < found["longer_side"] <= side


@pytest.mark.parametrize("side", [28, 64])
@pytest.mark.parametrize(
    "draw",
    [brain, lambda canvas: brain(canvas, skull=True), chest, galaxy, nuclei, spectrogram, clothes],
    ids=["brain", "skull", "chest", "galaxy", "nuclei", "spectrogram", "clothes"],
)
def test_other_light_pictures_on_black_are_no_strokes(draw, side):
    assert measured(scene(draw, side)) is None


def test_digits_are_strokes_and_their_negatives_are_not():
    digits = np.rint(load_digits().images * 255 / 16).astype(np.uint8)[:300]
    assert measured(digits)["longer_side"] == 8
    assert measured(255 - digits) is None
    assert measured([*digits, np.zeros((9, 9), np.uint8)]) is None  # of different sizes
    assert measured(digits * 0) is None
    colours = Moments(3)
    colours.add(digits[0][..., np.newaxis].repeat(3, 2))
    assert colours.light_strokes() is None


def test_the_share_does_not_depend_on_the_order_of_sums():
    pictures = np.rint(load_digits().images * 255 / 16).astype(np.uint8)[:40, ..., np.newaxis]
    whole, first, second = Moments(1), Moments(1), Moments(1)
    for i, picture in enumerate(pictures):
        whole.add(picture)
        (first if i < 7 else second).add(picture)
    second.merge(first)
    assert second.light_strokes() == whole.light_strokes() is not None


@pytest.mark.skipif(not MNIST.exists(), reason=f"needs {MNIST}")
def test_mnist_fills_a_box_of_20_pixels():
    with gzip.open(MNIST) as file:
        pictures = np.frombuffer(file.read(16 + 784 * 1000)[16:], np.uint8).reshape(-1, 28, 28)
    found = measured(pictures)
    assert found["share"] > 0.98
    assert found["longer_side"] == 20
    assert strokes.longer_side(255 - pictures[0]) == 0
