"""Pictures of every kind that Pillow, OpenCV and tifffile write: stored with the right pixels, or refused by name."""

import functools
import io
import itertools
import lzma
import pathlib
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from pipeline import images

HEIGHT, WIDTH = 32, 64
Y, X = np.mgrid[0:HEIGHT, 0:WIDTH]
RGB = np.stack([X / (WIDTH - 1), Y / (HEIGHT - 1), 1 - (X + Y) / 120], -1)  # 0 to 1, as all pictures here
RGB[:8, :16] = 1, 0, 0
GREY = RGB @ [0.5, 0.3, 0.2]
ALPHA = np.ones((HEIGHT, WIDTH))
ALPHA[12:20, 24:40] = 0
ALPHA[24:28, 8:16] = 0.5
ODD_IMAGES = pathlib.Path(__file__).resolve().parents[3] / "shared/data/odd_images"


def deep(picture, dtype, top=None):
    """0 to 1 as 0 to the largest number of an integer type, or to `top`."""
    return np.rint(picture * (top or np.iinfo(dtype).max)).astype(dtype)


def over_white(picture):
    colour = picture if picture.ndim == 3 else np.dstack([picture] * 3)
    return colour * ALPHA[..., None] + 1 - ALPHA[..., None]


def wrong(data, truth, channels=3):
    """The largest mean difference of a channel from `truth`, 0 to 1, on the scale 0 to 255."""
    pixels = images.store(data, images.PictureFormat(channels)).pixels
    assert pixels.shape[:2] == (HEIGHT, WIDTH)
    return np.abs(pixels - 255.0 * (truth if truth.ndim == 3 else truth[..., None])).mean((0, 1)).max()


def assert_refused(data, reason):
    with pytest.raises(images.ImageError, match=reason):
        images.store(data)


def saved(image, extension, **kwargs):
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, extension, **kwargs)
    return buffer.getvalue()


# TIFF

COMPRESSORS = {1: bytes, 8: zlib.compress, 34925: lzma.compress}
BYTE, SHORT, LONG, FLOAT = 1, 3, 4, 11
TYPES = {BYTE: "B", SHORT: "H", LONG: "I", FLOAT: "f"}


def tiff(samples, kind=None, photometric=None, compression=1, tags=(), planar=False, bits=None):
    """A TIFF of [H, W] or [H, W, C] in one strip, or in one for each of its planes; tags are (number, type, value)."""
    samples = np.atleast_3d(samples)
    channels = samples.shape[2]
    planes = [samples[..., i] for i in range(channels)] if planar else [samples]
    strips = [COMPRESSORS[compression](plane.tobytes()) for plane in planes]
    strips[-1] += bytes(len(strips[-1]) % 2)
    starts = [8 + sum(map(len, strips[:i])) for i in range(len(strips))]
    bits = bits or 8 * samples.dtype.itemsize
    photometric = (2 if channels > 2 else 1) if photometric is None else photometric
    entries = [
        *[(256, LONG, WIDTH), (257, LONG, HEIGHT), (258, SHORT, *[bits] * channels), (259, SHORT, compression)],
        *[(262, SHORT, photometric), (273, LONG, *starts), (277, SHORT, channels), (278, LONG, HEIGHT)],
        *[(279, LONG, *map(len, strips)), (284, SHORT, 2 if planar else 1)],
        *[(339, SHORT, *[kind or {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]] * channels), *tags],
    ]
    directory, beyond = struct.pack("<H", len(entries)), b""
    end = 8 + sum(map(len, strips)) + 2 + 12 * len(entries) + 4
    for number, form, *values in sorted(entries):
        packed = struct.pack(f"<{len(values)}{TYPES[form]}", *values)
        if len(packed) > 4:
            packed, beyond = struct.pack("<I", end + len(beyond)), beyond + packed
        directory += struct.pack("<HHI", number, form, len(values)) + packed.ljust(4, b"\0")
    start = 8 + sum(map(len, strips))
    return b"II*\0" + struct.pack("<I", start) + b"".join(strips) + directory + bytes(4) + beyond


COMPRESSION_TAG = struct.pack("<HHI", 259, SHORT, 1)
ALPHA_TAG = [(338, SHORT, 2)]


@pytest.mark.parametrize("compression", COMPRESSORS)
def test_unsigned_tiffs_are_scaled_by_their_bits(compression):
    options = {"compression": compression}
    for dtype in np.uint8, np.uint16:
        assert wrong(tiff(deep(GREY, dtype), **options), GREY) < 1
        assert wrong(tiff(deep(GREY, dtype), **options), GREY, channels=1) < 1
        assert wrong(tiff(deep(1 - GREY, dtype), photometric=0, **options), GREY) < 1
        assert wrong(tiff(deep(RGB, dtype), **options), RGB) < 1
        assert wrong(tiff(deep(RGB, dtype), planar=True, **options), RGB) < 1
        assert wrong(tiff(deep(np.dstack([RGB, ALPHA]), dtype), tags=ALPHA_TAG, **options), over_white(RGB)) < 1
        assert wrong(tiff(deep(np.dstack([1 - RGB, 0 * GREY]), dtype), photometric=5, **options), RGB) < 1
    packed = deep(GREY, np.uint16, 4095).reshape(HEIGHT, -1, 2).astype(int)
    first, second = packed[..., 0], packed[..., 1]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1).astype(np.uint8)
    assert wrong(tiff(packed.reshape(HEIGHT, -1), bits=12, **options), GREY) < 1


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32, np.float32])
def test_deeper_tiffs_are_scaled_by_the_range_that_they_declare_or_refused(dtype):
    low, high = {np.int16: (-1000, 1000), np.uint32: (0, 2**32 - 1)}.get(dtype, (-50, 100_000))
    samples = (low + GREY * (high - low)).astype(dtype)
    for compression in COMPRESSORS:
        plain = tiff(samples, compression=compression)
        bits, kind = 8 * samples.dtype.itemsize, {"u": "unsigned", "i": "signed", "f": "float"}[samples.dtype.kind]
        assert_refused(plain, rf"TIFF with 1 × {bits} bits \({kind}\), .*declares no range .*SMinSampleValue")
    tags = [(340, FLOAT, float(low)), (341, FLOAT, float(high))]
    assert wrong(tiff(samples, tags=tags), GREY) < 1
    assert_refused(tiff(samples, tags=[(340, FLOAT, 5.0), (341, FLOAT, 5.0)]), "from 5 to 5, which is no range")


def test_missing_values_of_a_float_tiff_are_black():
    samples = GREY.astype(np.float32)
    samples[:4] = np.nan
    truth = GREY.copy()
    truth[:4] = 0
    assert wrong(tiff(samples, tags=[(340, FLOAT, 0.0), (341, FLOAT, 1.0)]), truth) < 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(RGB.astype(np.float32)), r"not supported: a TIFF with 3 × 32 bits \(float\), photometric"),
        (tiff(GREY.astype(np.float64)), r"not supported: a TIFF with 1 × 64 bits \(float\)"),
        (tiff(deep(RGB, np.int16)), r"not supported: a TIFF with 3 × 16 bits \(signed\)"),
        (tiff(deep(GREY, np.int8)), r"not supported: a TIFF with 1 × 8 bits \(signed\)"),
        (tiff(deep(RGB, np.uint32)), r"not supported: a TIFF with 3 × 32 bits \(unsigned\)"),
        (tiff(deep(np.dstack([GREY, ALPHA]), np.uint16), tags=ALPHA_TAG), "not supported: a TIFF with 2 × 16 bits"),
        (tiff(deep(GREY, np.uint8)).replace(COMPRESSION_TAG + b"\1", COMPRESSION_TAG + b"\x99"), "compression 153"),
    ],
    ids=["float RGB", "double", "int16 RGB", "int8", "uint32 RGB", "grey and alpha", "unknown compression"],
)  # fmt: skip
def test_other_tiffs_are_refused_by_name(data, reason):
    assert_refused(data, reason)


@pytest.mark.parametrize("form", [BYTE, SHORT, LONG], ids=["byte", "short", "long"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiffs_are_turned_upright(form, orientation):
    for picture, truth in (RGB, RGB), (np.dstack([RGB, ALPHA]), over_white(RGB)):
        turned = {
            1: picture, 2: picture[:, ::-1], 3: picture[::-1, ::-1], 4: picture[::-1], 5: picture.swapaxes(0, 1),
            6: np.rot90(picture), 7: np.rot90(picture, 2).swapaxes(0, 1), 8: np.rot90(picture, -1),
        }[orientation]  # fmt: skip
        exif = Image.Exif()
        exif[274] = orientation
        data = saved(np.ascontiguousarray(deep(turned, np.uint8)), "TIFF", exif=exif)
        entry = struct.pack("<HHI", 274, SHORT, 1)
        assert data.count(entry) == 1
        assert wrong(data.replace(entry, struct.pack("<HHI", 274, form, 1)), truth) < 1


def test_lab_tiffs_have_their_colours():
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    muted = 0.3 + 0.4 * RGB  # Lab of 8 bits loses much of strong colours
    lab = ImageCms.profileToProfile(Image.fromarray(deep(muted, np.uint8)), *profiles, outputMode="LAB")
    assert wrong(saved(lab, "TIFF"), muted) < 3


def test_libtiffs_messages_are_part_of_the_reason(capfd):
    data = tiff(deep(RGB, np.uint8), compression=8)
    assert_refused(
        data[:30] + bytes(30) + data[60:], r"cannot be decoded \(ZIPDecode: |cannot be decoded \(Decoding error"
    )
    at = data.index(struct.pack("<HHI", 279, LONG, 1)) + 8  # the number of bytes in the strip
    longer = data[:at] + struct.pack("<I", 2 * len(data)) + data[at + 4 :]
    assert_refused(longer, r"cannot be decoded \(Read error on strip 0; got")
    assert capfd.readouterr().err == ""


def test_whatever_tifffile_writes():
    tifffile = pytest.importorskip("tifffile")
    pictures = [
        ("minisblack", GREY, GREY), ("miniswhite", 1 - GREY, GREY), ("rgb", RGB, RGB),
        ("rgb", np.dstack([RGB, ALPHA]), over_white(RGB)),
    ]  # fmt: skip
    layouts = {}, {"compression": "zlib"}, {"compression": "lzma"}, {"tile": (16, 16)}, {"rowsperstrip": 5}
    for dtype in np.uint8, np.uint16, np.uint32, np.int16, np.float32:
        for (name, samples, truth), layout, order in itertools.product(pictures, layouts, "<>"):
            file, alpha = io.BytesIO(), {"extrasamples": ["unassalpha"]} if samples.shape[-1] == 4 else {}
            values = deep(samples, dtype, 1 if dtype is np.float32 else None)
            tifffile.imwrite(file, values, photometric=name, byteorder=order, **layout, **alpha)
            if dtype not in (np.uint8, np.uint16):
                assert_refused(file.getvalue(), "not supported: a TIFF with|declares no range")
            elif (dtype, name, order) == (np.uint16, "miniswhite", ">"):
                assert_refused(file.getvalue(), r"TIFF with 1 × 16 bits \(unsigned\), photometric interpretation 0")
            else:
                assert wrong(file.getvalue(), truth) < 1, (dtype, name, layout, order)


# PNG


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(samples, kind, bits, *chunks):
    """A PNG of [H, W, C]; kind is the colour type, 0 for grey and 2 for RGB."""
    rows = samples.astype(">u2" if bits == 16 else np.uint8).reshape(HEIGHT, -1).view(np.uint8)
    if bits < 8:
        parts = [samples[:, i :: 8 // bits] << (8 - bits * (i + 1)) for i in range(8 // bits)]
        rows = functools.reduce(np.bitwise_or, parts).astype(np.uint8)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + b"".join(chunks) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_pngs_of_any_depth_have_a_transparent_colour(bits):
    top = 2**bits - 1
    values = np.rint(GREY * top).astype(int)
    assert wrong(png(values, 0, bits), values / top) < 1
    clear = int(np.median(values))
    truth = np.where(values == clear, 1, values / top)
    if bits > 1:  # of one bit: all that is left is white, see the drawings below
        assert wrong(png(values, 0, bits, chunk(b"tRNS", struct.pack(">H", clear))), truth) < 1
    if bits >= 8:
        values = np.rint(RGB * top).astype(int)
        truth = np.where((values == [top, 0, 0]).all(-1, keepdims=True), 1, RGB)
        assert wrong(png(values, 2, bits, chunk(b"tRNS", struct.pack(">HHH", top, 0, 0))), truth) < 1


def test_transparent_colours_of_16_bits_are_compared_in_16_bits():
    grey = np.where(X < 32, 0x8000, 0x80FF)
    truth = np.where(X < 32, 128 / 255, 1)
    assert wrong(png(grey, 0, 16, chunk(b"tRNS", struct.pack(">H", 0x80FF))), truth) < 1
    rgb = np.dstack([grey] * 3)
    assert wrong(png(rgb, 2, 16, chunk(b"tRNS", struct.pack(">HHH", *[0x80FF] * 3))), truth) < 1


@pytest.mark.parametrize("channels", [1, 3])
def test_light_drawings_on_transparent_ground_get_a_black_one(channels):
    strokes = np.zeros((HEIGHT, WIDTH))
    strokes[8:24, 30:34] = 1
    soft = cv2.GaussianBlur(strokes, (5, 5), 1)
    for mode, value in ("LA", [255]), ("RGBA", [255, 250, 240]):
        layers = [np.full((HEIGHT, WIDTH), each, np.uint8) for each in value]
        light = saved(Image.merge(mode, [Image.fromarray(each) for each in [*layers, deep(soft, np.uint8)]]), "PNG")
        assert wrong(light, soft[..., None] * value / 255, channels) < 2
        dark = [0 * each for each in layers]
        dark = saved(Image.merge(mode, [Image.fromarray(each) for each in [*dark, deep(soft, np.uint8)]]), "PNG")
        assert wrong(dark, 1 - soft, channels) < 1
        for alpha, expected in (0, 1), (255, np.mean(value) / 255):  # nothing visible; nothing transparent
            sheet = [*layers, np.full((HEIGHT, WIDTH), alpha, np.uint8)]
            sheet = saved(Image.merge(mode, [Image.fromarray(each) for each in sheet]), "PNG")
            assert wrong(sheet, np.full((HEIGHT, WIDTH), expected), channels) < 10


# BMP


def bmp(bits, body, compression=0, header=40, masks=(), palette=b""):
    information = struct.pack("<iiHHIIiiII", WIDTH, HEIGHT, 1, bits, compression, len(body), 0, 0, 0, 0)
    masks = struct.pack(f"<{len(masks)}I", *masks)
    information += masks if header == 40 else masks.ljust(header - 40, b"\0")
    start = 14 + 4 + len(information) + len(palette)
    file = b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + struct.pack("<I", header)
    return file + information + palette + body


def fields(bits, masks):
    """RGB, and ALPHA where there are four masks, as the body of a BMP with these fields; and its colours."""
    whole, colours = np.zeros((HEIGHT, WIDTH), np.int64), []
    for mask, channel in zip(masks, [*RGB.transpose(2, 0, 1), ALPHA], strict=False):
        shift = (mask & -mask).bit_length() - 1
        values = np.rint(channel * (mask >> shift)).astype(np.int64)
        whole |= values << shift
        colours.append(values / (mask >> shift))
    return whole[::-1].astype(f"<u{bits // 8}").tobytes(), np.dstack(colours[:3])


MASKS = {
    "565": (16, (0xF800, 0x7E0, 0x1F)),
    "555": (16, (0x7C00, 0x3E0, 0x1F)),
    "888": (32, (0xFF0000, 0xFF00, 0xFF)),
    "888x": (32, (0xFF000000, 0xFF0000, 0xFF00)),
    "8888": (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
}


@pytest.mark.parametrize("header", [40, 52, 56, 108, 124])
@pytest.mark.parametrize("name", MASKS)
def test_bmps_with_fields(name, header):
    bits, masks = MASKS[name]
    body, colours = fields(bits, masks)
    if len(masks) == 4 and header < 56:
        return
    truth = over_white(colours) if len(masks) == 4 else colours
    assert wrong(bmp(bits, body, 3, header, masks), truth) < 1


def test_bmps_with_other_fields_are_refused_by_name():
    for masks in (0xF00, 0xF0, 0xF), (0x1F, 0x7E0, 0xF800):
        assert_refused(
            bmp(16, fields(16, masks)[0], 3, 56, masks), "^not supported: .*Unsupported BMP bitfields layout"
        )
    masks = 0x7C00, 0x3E0, 0x1F, 0x8000
    assert_refused(bmp(16, fields(16, masks)[0], 3, 56, masks), "^not supported: a BMP of 16 bits with transparency")
    assert_refused(bmp(2, bytes(HEIGHT * WIDTH // 4), palette=bytes(16)), "^not supported: .*pixel depth")


def test_bmps_with_runs(capfd):
    colours = np.random.default_rng(0).integers(0, 256, (256, 4), np.uint8)
    indices = (X // 5 * 7 + Y) % 256

    def runs(indices, of, alone):
        body = b""
        for row in indices[::-1]:
            pairs = [b"".join(alone(row[i : i + 8])) if i % 16 else of(row[i : i + 8]) for i in range(0, WIDTH, 8)]
            body += b"".join(pairs) + b"\0\0"
        return body + b"\0\1"

    body = runs(indices, lambda row: b"".join(bytes([1, i]) for i in row), lambda row: (b"\0\x08", bytes(list(row))))
    truth = colours[indices][..., 2::-1] / 255
    assert wrong(bmp(8, body, 1, palette=colours.tobytes()), truth) < 1
    assert_refused(bmp(8, body, 1, palette=colours.tobytes())[: -len(body) // 2], "not enough image data")
    few = indices % 16

    def pack(row):
        return bytes(first << 4 | second for first, second in zip(row[::2], row[1::2], strict=True))

    body = runs(
        few,
        lambda row: b"".join(b"\2" + pack(row[i : i + 2]) for i in (0, 2, 4, 6)),
        lambda row: (b"\0\x08", pack(row)),
    )
    truth = colours[few][..., 2::-1] / 255
    assert wrong(bmp(4, body, 2, palette=colours[:16].tobytes() + bytes(240 * 4)), truth) < 1
    assert capfd.readouterr().err == ""


# Other formats


@pytest.mark.parametrize("top", [1, 15, 255, 1000, 65535])
def test_pnms_are_scaled_by_their_largest_value(top):
    for letter, picture in ("52", GREY), ("63", RGB):
        values = np.rint(picture * top).astype(int)
        head = f"\n# a comment\n{WIDTH} {HEIGHT}\n{top}\n".encode()
        raw = values.astype(np.uint8 if top < 256 else ">u2").tobytes()
        text = b" ".join(b"%d" % value for value in values.ravel())
        assert wrong(b"P" + letter[:1].encode() + head + raw, values / top) < 1
        for end in b"\n", b"":
            assert wrong(b"P" + letter[1:].encode() + head + text + end, values / top) < 1


def test_a_pfm_declares_no_range():
    data = b"Pf\n%d %d\n-1.0\n" % (WIDTH, HEIGHT) + GREY.astype("<f4").tobytes()
    assert_refused(data, "PPM of float samples declares no range")


def test_psds_that_pillow_misreads_are_refused_by_name():
    def psd(mode, bits, picture):
        planes = np.atleast_3d(picture).transpose(2, 0, 1)
        head = struct.pack(">H6xHIIHH", 1, len(planes), HEIGHT, WIDTH, bits, mode)
        return b"8BPS" + head + bytes(12) + b"\0\0" + planes.tobytes()

    assert wrong(psd(3, 8, deep(RGB, np.uint8)), RGB) < 1
    assert wrong(psd(4, 8, deep(np.dstack([RGB, np.ones_like(GREY)]), np.uint8)), RGB) < 1
    for mode, bits, picture, name in (
        (0, 1, np.packbits(GREY < 0.5, 1), "a PSD of bitmap"),
        (9, 8, deep(RGB, np.uint8), "a PSD of Lab"),
        (3, 16, deep(RGB, np.uint16).astype(">u2"), "a PSD of RGB with 16 bits"),
        (1, 16, deep(GREY, np.uint16).astype(">u2"), "a PSD of grey with 16 bits"),
    ):
        assert_refused(psd(mode, bits, picture), f"^not supported: {name}$")


def modes():
    """Mode to a Pillow image and what it shows."""
    colour, grey, alpha = (Image.fromarray(deep(each, np.uint8)) for each in (RGB, GREY, ALPHA))
    palette = colour.quantize(64)
    shown = np.asarray(palette.convert("RGB")) / 255
    deep_grey = Image.fromarray(deep(GREY, np.uint16))
    return {
        "RGB": (colour, RGB), "L": (grey, GREY), "1": (Image.fromarray(GREY > 0.5), (GREY > 0.5) * 1.0),
        "P": (palette, shown), "CMYK": (colour.convert("CMYK"), RGB), "YCbCr": (colour.convert("YCbCr"), RGB),
        "RGBA": (Image.merge("RGBA", [*colour.split(), alpha]), over_white(RGB)),
        "LA": (Image.merge("LA", [grey, alpha]), over_white(GREY)), "I;16": (deep_grey, GREY),
    }  # fmt: skip


@pytest.mark.parametrize("mode", modes())
def test_whatever_pillow_writes(mode):
    image, truth = modes()[mode]
    formats = {
        "JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True, "exact": True}, "PNG": {}, "BMP": {},
        "TIFF": {}, "PPM": {}, "ICO": {"sizes": [(WIDTH, HEIGHT)]},
    }  # fmt: skip
    supported = 0
    for name, options in formats.items():
        if (mode, name) in {("I;16", "WEBP"), ("RGBA", "BMP"), ("RGBA", "PPM")}:  # Pillow clips, or drops the alpha
            continue
        compressions = (None, "tiff_lzw", "zstd", "lzma", "packbits") if name == "TIFF" else (None,)
        for compression in compressions:
            try:
                data = saved(image, name, **options, **({"compression": compression} if compression else {}))
            except OSError:  # it does not write that
                continue
            supported += 1
            assert wrong(data, truth) < 3, (name, compression)
    assert supported > 2


def test_whatever_opencv_writes():
    bgr, bgra = RGB[..., ::-1], np.dstack([RGB[..., ::-1], ALPHA])
    deep_formats, options = (".png", ".tiff", ".ppm", ".pgm"), [cv2.IMWRITE_JPEG_QUALITY, 100]
    for extensions, picture, truth in (
        ((".png", ".tiff", ".pgm", ".bmp", ".webp", ".jpg"), GREY, GREY),
        ((".png", ".tiff", ".ppm", ".bmp", ".webp"), bgr, RGB),
        ((".png", ".tiff", ".bmp", ".webp"), bgra, over_white(RGB)),
    ):
        for extension in extensions:
            for dtype in [np.uint8, np.uint16] if extension in deep_formats else [np.uint8]:
                ok, data = cv2.imencode(extension, deep(picture, dtype), options if extension == ".jpg" else [])
                assert ok
                assert wrong(data.tobytes(), truth) < 3, (extension, picture.shape, dtype)
    _, data = cv2.imencode(".tiff", RGB.astype(np.float32))
    assert_refused(data.tobytes(), r"a TIFF with 3 × 32 bits \(float\)")


@pytest.mark.skipif(not ODD_IMAGES.is_dir(), reason=f"{ODD_IMAGES} is missing")
def test_odd_pictures_have_pillows_pixels_or_are_refused_quietly(capfd):
    compared, reasons = 0, {}
    for path in sorted(ODD_IMAGES.iterdir()):
        data = path.read_bytes()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                pixels = images.store(data, images.PictureFormat(max_pixels=2_000_000)).pixels
        except images.ImageError as error:
            reasons[path.name] = str(error)
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shown = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
            if shown.mode.startswith("I;16"):
                continue
            shown = shown.convert("RGBA")
        shown = np.asarray(Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown))[..., :3]
        assert pixels.shape[:2] == shown.shape[:2], path.name
        assert np.abs(pixels.mean((0, 1)) - shown.mean((0, 1))).max() < 3, path.name
        compared += 1
    assert compared > 60
    assert all(len(reason) > 10 for reason in reasons.values()), reasons
    assert capfd.readouterr().err == ""
