"""Pictures whose samples Pillow would lose without a word: planes of grey, samples that are not declared, and those of
16 bits that a range scales, or that use a small part of it."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile

from errors import UserError
from pipeline import bands, images
from pipeline.convert import convert
from pipeline.images import ImageError, PictureFormat

RANDOM = np.random.default_rng(0)
EIGHT = RANDOM.integers(0, 256, (20, 24, 4), np.uint8)
DARK = RANDOM.integers(0, 4000, (20, 24, 4), np.uint16)
DARK[..., 3] = 65535
RANGE = (0.0, 4000.0)


def tiff(array, photometric="minisblack", planar=False, **options):
    file = io.BytesIO()
    array, layout = (np.moveaxis(array, -1, 0), "separate") if planar else (array, "contig")
    tifffile.imwrite(file, array, photometric=photometric, planarconfig=layout, **options)
    return file.getvalue()


def png(array):
    """Of 16 bits: [H, W], or [H, W, C] of grey with transparency, RGB, or RGB with transparency."""
    if array.ndim == 2 or array.shape[2] > 2:
        bgr = array[..., [2, 1, 0, 3][: array.shape[2]]] if array.ndim == 3 else array
        return cv2.imencode(".png", bgr)[1].tobytes()
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", *array.shape[1::-1], 16, 4, 0, 0, 0)), (b"IDAT", zlib.compress(rows))]
    chunks = [
        struct.pack(">I", len(b)) + t + b + struct.pack(">I", zlib.crc32(t + b)) for t, b in [*parts, (b"IEND", b"")]
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def scaled(values):
    return np.rint(np.minimum(values / RANGE[1], 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_planes_of_grey_are_never_the_first_of_them_alone(samples):
    data = tiff(EIGHT[..., :samples], planar=True)
    found = bands.channels_of(data) or 3
    assert found == samples
    np.testing.assert_array_equal(images.store(data, PictureFormat(found)).pixels, EIGHT[..., :samples])
    if samples != 3:
        with pytest.raises(ImageError, match=f"has {samples} channels; 3 are needed"):
            images.store(data, PictureFormat(3))


def test_a_sample_that_is_not_declared_needs_the_number():
    two = tiff(EIGHT[..., :2], extrasamples=["unspecified"])
    four = tiff(EIGHT, "rgb", extrasamples=["unspecified"])
    with pytest.raises(
        UserError, match=r"grey and one sample more.* --channels 2 stores all samples, --channels 1 leaves"
    ):
        bands.channels_of(two)
    with pytest.raises(UserError, match=r"RGB and one sample more.*--channels 4 .*--channels 3 .*pipeline.convert"):
        bands.channels_of(four)
    for data, usual in ((two, 1), (four, 3)):
        np.testing.assert_array_equal(images.store(data, PictureFormat(usual)).pixels, EIGHT[..., :usual])
        np.testing.assert_array_equal(images.store(data, PictureFormat(usual + 1)).pixels, EIGHT[..., : usual + 1])
    for photometric, samples in (("minisblack", 2), ("rgb", 4)):
        assert bands.channels_of(tiff(EIGHT[..., :samples], photometric, extrasamples=["unassalpha"])) is None


@pytest.mark.parametrize("make", [png, lambda a: tiff(a, "rgb", extrasamples=["unassalpha"]),
                                  lambda a: tiff(a, "rgb", extrasamples=["unspecified"])])  # fmt: skip
def test_a_range_scales_the_colours_of_transparent_pictures(make):
    opaque = images.store(make(DARK), PictureFormat(3, sample_range=RANGE))
    np.testing.assert_array_equal(opaque.pixels, scaled(DARK[..., :3]))


def test_a_range_leaves_transparency_as_it_is():
    grey = DARK[..., [0, 3]].copy()
    one = PictureFormat(1, sample_range=RANGE)
    np.testing.assert_array_equal(images.store(png(grey), one).pixels, scaled(grey[..., :1]))
    half = DARK.copy()
    half[:10, :, 3] = 0
    for data in (png(half), tiff(half, "rgb", extrasamples=["unassalpha"])):
        pixels = images.store(data, one._replace(channels=3)).pixels
        assert (pixels[:10] == 255).all()  # white
        np.testing.assert_array_equal(pixels[10:], scaled(half[10:, :, :3]))
    with pytest.raises(ImageError, match=r"--sample-range for a TIFF with associated .*--channels 4"):
        images.store(tiff(half, "rgb", extrasamples=["assocalpha"]), one._replace(channels=3))


KINDS = {
    "grey png": (lambda v: png(v[..., 0]), ".png"),
    "grey and alpha png": (lambda v: png(v[..., [0, 3]]), ".png"),
    "png": (lambda v: png(v[..., :3]), ".png"),
    "transparent png": (png, ".png"),
    "grey tiff": (lambda v: tiff(v[..., 0].copy()), ".tif"),
    "tiff": (lambda v: tiff(v[..., :3].copy(), "rgb"), ".tif"),
    "transparent tiff": (lambda v: tiff(v, "rgb", extrasamples=["unassalpha"]), ".tif"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_dark_pictures_of_16_bits_stop_the_conversion(kind, tmp_path):
    make, ending = KINDS[kind]
    for number in range(8):
        place = tmp_path / "raw" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(number).integers(0, 4000, (8, 9, 4), np.uint16)
        values[..., 3] = 65535
        (place / f"{number}{ending}").write_bytes(make(values))
    raw = str(tmp_path / "raw")
    with pytest.raises(
        UserError, match=r"training pictures is (3,\d\d\d|4,095); .*nearly black.*--sample-range 0 10000"
    ):
        convert("folder", str(tmp_path / "out"), raw)
    convert("folder", str(tmp_path / "ranged"), raw, sample_range=RANGE)
    for name in ("8", "10", "12", "14", "16"):  # some in train
        values[..., :3] = RANDOM.integers(0, 65536, (8, 9, 3))
        (tmp_path / "raw" / "a" / f"{name}{ending}").write_bytes(make(values))
    convert("folder", str(tmp_path / "out"), raw)


def test_pictures_that_declare_their_range_are_not_called_dark():
    assert images.store(images.encode_png(EIGHT[..., :3]).data).highest is None
    declared = [(340, 3, 1, 0, True), (341, 3, 1, 4000, True)]
    assert images.store(tiff(DARK[..., 0].copy(), extratags=declared)).highest is None
    assert images.store(tiff(65535 - DARK[..., 0], "miniswhite")).highest is None
    assert images.store(b"P5\n24 20\n65535\n" + DARK[..., 0].astype(">u2").tobytes()).highest is None
