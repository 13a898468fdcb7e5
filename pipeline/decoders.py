"""Decodes pictures that are no plain JPEG or PNG to upright 8-bit RGB, by Pillow. Free of TensorFlow.

Pillow's mode says what the samples are. Those of 8 bits and fewer, and of 16 bits in colour, Pillow converts itself.
Deeper ones are scaled by the range that the format or the file declares: a 16-bit PNG's white is 65535, a PGM's is in
its header, and a TIFF of signed or float samples has a range if its tags say so; or by the range that the user gives.
Without one there is no telling what white is, and the picture is refused, as are kinds that Pillow misreads.
"""

import contextlib
import ctypes
import functools
import io
import logging
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, _imaging

from channels import USUAL

MAX_PIXELS = 64_000_000  # the header of a 600-byte JPEG can have any number; decoding takes 3 bytes for each
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF", "PPM", "ICO", "PSD")
UPRIGHT = {  # by Exif orientation
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}
BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, SAMPLE_FORMAT, MINIMUM, MAXIMUM = (
    258,
    259,
    262,
    277,
    339,
    340,
    341,
)  # TIFF tags
WHITE_IS_ZERO = 0  # a value of PHOTOMETRIC
SAMPLE_KINDS = {1: "unsigned", 2: "signed", 3: "float", 5: "complex", 6: "complex"}
PSD_MODES = {0: "bitmap", 1: "grey", 2: "indexed", 3: "RGB", 4: "CMYK", 7: "multichannel", 8: "duotone", 9: "Lab"}
PSD_SUPPORTED = (1, 2, 3, 4, 8)  # of 8 bits; Pillow inverts bitmaps, and reads Lab as white
GIVE_RANGE = "name the values that become black and white with --sample-range, such as --sample-range 0 1"
GREY_OF_RGB = 9797, 19234, 3737  # 0.299, 0.587 and the rest of 2**15, rounded as by libpng
NEARLY_WHITE = 230  # a tenth below white, as `DARK` of prediction.drawings is above black
# Pillow's own decoder of uncompressed TIFFs misreads 16-bit samples that lie in planes; libtiff does not.
TiffImagePlugin.READ_LIBTIFF = True
logging.getLogger("PIL").setLevel(logging.CRITICAL)  # ImageError reports what is wrong, and in which file
Image.WARN_POSSIBLE_FORMATS = True  # else UnidentifiedImageError lacks the reason


class ImageError(Exception):
    """A picture that cannot be used; the message says why."""


class PictureFormat(NamedTuple):
    """How a data set stores its pictures."""

    channels: int = 3  # 1 for grey, 3 for RGB, others up to channels.MOST as they are
    short_side: int | None = None  # pixels that longer short sides are shrunk to; None for none
    max_pixels: int = MAX_PIXELS  # a picture whose header has more is refused
    sample_range: tuple[float, float] | None = None  # samples of more than 8 bits that become 0 and 255


def check_channels(found: int, channels: int) -> None:
    """Raises ImageError for a picture with another number of channels than its data set."""
    if found != channels:
        raise ImageError(f"has {found} channel{'s' * (found != 1)}; {channels} are needed")


def check_numbers(values: np.ndarray) -> None:
    """Raises ImageError for samples that are all NaN, such as an empty tile of a map."""
    if values.dtype.kind == "f" and np.isnan(values).all():
        raise ImageError("all its samples are NaN, no numbers")


@contextlib.contextmanager
def no_warnings() -> Iterator[None]:
    """Silences Python's warnings, such as Pillow's about metadata, which name no file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_header(data: bytes, max_pixels: int) -> Image.Image:
    """A picture whose pixels are not decoded yet. Raises ImageError, also for more than `max_pixels`."""
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with warnings.catch_warnings(record=True) as said:  # of metadata, too, and of too many pixels: see below
            warnings.simplefilter("always")
            header = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise ImageError(f"its header has far more than {max_pixels:,} pixels; --max-pixels allows more") from None
    except Exception as error:  # Pillow raises errors of many types, from KeyError to struct.error, on damaged headers
        raise ImageError(_reason(data, error, [str(each.message) for each in said])) from error
    if header.width * header.height > max_pixels:
        raise ImageError(
            f"its header has {header.width}×{header.height} pixels, more than {max_pixels:,}; --max-pixels allows more"
        )
    if refused := _misread(data, header):
        raise ImageError(f"not supported: {refused}")
    return header


def _reason(data: bytes, error: Exception, said: list[str]) -> str:
    """Why Pillow cannot open a picture, of its error and its warnings."""
    if isinstance(error, Image.UnidentifiedImageError):
        said = [text for text in said if "opening failed" in text]
        if not said:
            return "no picture of a known format: its header cannot be read"
        message = said[-1]
    else:
        message = str(error)
    with contextlib.suppress(Exception):  # a damaged directory, in which case Pillow's words are all there is
        return f"not supported: {_samples(_tiff_tags(data))}"
    if data.startswith(b"8BPS") and len(data) > 26:
        bits, mode = struct.unpack(">HH", data[22:26])
        return f"not supported: a PSD of {PSD_MODES.get(mode, f'mode {mode}')} with {bits} bits"
    kind = "not supported" if re.search(r"[Uu]nsupported|cannot handle", message) else "damaged"
    return f"{kind}: its header cannot be read ({message})"


def _tiff_tags(data: bytes) -> TiffImagePlugin.ImageFileDirectory_v2:
    file = io.BytesIO(data)
    start = file.read(8)
    tags = TiffImagePlugin.ImageFileDirectory_v2(start + (file.read(8) if 43 in start[2:4] else b""))  # 43: BigTIFF
    file.seek(tags.next)
    tags.load(file)
    return tags


def _samples(tags: TiffImagePlugin.ImageFileDirectory_v2) -> str:
    bits, kind = (np.ravel(tags.get(tag, 1))[0] for tag in (BITS, SAMPLE_FORMAT))
    return (
        f"a TIFF with {tags.get(SAMPLES, 1)} × {bits} bits ({SAMPLE_KINDS.get(kind, f'sample format {kind}')}), "
        f"photometric interpretation {tags[PHOTOMETRIC]}, compression {tags.get(COMPRESSION, 1)}"
    )


def _misread(data: bytes, header: Image.Image) -> str | None:
    """What a picture is that Pillow opens and would decode to wrong pixels; None if it is no such picture."""
    if header.format == "PSD":
        mode = struct.unpack(">H", data[24:26])[0]
        return None if mode in PSD_SUPPORTED else f"a PSD of {PSD_MODES.get(mode, f'mode {mode}')}"
    if header.format == "TIFF" and header.mode not in ("I", "F") and header.tag_v2.get(SAMPLE_FORMAT, (1,))[0] != 1:
        return _samples(header.tag_v2)
    if header.format in ("BMP", "DIB"):
        info = data[14:] if header.format == "BMP" else data
        size, bits, compression = *struct.unpack("<I", info[:4]), *struct.unpack("<HI", info[14:20].ljust(6, b"\0"))
        if size >= 56 and (bits, compression) == (16, 3) and any(info[52:56]):
            return "a BMP of 16 bits with transparency"
    return None


def orientation(header: Image.Image) -> int:
    """The Exif orientation, 1 to 8, that is still to be applied: Pillow turns TIFFs itself while it decodes them.

    Call it after the pixels of a PNG are decoded: else it decodes them, and hides that they are damaged.
    """
    try:
        value = header.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata of an intact picture: upright, as viewers show it
        return 1
    value = value[0] if isinstance(value, bytes) and value else value  # some write a byte instead of a short
    return value if value in range(1, 9) else 1


def decode(data: bytes, header: Image.Image, to: PictureFormat) -> tuple[np.ndarray, int | None]:
    """Decodes the first frame: uint8 [H, W, C], upright; and the highest sample, as bands.read. Raises ImageError.

    Transparency is laid over white for grey and RGB; for 2 and 4 channels it is the last one.
    """
    channels, highest = to.channels, None
    if channels not in USUAL:
        check_channels(len(header.getbands()) if header.mode != "P" else 3, channels)
        if header.mode not in ("LA", "RGBA"):
            raise ImageError(f"its channels are {', '.join(header.getbands())}; RGBA, or grey and alpha, can be stored")
    with _libtiff_errors() as said:
        try:
            header.load()
            image = header
            if channels in USUAL:
                image = _eight_bits(data, header, to.sample_range)
                highest = None if to.sample_range else _highest(data, header, image)
                image = opaque(image.convert("RGBA")) if image.has_transparency_data else image
                image = image if image.mode == "L" else image.convert("RGB")
            pixels = np.asarray(image)
        except ImageError:
            raise
        except Exception as error:  # as in read_header
            reason = said[0] if said else error
            raise ImageError(f"damaged or truncated: its pixels cannot be decoded ({reason})") from None
    return np.ascontiguousarray(UPRIGHT[orientation(header)](converted(pixels, channels))), highest


def _highest(data: bytes, header: Image.Image, image: Image.Image) -> int | None:
    """The highest sample of a PNG or TIFF of 16 bits that declares no range, above a multiple of 256 by 255 in colour,
    where Pillow has dropped the lower bits; None for other pictures. image is what _eight_bits makes of it."""
    tags = getattr(header, "tag_v2", {})
    bits = data[24] if header.format == "PNG" else np.ravel(tags.get(BITS, 8))[0]
    inverted_or_declared = tags.get(PHOTOMETRIC) == WHITE_IS_ZERO or (MINIMUM in tags and MAXIMUM in tags)
    if bits != 16 or header.format not in ("PNG", "TIFF") or inverted_or_declared:
        return None
    if header.mode == "I" or header.mode.startswith("I;16"):
        return int(np.asarray(header).max()) if np.ravel(tags.get(SAMPLE_FORMAT, 1))[0] == 1 else None
    colours = {"LA": 1, "RGB": 3, "RGBA": 3}.get(image.mode, 0)
    return int(np.asarray(image)[..., :colours].max()) * 256 + 255 if colours else None


def converted(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Converts pictures, uint8 [H, W] or [H, W, C], from grey to RGB and back: uint8 [H, W, channels]."""
    pixels = np.atleast_3d(pixels)
    if channels == 1 and pixels.shape[2] == 3:
        weighted = (pixels[..., i : i + 1] * np.uint32(weight) for i, weight in enumerate(GREY_OF_RGB))
        return (functools.reduce(np.add, weighted) >> 15).astype(np.uint8)
    return np.repeat(pixels, 3, 2) if channels == 3 and pixels.shape[2] == 1 else pixels


def _eight_bits(data: bytes, header: Image.Image, sample_range: tuple[float, float] | None) -> Image.Image:
    """A decoded picture with samples of 8 bits."""
    transparent = header.info.get("transparency")
    if header.mode in ("I", "F") or header.mode.startswith("I;16"):
        grey = Image.fromarray(_scaled(header, sample_range))
        if isinstance(transparent, int):
            grey.putalpha(Image.fromarray(np.where(np.asarray(header) == transparent, 0, 255).astype(np.uint8)))
        return grey
    if header.format == "PNG" and isinstance(transparent, int):  # of 1, 2 or 4 bits; Pillow's samples have 8
        top = 2 ** data[24] - 1
        header.info["transparency"] = (transparent & top) * 255 // top
    if header.format == "PNG" and header.mode == "RGB" and transparent is not None and data[24] == 16:
        # The transparent colour has 16 bits; Pillow would compare 8 of them.
        bgra = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        return Image.fromarray(cv2.cvtColor((bgra >> 8).astype(np.uint8), cv2.COLOR_BGRA2RGBA))
    return header


def _scaled(header: Image.Image, sample_range: tuple[float, float] | None) -> np.ndarray:
    """Deep grey samples as uint8 [H, W]. Raises ImageError where no range is declared or given."""
    tags = getattr(header, "tag_v2", {})
    values = np.asarray(header)
    check_numbers(values)
    bits, unsigned = np.ravel(tags.get(BITS, 16))[0], np.ravel(tags.get(SAMPLE_FORMAT, 1))[0] == 1
    if header.mode == "I" and unsigned and bits == 32:
        values = values.view(np.uint32)
    if sample_range and (header.format != "PPM" or header.mode == "F"):  # Pillow scales a PGM by its header's range
        low, high = sample_range
    elif MINIMUM in tags and MAXIMUM in tags:
        low, high = (float(np.ravel(tags[tag])[0]) for tag in (MINIMUM, MAXIMUM))
    elif header.mode != "F" and unsigned and bits <= 16:  # Pillow scales the samples of a PGM to 16 bits
        low, high = 0.0, 2.0**bits - 1
    elif tags:
        raise ImageError(
            f"{_samples(tags)}, declares no range of its values (tags SMinSampleValue and SMaxSampleValue), so black "
            f"and white are unknown; {GIVE_RANGE}, or save it with 8 or 16 bits, unsigned"
        )
    else:
        raise ImageError(
            f"a {header.format} of float samples declares no range of its values; {GIVE_RANGE}, or save it with 8 or "
            "16 bits"
        )
    if not low < high:
        raise ImageError(f"its tags declare values from {low:g} to {high:g}, which is no range")
    return scaled(values, (high, low) if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else (low, high))


def scaled(values: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    """Samples as uint8 of the same shape: ends become 0 and 255, what lies beyond them too; NaN becomes 0."""
    low, high = sorted(ends)
    bytes_ = np.interp(values, (low, high), (0, 255) if ends == (low, high) else (255, 0))
    return np.rint(np.nan_to_num(bytes_)).astype(np.uint8)


def opaque(rgba: Image.Image) -> Image.Image:
    """Lays a picture over white; over black if all that is visible is nearly white, such as a light drawing."""
    over_white = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    low, high = rgba.getchannel("A").getextrema()
    if low < 255 and high and over_white.convert("L").getextrema()[0] >= NEARLY_WHITE:
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba)
    return over_white


# libtiff prints its errors on standard error, without a file's name. They are caught where Pillow's copy of it can be
# reached, and left as they are elsewhere. Decoding runs in the caller's thread, and so does the handler.
_caught = threading.local()


@ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
def _on_libtiff_error(module: bytes | None, text: bytes, arguments: int) -> None:
    buffer = ctypes.create_string_buffer(200)
    ctypes.CDLL(None).vsnprintf(buffer, ctypes.c_size_t(len(buffer)), text, ctypes.c_void_p(arguments))
    getattr(_caught, "messages", []).append(buffer.value.decode(errors="replace"))


with contextlib.suppress(OSError, AttributeError):
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(_on_libtiff_error)
    ctypes.CDLL(_imaging.__file__).TIFFSetWarningHandler(None)


@contextlib.contextmanager
def _libtiff_errors() -> Iterator[list[str]]:
    """Collects libtiff's errors in this thread."""
    _caught.messages = []
    yield _caught.messages
