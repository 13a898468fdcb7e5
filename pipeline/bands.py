"""Reads pictures of any number of channels: .npy arrays, TIFFs of bands, and deep PNGs. Free of TensorFlow.

Pillow, which reads all other pictures, knows no picture of five channels. The layout is never guessed: an array is
[H, W] or [H, W, C], and a TIFF says how many samples a pixel has. Samples of more than 8 bits are scaled by the range
that the user gives or that the file declares; without one, unsigned samples of 16 bits are scaled by 65535.
"""

import io
import logging
import math
import re

import cv2
import numpy as np
import tifffile
from PIL import Image

from channels import MOST, USUAL
from errors import UserError
from pipeline.decoders import (
    GIVE_RANGE,
    MAXIMUM,
    MINIMUM,
    UPRIGHT,
    WHITE_IS_ZERO,
    ImageError,
    PictureFormat,
    check_channels,
    check_numbers,
    converted,
    opaque,
    orientation,
    read_header,
    scaled,
)

NPY, PNG = b"\x93NUMPY", b"\x89PNG\r\n\x1a\n"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF
FULL_RANGE = 2**16 - 1
GREY, RGB = 1, 2  # values of a TIFF's PhotometricInterpretation; in grey, 0 is black
SEPARATE = 2  # of PlanarConfiguration: the channels lie in planes
ASSOCIATED, UNASSOCIATED = 1, 2  # values of ExtraSamples for transparency: colours multiplied by it, or not
REDUCED, MASK = 1, 4  # bits of NewSubfileType: pages that are no pictures of their own
ORIENTATION = 274  # a tag
PNG_CHANNELS = {2: 3, 4: 2, 6: 4}  # by colour type: RGB; grey and RGB with transparency
CHANNELS_LAST = "save it as [H, W, C]: numpy.save(file, numpy.moveaxis(array, 0, -1))"
logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # ImageError reports what is wrong, and in which file

Read = tuple[np.ndarray, "int | None"]


def read(data: bytes, to: PictureFormat) -> Read | None:
    """The upright picture, uint8 [H, W, C], and its highest sample where samples of 16 bits have no range of their own.

    None for a file that Pillow reads. Raises ImageError.
    """
    if data.startswith(NPY):
        return _eight_bits(read_array(data, to), to)
    if data.startswith(TIFF):
        return _read_tiff(data, to) if to.channels not in USUAL or _is_misread(data, to) else None
    if data.startswith(PNG) and data[24:25] == b"\x10":  # bytes 24 and 25 are the bit depth and the colour type
        channels = PNG_CHANNELS.get(data[25])
        if channels and (to.channels not in USUAL or to.sample_range):
            return _read_png(data, to, channels)
    return None


def channels_of(data: bytes) -> int | None:
    """The number of channels of an array, or of a TIFF that is neither grey nor in colour, transparent or not;
    None for other pictures, and for damaged ones. Raises UserError where the layout of an array, or of a TIFF of
    several pages, is not clear, and where a TIFF does not declare what a sample beyond grey or RGB is."""
    try:
        if data.startswith(TIFF):
            return _channels_of_tiff(data)
        if not data.startswith(NPY):
            return None
        shape = _array_header(data, PictureFormat(max_pixels=2**62))[0]
    except UserError:
        raise
    except Exception:  # as in _read_tiff; the picture is rejected later, with the reason
        return None
    if len(shape) == 3 and shape[0] != shape[2] and shape[0] <= MOST:
        raise UserError(
            f"its shape {shape} may have {shape[2]} channels, or {shape[0]} that come first; name the number, such as "
            f"--channels {shape[2]}. Channels are last: [H, W, C]"
        )
    return shape[2] if len(shape) == 3 else 1


def _channels_of_tiff(data: bytes) -> int | None:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page, pages = file.pages[0], _full_pages(list(file.pages))
    samples, kinds = page.samplesperpixel, {(each.shape, each.dtype) for each in pages}
    if samples == 1 < len(pages) <= MOST and len(kinds) == 1:
        raise UserError(
            f"it has {len(pages)} pages of one sample each: --channels {len(pages)} reads them as channels, "
            "--channels 3 or 1 the first page alone"
        )
    if samples in USUAL or page.photometric not in (GREY, RGB):
        return None
    if _has_grey_planes(page) or not (samples <= 4 and _is_read_by_pillow(data)):
        return samples
    if _is_transparent(page):
        return None
    usual = samples - 1
    raise UserError(
        f"it has {'RGB' if usual == 3 else 'grey'} and one sample more, and does not declare what that is (its "
        f"tag ExtraSamples names no transparency): --channels {samples} stores all samples, "
        f"--channels {usual} leaves that one out; both are options of python -m pipeline.convert"
    )


def _is_transparent(page: tifffile.TiffPage) -> bool:
    """Whether the last sample is declared as transparency."""
    return bool(page.extrasamples) and page.extrasamples[-1] in (ASSOCIATED, UNASSOCIATED)


def _has_grey_planes(page: tifffile.TiffPage) -> bool:
    """Whether a page has several planes of grey, all of which Pillow would fill with the first."""
    return page.photometric in (WHITE_IS_ZERO, GREY) and page.samplesperpixel > 1 and page.planarconfig == SEPARATE


def _is_read_by_pillow(data: bytes) -> bool:
    """Whether Pillow takes the last of 2 or 4 samples for transparency, or passes over it."""
    try:
        return bool(read_header(data, 2**62))
    except ImageError:
        return False


def read_array(data: bytes, to: PictureFormat) -> np.ndarray:
    """The array of a .npy file, [H, W, C]. Raises ImageError."""
    shape, by_columns, dtype, start = _array_header(data, to)
    found = shape[2] if len(shape) == 3 else 1
    if shape[0] == to.channels != found and len(shape) == 3:
        raise ImageError(f"its shape is {shape}, with the channels first; {CHANNELS_LAST}")
    check_channels(found, to.channels)
    values = np.frombuffer(data, dtype, math.prod(shape), start).reshape(shape, order="F" if by_columns else "C")
    return np.atleast_3d(values)


def _array_header(data: bytes, to: PictureFormat) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, whether it is stored by columns, type and first byte of an array. Raises ImageError, before anything of
    the array's size is made."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, by_columns, dtype = readers[version](file)
    except Exception as error:  # ValueError, KeyError, and what its parser of Python's literals raises
        raise ImageError(f"damaged: it has no header of a .npy file ({str(error)[:80]})".replace("\n", " ")) from None
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise ImageError(f"not supported: an array of {str(dtype)[:40]}; save it as uint8 or uint16")
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ImageError(f"its shape is {str(shape)[:80]}; it must be [H, W] or [H, W, C]")
    if len(shape) == 3 and shape[2] > MOST:
        advice = f"its channels seem to come first; {CHANNELS_LAST}" if shape[0] <= MOST else "it must be [H, W, C]"
        raise ImageError(f"its shape is {shape}, of at most {MOST} channels: {advice}")
    _check_size(*shape[:2], to)
    needed, start = math.prod(shape) * dtype.itemsize, file.tell()
    if len(data) - start != needed:
        raise ImageError(f"damaged: its header needs {needed:,} bytes, and {len(data) - start:,} follow it")
    return shape, by_columns, dtype, start


def _check_size(height: int, width: int, to: PictureFormat) -> None:
    if height * width > to.max_pixels:
        size = f"{width}×{height} pixels, more than {to.max_pixels:,}"
        raise ImageError(f"its header has {size}; --max-pixels allows more")


def _eight_bits(values: np.ndarray, to: PictureFormat, declared: tuple[object, object] | None = None) -> Read:
    """As `read`, of samples [H, W, C]. declared are their lowest and highest value, each one or one for each channel.

    Raises ImageError where samples have no range.
    """
    if values.dtype == np.uint8:
        return np.ascontiguousarray(converted(values, to.channels)), None
    highest, ends = None, to.sample_range or declared
    if not ends:
        if values.dtype.kind != "u" or values.dtype.itemsize != 2:
            unknown = f"its samples are {values.dtype.name}, and no range is declared, so black and white are unknown"
            raise ImageError(f"{unknown}; {GIVE_RANGE}, or save it as uint8 or uint16")
        highest, ends = int(values.max()), (0, FULL_RANGE)
    check_numbers(values)
    pixels = np.empty(values.shape, np.uint8)
    try:
        low, high = (np.broadcast_to(np.ravel(end).astype(float), values.shape[2:]) for end in ends)
    except (ValueError, TypeError):
        raise ImageError("its tags declare a range for another number of channels") from None
    for channel, limits in enumerate(zip(low, high, strict=True)):
        if not limits[0] < limits[1]:
            raise ImageError(f"its tags declare values from {limits[0]:g} to {limits[1]:g}, which is no range")
        pixels[..., channel] = scaled(values[..., channel], limits)
    return np.ascontiguousarray(converted(pixels, to.channels)), highest


def _is_misread(data: bytes, to: PictureFormat) -> bool:
    """Whether Pillow would read a TIFF wrongly: planes of grey, and samples in colour that the given range scales,
    which it would scale by 65535."""
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages[0]
        deep_colour = page.photometric == RGB and np.max(page.bitspersample) > 8
        return _has_grey_planes(page) or bool(to.sample_range and deep_colour)
    except Exception:  # as in _read_tiff; Pillow says what is wrong
        return False


def _read_tiff(data: bytes, to: PictureFormat) -> Read:
    compression = ""
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            pages = _pages(list(file.pages), to)
            compression = getattr(pages[0].compression, "name", "unknown")
            values = np.concatenate([_samples(page, to) for page in pages], 2)
            tags = [pages[0].tags.get(tag) for tag in (MINIMUM, MAXIMUM, ORIENTATION)]
            low, high, turn = (tag and tag.value for tag in tags)
    except ImageError:
        raise
    except Exception as error:  # tifffile raises errors of many types, such as zlib.error, on damaged files
        codec = re.search(r"(\w+): \d+> requires the 'imagecodecs' package", str(error))  # or a part of one
        if codec or isinstance(error, ImportError):  # Zstandard comes with Python 3.14
            advice = "pip install imagecodecs, or save it with deflate: gdal_translate -co COMPRESS=DEFLATE IN OUT"
            name = codec[1] if codec else compression
            raise ImageError(f"not supported: a TIFF with the compression {name}; {advice}") from None
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise ImageError(f"damaged or truncated: its samples cannot be decoded ({reason})") from None
    declared = None if None in (low, high) else (low, high)
    if to.channels in USUAL and values.shape[2] == 4:
        pixels, highest = _without_fourth(values, pages[0], to)
    else:
        pixels, highest = _eight_bits(values, to, declared)
    return np.ascontiguousarray(UPRIGHT.get(turn, UPRIGHT[1])(pixels)), highest


def _pages(pages: list[tifffile.TiffPage], to: PictureFormat) -> list[tifffile.TiffPage]:
    """The page with all channels; or a page for each, where there are as many, all of one size and type.

    Raises ImageError for another number of channels, and where samples are no channels.
    """
    first, channels = pages[0], 3 if to.channels in USUAL else to.channels
    full = _full_pages(pages) if first.samplesperpixel == 1 else []
    if len(full) == channels > 1 and len({(page.shape, page.dtype) for page in full}) == 1:
        pages = full
    else:
        if not (to.channels in USUAL and first.photometric == RGB and first.samplesperpixel == 4):
            check_channels(first.samplesperpixel, channels)
        pages = [first]
    for page in pages:
        if page.photometric not in (GREY, RGB):
            kind = getattr(page.photometric, "name", page.photometric)
            raise ImageError(f"not supported: a TIFF of {first.samplesperpixel} samples that are {kind}, no bands")
        if page.dtype is None or np.ravel(page.bitspersample).tolist() != [8 * page.dtype.itemsize]:
            raise ImageError(f"not supported: a TIFF with samples of {page.bitspersample} bits; save it with 8 or 16")
        if page.imagedepth != 1:
            raise ImageError(f"not supported: a TIFF of volumes, {page.imagedepth} deep")
        _check_size(page.imagelength, page.imagewidth, to)
    return pages


def _full_pages(pages: list[tifffile.TiffPage]) -> list[tifffile.TiffPage]:
    """The pages that are pictures of their own, neither smaller versions nor masks of others."""
    return [page for page in pages if not page.subfiletype & (REDUCED | MASK)]


def _samples(page: tifffile.TiffPage, to: PictureFormat) -> np.ndarray:
    """The samples of a page, [H, W, C]."""
    values = page.asarray(maxworkers=1)
    in_planes = page.samplesperpixel > 1 and page.planarconfig == SEPARATE
    return np.moveaxis(values, 0, -1) if in_planes else np.atleast_3d(values)


def _without_fourth(values: np.ndarray, page: tifffile.TiffPage, to: PictureFormat) -> Read:
    """As `read`, of RGB and one sample more: over white, where that is transparency; else without it, as Pillow does.

    Raises ImageError for transparency that cannot be used together with a range.
    """
    if not _is_transparent(page):
        return _eight_bits(values[..., :3], to)
    if page.extrasamples[-1] == ASSOCIATED or values.dtype != np.uint16:
        kind = "associated (premultiplied)" if page.extrasamples[-1] == ASSOCIATED else values.dtype.name
        advice = "save it without transparency, or --channels 4 stores it as a channel"
        raise ImageError(f"not supported: --sample-range for a TIFF with {kind} transparency; {advice}")
    return _over_white(values, to)


def _over_white(values: np.ndarray, to: PictureFormat) -> Read:
    """As `read`, of grey or RGB and transparency, uint16 [H, W, 2 or 4]: the range concerns the colours alone."""
    colours, highest = _eight_bits(values[..., :-1], to._replace(channels=values.shape[2] - 1))
    opacity = scaled(values[..., -1:], (0, FULL_RANGE))
    transparent = Image.fromarray(np.concatenate([colours, opacity], 2))
    return converted(np.asarray(opaque(transparent.convert("RGBA")).convert("RGB")), to.channels), highest


def _read_png(data: bytes, to: PictureFormat, channels: int) -> Read:
    """A PNG of 16 bits, of which Pillow would give 8; with transparency as a channel, or grey or RGB over white."""
    if to.channels not in USUAL:
        check_channels(channels, to.channels)
    header = read_header(data, to.max_pixels)
    try:
        header.load()  # names damages that OpenCV passes over
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        values = cv2.cvtColor(decoded, cv2.COLOR_BGRA2RGBA if decoded.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    except Exception as error:  # as in decoders.read_header
        raise ImageError(f"damaged or truncated: its pixels cannot be decoded ({error})") from None
    if channels == 2:  # OpenCV has repeated the grey
        values = values[..., [0, 3]]
    if to.channels in USUAL:  # a transparent colour makes one channel more
        pixels, highest = (_over_white if values.shape[2] in (2, 4) else _eight_bits)(values, to)
    else:
        check_channels(values.shape[2], channels)
        pixels, highest = _eight_bits(values, to)
    return np.ascontiguousarray(UPRIGHT[orientation(header)](pixels)), highest
