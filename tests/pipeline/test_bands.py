"""Pictures of 1 to 16 channels: .npy arrays, TIFFs of bands and deep PNGs are read and stored with the right pixels, or
refused by name; convert finds the number of channels."""

import io
import json
import sys

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from errors import UserError
from pipeline import bands, images, statistics, tfrecord
from pipeline.check import check
from pipeline.convert import convert
from pipeline.convert.sources import Example
from pipeline.convert.sources.own import _is_image
from pipeline.dataset import Dataset
from pipeline.images import ImageError, PictureFormat
from pipeline.pictures import Picture, decode
from tfcompat import tf

RANDOM = np.random.default_rng(0)
HEIGHT, WIDTH = 40, 30
EIGHT = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 5), np.uint8)
DEEP = RANDOM.integers(0, 65536, (HEIGHT, WIDTH, 5), np.uint16)
FIVE = PictureFormat(5)


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def tiff(array, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, **{"photometric": "minisblack", "planarconfig": "contig", **options})
    return file.getvalue()


def scaled(values, low=0, high=65535):
    return np.rint(np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def assert_near(pixels, expected):
    """Equal, but for halves, which another order of arithmetic rounds to the other side."""
    difference = np.abs(pixels.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.03


def planes(array):
    return np.moveaxis(array, 2, 0)


FILES = {
    "npy": npy,
    "npy by columns": lambda array: npy(np.asfortranarray(array)),
    "npy of big-endian": lambda array: npy(array.astype(array.dtype.newbyteorder(">"))),
    "chunky": tiff,
    "planar": lambda array: tiff(planes(array), planarconfig="separate"),
    "tiles": lambda array: tiff(array, tile=(16, 16)),
    "planar tiles": lambda array: tiff(planes(array), planarconfig="separate", tile=(16, 16)),
    "strips": lambda array: tiff(array, rowsperstrip=7),
    "deflate, predictor": lambda array: tiff(array, compression="zlib", predictor=True),
    "BigTIFF": lambda array: tiff(array, bigtiff=True),
    "big-endian": lambda array: tiff(array, byteorder=">"),
    "RGB and more": lambda array: tiff(array, photometric="rgb"),
    "pages": lambda array: tiff(planes(array), planarconfig=None),
    "ImageJ": lambda array: tiff(planes(array), planarconfig=None, imagej=True, metadata={"axes": "CYX"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_the_samples_of_every_layout_are_those_of_the_array(kind):
    np.testing.assert_array_equal(images.store(FILES[kind](EIGHT), FIVE).pixels, EIGHT)
    stored = images.store(FILES[kind](DEEP), FIVE)
    np.testing.assert_array_equal(stored.pixels, scaled(DEEP))
    assert stored.highest == DEEP.max()
    within = images.store(FILES[kind](DEEP), FIVE._replace(sample_range=(1000, 9000)))
    assert_near(within.pixels, scaled(DEEP, 1000, 9000))
    assert within.highest is None


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint32", "float32", "float64", "float16"])
def test_signed_and_float_samples_need_a_range(dtype):
    values = (RANDOM.random((HEIGHT, WIDTH, 5)) * 100 - 50).astype(dtype)
    if dtype == "uint32":
        values = (RANDOM.random((HEIGHT, WIDTH, 5)) * 100).astype(dtype)
    for data in (npy(values), tiff(values)):
        with pytest.raises(ImageError, match=f"its samples are {dtype}, .*--sample-range 0 1, or save it as uint8"):
            images.store(data, FIVE)
        pixels = images.store(data, FIVE._replace(sample_range=(-20.0, 30.0))).pixels
        assert_near(pixels, scaled(values, -20, 30))
    values[0, 0] = 0
    declared = tiff(values, extratags=[(340, 11, 5, (-50.0,) * 5, True), (341, 11, 5, (50.0, 10, 50, 50, 50), True)])
    pixels = images.store(declared, FIVE).pixels
    assert_near(pixels[..., 0], scaled(values[..., 0], -50, 50))
    assert_near(pixels[..., 1], scaled(values[..., 1], -50, 10))


def test_a_picture_without_any_number_is_refused():
    nothing = np.full((HEIGHT, WIDTH, 5), np.nan, np.float32)
    ranged = FIVE._replace(sample_range=(0.0, 1.0))
    for data, to in ((npy(nothing), ranged), (tiff(nothing), ranged),
                     (tiff(nothing[..., 0], planarconfig=None), ranged._replace(channels=1))):  # fmt: skip
        with pytest.raises(ImageError, match=r"^all its samples are NaN, no numbers$"):
            images.store(data, to)
    nothing[0, 0] = 1
    assert images.store(npy(nothing), ranged).pixels.sum() == 5 * 255


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 16])
def test_a_stored_picture_is_decoded_as_it_was(channels):
    pixels = RANDOM.integers(0, 256, (9, 7, channels), np.uint8)
    stored = images.store(npy(pixels), PictureFormat(channels))
    assert (stored.format, stored.height, stored.width) == ("png", 9, 7)
    np.testing.assert_array_equal(images.stored_pixels(stored.data, channels), pixels)
    features = tf.train.Example.FromString(tfrecord.serialize(stored, 0, "a", "a.npy")).features.feature
    assert [features[f"image/{key}"].int64_list.value[0] for key in ("height", "width")] == [9, 7]
    assert list(features["image/channels"].int64_list.value) == ([] if channels in (1, 3) else [channels])
    encoded = tf.placeholder(tf.string, [])
    picture = Picture.of(encoded, channels)
    parts = [part.window(2, 1, 5, 4, 5, 4) for part in (picture, picture._replace(in_part=True))]
    with tf.Session() as session:
        found = session.run([decode(encoded, channels), picture.height, picture.width, *parts], {encoded: stored.data})
    np.testing.assert_array_equal(found[0], pixels)
    assert found[1:3] == [9, 7]
    for part in found[3:]:
        np.testing.assert_array_equal(part, pixels[2:7, 1:5])


def test_grey_and_colour_arrays_become_what_a_png_becomes():
    for channels, color in ((1, EIGHT[..., :1]), (3, EIGHT[..., :3])):
        as_array, as_png = (
            images.store(make(color), PictureFormat(channels, 20))
            for make in (npy, lambda c: images.encode_png(c).data)
        )
        assert as_array.data == as_png.data
    np.testing.assert_array_equal(images.store(npy(EIGHT[..., 0]), PictureFormat(1)).pixels, EIGHT[..., :1])


def test_many_channels_are_shrunk_as_each_of_them():
    wide = RANDOM.integers(0, 256, (50, 75, 11), np.uint8)
    pixels = images.store(npy(wide), PictureFormat(11, 20)).pixels
    assert pixels.shape == (20, 30, 11)
    for channel in range(11):
        alone = cv2.resize(wide[..., channel].copy(), (30, 20), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(pixels[..., channel], alone)


def test_transparency_is_a_channel_of_four_and_is_composed_over_white_for_three():
    rgba = RANDOM.integers(0, 256, (6, 5, 4), np.uint8)
    file = io.BytesIO()
    Image.fromarray(rgba).save(file, "PNG")
    four, three = PictureFormat(4), PictureFormat(3)
    with_alpha = tiff(rgba, photometric="rgb", extrasamples=["unassalpha"])
    for data in (file.getvalue(), with_alpha):
        np.testing.assert_array_equal(images.store(data, four).pixels, rgba)
        assert np.abs(images.store(data, three).pixels.astype(int) - rgba[..., :3]).max() > 5
        assert bands.channels_of(data) is None
    deep = RANDOM.integers(0, 65536, (6, 5, 4), np.uint16)
    data = cv2.imencode(".png", cv2.cvtColor(deep, cv2.COLOR_RGBA2BGRA))[1].tobytes()
    np.testing.assert_array_equal(images.store(data, four).pixels, scaled(deep))
    file = io.BytesIO()
    Image.fromarray(rgba[..., :2].copy(), "LA").save(file, "PNG")
    np.testing.assert_array_equal(images.store(file.getvalue(), PictureFormat(2)).pixels, rgba[..., :2])


def test_a_range_scales_grey_and_colour_files_too():
    wanted = PictureFormat(3, sample_range=(0.0, 4000.0))
    values = RANDOM.integers(0, 5000, (6, 5, 3), np.uint16)
    png = cv2.imencode(".png", values[..., ::-1])[1].tobytes()
    for data in (png, tiff(values, photometric="rgb"), npy(values)):
        np.testing.assert_array_equal(images.store(data, wanted).pixels, scaled(values, 0, 4000))
    grey = values[..., 0]
    expected = scaled(grey, 0, 4000)[..., None]
    for data in (cv2.imencode(".png", grey)[1].tobytes(), tiff(grey, planarconfig=None)):
        np.testing.assert_array_equal(images.store(data, wanted._replace(channels=1)).pixels, expected)
    signed = tiff(grey.astype(np.float32), planarconfig=None)
    np.testing.assert_array_equal(images.store(signed, wanted._replace(channels=1)).pixels, expected)
    with pytest.raises(ImageError, match=r"declares no range .*; name the values .* --sample-range 0 1, or save it"):
        images.store(signed, PictureFormat(1))


def test_a_turned_tiff_of_bands_is_stored_upright():
    data = tiff(EIGHT, extratags=[(274, 3, 1, 6, True)])
    np.testing.assert_array_equal(images.store(data, FIVE).pixels, np.rot90(EIGHT, -1))


JPEG = images.encode_jpeg(EIGHT[..., :3].copy()).data
COMPRESSION = b"\x03\x01\x03\0\x01\0\0\0"  # the tag before its value: 8 for deflate, 5 for LZW
REFUSED = {
    "jpeg": (JPEG, 5, "^has 3 channels; 5 are needed$"),
    "grey png": (images.encode_png(EIGHT[..., 0]).data, 2, "^has 1 channel; 2 are needed$"),
    "cmyk": (tiff(EIGHT[..., :4], photometric="separated"), 4, "a TIFF of 4 samples that are SEPARATED, no bands"),
    "npy": (npy(EIGHT), 4, "^has 5 channels; 4 are needed$"),
    "npy for RGB": (npy(EIGHT), 3, "^has 5 channels; 3 are needed$"),
    "grey npy for RGB": (npy(EIGHT[..., 0]), 3, "^has 1 channel; 3 are needed$"),
    "tiff": (tiff(EIGHT), 6, "^has 5 channels; 6 are needed$"),
    "pages": (tiff(planes(EIGHT), planarconfig=None), 4, "^has 1 channel; 4 are needed$"),
    "channels first": (npy(planes(EIGHT)), 5, r"channels seem to come first; save it as \[H, W, C\]: .*moveaxis"),
    "small, channels first": (npy(np.zeros((5, 9, 8), np.uint8)), 5, "with the channels first; save it as"),
    "volume": (npy(np.zeros((2, 3, 4, 5), np.uint8)), 5, r"its shape is \(2, 3, 4, 5\); it must be \[H, W\]"),
    "empty": (npy(np.zeros((0, 3, 5), np.uint8)), 5, "its shape is"),
    "objects": (npy(np.array([[{}]]), allow_pickle=True), 1, "not supported: an array of object"),
    "complex": (npy(EIGHT.astype(complex)), 5, "an array of complex128; save it as uint8 or uint16"),
    "bool": (npy(EIGHT > 5), 5, "an array of bool"),
    "trailing": (npy(EIGHT) + b"x", 5, "its header needs 6,000 bytes, and 6,001 follow"),
    "no header": (b"\x93NUMPY\x01\x00", 5, "damaged: it has no header of a .npy file"),
    "a bomb": (npy(np.zeros((1, 1), np.uint8)).replace(b"(1, 1), }" + b" " * 8, b"(99999, 99999), }"), 1,
               "its header has 99999×99999 pixels, more than 64,000,000; --max-pixels"),
    "reversed range": (tiff(DEEP, extratags=[(340, 3, 1, 9, True), (341, 3, 1, 2, True)]), 5, "values from 9 to 2"),
    "LZW": (tiff(EIGHT, compression="zlib").replace(COMPRESSION + b"\x08", COMPRESSION + b"\x05"), 5,
            "a TIFF with the compression LZW; pip install imagecodecs, or save it with deflate"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_stored_is_refused_with_the_reason(case):
    data, channels, reason = REFUSED[case]
    if case == "LZW" and "imagecodecs" in sys.modules:
        pytest.skip("imagecodecs is there, which decodes LZW")
    with pytest.raises(ImageError, match=reason):
        images.store(data, PictureFormat(channels))


@pytest.mark.parametrize("kind", ["npy", "chunky", "planar tiles", "strips", "deflate, predictor"])
def test_a_file_that_is_cut_off_is_refused(kind):
    data = FILES[kind](EIGHT)
    for length in np.linspace(8, len(data) - 200, 25, dtype=int):
        with pytest.raises(ImageError):
            images.store(data[:length], FIVE)


def test_a_picture_that_no_png_can_hold_is_refused():
    with pytest.raises(ImageError, match="16 channels of 1×70000 pixels are too many; --short-side"):
        images.store(npy(np.zeros((70_000, 1, 16), np.uint8)), PictureFormat(16))


def write(directory, make, count=4, ending="npy"):
    """A folder of two classes; make(number) gives an array or the content of a file."""
    for number in range(2 * count):
        place = directory / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        made = make(number)
        (place / f"{number}.{ending}").write_bytes(npy(made) if isinstance(made, np.ndarray) else made)
    return str(directory)


def noise(number, channels=5, top=256, dtype=np.uint8):
    return np.random.default_rng(number).integers(0, top, (20, 17, channels), dtype)


def test_convert_finds_the_number_and_makes_equal_records_of_arrays_and_tiffs(tmp_path):
    arrays = write(tmp_path / "npy", noise)
    tiffs = write(tmp_path / "tif", lambda number: tiff(noise(number)), ending="tif")
    one, two = (convert("folder", str(tmp_path / f"out_{i}"), raw) for i, raw in enumerate((arrays, tiffs)))
    assert one.channels == two.channels == 5
    first, second = (Dataset.load(each.directory) for each in (one, two))
    assert first.channels == 5
    pictures = np.concatenate([e.pixels(5).reshape(-1, 5) for e in first.examples("train")]).astype(float)
    np.testing.assert_allclose(first.statistics.mean, pictures.mean(0), atol=1e-9)
    np.testing.assert_allclose(first.statistics.deviation, pictures.std(0), atol=1e-9)
    assert first.statistics.pixels["mean"].shape == (20, 17, 5)
    for split in ("train", "validation", "test"):
        encoded = [{e.filename.split(".")[0]: e.encoded for e in data.examples(split)} for data in (first, second)]
        common = set(encoded[0]) & set(encoded[1])
        assert all(encoded[0][name] == encoded[1][name] for name in common)
        for example in first.examples(split):
            number = int(example.filename.split("/")[-1].split(".")[0])
            np.testing.assert_array_equal(example.pixels(5), noise(number))
            assert example.size == (20, 17)
    assert check(first)[1] == []


def test_statistics_of_sixteen_channels_are_loaded_again(tmp_path):
    moments = statistics.Moments(16)
    for value in (0, 255):  # the largest variance
        moments.add(np.full((128, 128, 16), value, np.uint8))
    moments.save_pixel_statistics(tmp_path)
    loaded = statistics.load(tmp_path, 16, moments.channel_statistics())
    assert loaded.pixels["mean"].shape == (128, 128, 16)
    assert loaded.eigenvalues[0] == pytest.approx(16 * 127.5**2)


def test_a_picture_of_another_number_is_rejected_and_a_jpeg_in_a_shard_is_named(tmp_path):
    raw = write(tmp_path / "raw", noise)
    (tmp_path / "raw" / "a" / "x.jpg").write_bytes(JPEG)
    with pytest.raises(UserError, match=r"the first is a/x.jpg: has 3 channels; 5 are needed\. All are"):
        convert("folder", str(tmp_path / "out"), raw)
    done = convert("folder", str(tmp_path / "out"), raw, "skip")
    assert (done.rejected, done.channels) == (1, 5)
    shard = next((tmp_path / "out").glob("*train*.tfrecord"))
    records = [found.payload for found in tfrecord.walk(shard)]
    jpeg = images.StoredImage(JPEG, "jpeg", EIGHT[..., :3])
    records[0] = tfrecord.serialize(jpeg, 0, "a", "a/0.npy")
    shard.write_bytes(b"".join(map(tfrecord.framed, records)))
    (fault,) = check(Dataset.load(str(tmp_path / "out")))[1]
    assert fault.reason == "its picture is a JPEG, which has no 5 channels"


def test_samples_that_would_come_out_nearly_black_name_the_option(tmp_path):
    raw = write(tmp_path / "raw", lambda number: noise(number, top=9_000, dtype=np.uint16))
    with pytest.raises(
        UserError, match=r"training pictures is 8,9\d\d; .* 35 of 255 .*--sample-range 0 10000; or 0 65"
    ):
        convert("folder", str(tmp_path / "out"), raw)
    convert("folder", str(tmp_path / "out"), raw, sample_range=(0.0, 10000.0))
    description = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert description["sample_range"] == description["options"]["sample_range"] == [0, 10000]
    data = Dataset.load(str(tmp_path / "out"))
    assert data.picture_format == PictureFormat(5, None, images.MAX_PIXELS, (0, 10000))
    example = next(data.examples("train"))
    number = int(example.filename.split("/")[-1].split(".")[0])
    raw_values = noise(number, top=9_000, dtype=np.uint16)
    assert_near(example.pixels(5), scaled(raw_values, 0, 10000))
    convert("folder", str(tmp_path / "dark"), raw, sample_range=(0.0, 65535.0))


@pytest.mark.parametrize(("sample_range", "colour"), [((0.0, 1e6), "black"), ((-1e6, 0.0), "white")])
def test_a_range_that_makes_pictures_black_or_white_is_refused(sample_range, colour, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "raw" / name).mkdir(parents=True)
        for i in range(4):
            np.save(tmp_path / "raw" / name / f"{i}.npy", RANDOM.integers(0, 4000, (20, 20, 5), np.uint16))
    with pytest.raises(UserError, match=rf"training pictures come out {colour} \(mean "):
        convert("folder", str(tmp_path / "out"), str(tmp_path / "raw"), sample_range=sample_range)
    assert not (tmp_path / "out").exists()


def test_a_tiff_of_several_pages_needs_the_number():
    with pytest.raises(UserError, match=r"5 pages of one sample each: --channels 5 reads them .* the first page alone"):
        bands.channels_of(tiff(planes(EIGHT), planarconfig=None))
    assert bands.channels_of(tiff(EIGHT[..., 0])) is None


@pytest.mark.parametrize("sample_range", [(1.0, 1.0), (2.0, 1.0), (0.0, float("nan")), (0.0, float("inf"))])
def test_a_range_must_be_one(sample_range, tmp_path):
    with pytest.raises(UserError, match=r"--sample-range is .*; the first must be below the second"):
        convert("digits", str(tmp_path / "out"), sample_range=sample_range)


def test_the_layout_of_an_array_is_not_guessed(tmp_path):
    raw = write(tmp_path / "raw", lambda number: np.full((8, 20, 5), number, np.uint8))
    with pytest.raises(
        UserError, match=r"npy: its shape \(8, 20, 5\) may have 5 channels, or 8 .*: --channels 5|such as"
    ):
        convert("folder", str(tmp_path / "out"), raw)
    assert convert("folder", str(tmp_path / "out"), raw, channels=5).channels == 5


@pytest.mark.parametrize(
    ("data", "channels"),
    [
        (npy(EIGHT), 5), (npy(EIGHT[..., 0]), 1), (npy(EIGHT[..., :3]), 3), (tiff(EIGHT), 5), (tiff(EIGHT[..., :4]), 4),
        (tiff(DEEP[..., :2]), 2), (tiff(EIGHT[..., :3], photometric="rgb"), None), (JPEG, None), (b"II*\0", None),
        (tiff(EIGHT[..., 0], planarconfig=None), None), (b"", None),
        (tiff(EIGHT[..., :2], extrasamples=["unassalpha"]), None), (npy(planes(EIGHT)), None),
    ],
)  # fmt: skip
def test_the_number_that_a_file_tells(data, channels):
    assert bands.channels_of(data) == channels


def test_arrays_of_an_own_source_may_have_sixteen_channels():
    for channels, fits in ((1, True), (2, True), (16, True), (17, False), (0, False)):
        assert _is_image(Example("a", 0, np.zeros((4, 4, channels), np.uint8))) == fits
    pixels = noise(0)
    np.testing.assert_array_equal(images.store_array(pixels, FIVE).pixels, pixels)
    assert images.store_array(pixels, FIVE._replace(short_side=8)).pixels.shape[2] == 5
    for wrong, channels in ((pixels, 3), (pixels[..., :3], 5)):
        with pytest.raises(ImageError, match=rf"has {wrong.shape[2]} channels; {channels} are needed"):
            images.store_array(wrong, PictureFormat(channels))
