"""Picture files: checks the header, decodes the pixels, encodes what a record stores. Free of TensorFlow.

The result is upright, 8 bits, RGB or grey, or of another number of channels. RGB and grey JPEGs are decoded by
simplejpeg, .npy arrays and TIFFs of bands by pipeline.bands, others by pipeline.decoders. A JPEG or PNG that TensorFlow
decodes to the same pixels is stored unchanged. A picture that is neither RGB nor grey is stored as one grey PNG,
[C * H, W], in which its channels lie one below the other.
"""

import io
import re
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from channels import USUAL
from pipeline import bands
from pipeline.decoders import (
    MAX_PIXELS,
    UPRIGHT,
    ImageError,
    PictureFormat,
    check_channels,
    decode,
    no_warnings,
    orientation,
    read_header,
)

__all__ = ["EXTENSIONS", "MAX_PIXELS", "ImageError", "PictureFormat", "StoredImage"]
__all__ += ["encode_jpeg", "encode_png", "standard", "store", "store_array", "stored_pixels"]
EXTENSIONS = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".ico", ".psd", ".npy"),
}
JPEG_QUALITY = 95
MOST_ROWS = 1_000_000  # of a PNG that libpng writes and reads
MOST_SAMPLES = 2**29  # of a PNG that TensorFlow reads
RESIZED_AT_ONCE = 4  # channels, by OpenCV's INTER_AREA
# Warnings of libjpeg that do not concern pixels. To TensorFlow any warning is an error: such files are encoded again.
HARMLESS = re.compile(r"bad ICC marker|extraneous bytes before marker 0x(db|e|fe)")
FOREIGN = re.compile(r"subsampling level|[Uu]nsupported color")  # kinds that simplejpeg lacks and Pillow may support

EVERYWHERE = 0xC0, 0xC1, 0xC2  # baseline to progressive: the coding processes of JPEG that every decoder supports
# Transparency, animation, and what may hold an orientation: TensorFlow looks at none of it.
UNSEEN = re.compile(rb"tRNS|acTL|eXIf|Raw profile type|Exif\0\0|http://ns\.adobe\.com/xap|XML:com\.adobe\.xmp")


class StoredImage(NamedTuple):
    """A picture as a record stores it: upright, 8 bits, JPEG or PNG."""

    data: bytes
    format: str  # 'jpeg' or 'png'
    pixels: np.ndarray  # uint8 [H, W, C]: `data` as pipeline.pictures decodes it
    highest: int | None = None  # sample, where samples of 16 bits have no range of their own; else None

    height = property(lambda self: self.pixels.shape[0])
    width = property(lambda self: self.pixels.shape[1])


def encode_png(pixels: np.ndarray) -> StoredImage:
    """Encodes uint8 [H, W] or [H, W, C] without loss. Raises ImageError for too many samples of many channels."""
    pixels = np.atleast_3d(pixels)
    height, width, channels = pixels.shape
    image = pixels
    if channels == 3:
        image = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    elif channels not in USUAL:
        if channels * height > MOST_ROWS or pixels.size >= MOST_SAMPLES:
            raise ImageError(f"{channels} channels of {width}×{height} pixels are too many; --short-side shrinks them")
        image = np.moveaxis(pixels, 2, 0).reshape(channels * height, width)
    _, data = cv2.imencode(".png", image)
    return StoredImage(data.tobytes(), "png", pixels)


def stored_pixels(data: bytes, channels: int) -> np.ndarray:
    """The picture of a record, uint8 [H, W, channels], as pipeline.pictures decodes it. Raises ImageError."""
    if channels in USUAL:
        return store(data, PictureFormat(channels)).pixels
    rows = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if rows is None or rows.ndim != 2 or len(rows) % channels:
        raise ImageError(f"no PNG of {channels} channels, one below the other")
    return np.ascontiguousarray(np.moveaxis(rows.reshape(channels, -1, rows.shape[1]), 0, 2))


def encode_jpeg(pixels: np.ndarray) -> StoredImage:
    """Encodes uint8 [H, W, 1] or [H, W, 3] (RGB) at quality 95."""
    space = "GRAY" if pixels.shape[2] == 1 else "RGB"
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), JPEG_QUALITY, space)
    return StoredImage(data, "jpeg", simplejpeg.decode_jpeg(data, space))


@no_warnings()
def store(data: bytes, to: PictureFormat = PictureFormat()) -> StoredImage:  # noqa: B008 – it cannot be changed
    """Decodes the content of a picture file and returns what a record stores, of `to.channels` channels.

    That is `data` itself if it is an upright 8-bit RGB or grey JPEG or PNG; else the pixels encoded again, as JPEG if
    they came from JPEG, otherwise as PNG. Pictures with a shorter side above `to.short_side` pixels are shrunk to it by
    area. Raises ImageError if the file is damaged, no picture, has another number of channels than a data set that is
    neither RGB nor grey, or its header has more than `to.max_pixels`.
    """
    if found := bands.read(data, to):
        if data.startswith(bands.PNG):
            _is_clean_png(data)
        return encode_png(_shrunk(found[0], to.short_side))._replace(highest=found[1])
    header = read_header(data, to.max_pixels)
    is_jpeg = header.format in ("JPEG", "MPO")
    small, highest = to.short_side is None or min(header.size) <= to.short_side, None
    if is_jpeg:
        pixels, clean = _decode_jpeg(data, header, to)
        if clean and small:
            return StoredImage(data, "jpeg", pixels)
    else:
        pixels, highest = decode(data, header, to)
        clean = header.format == "PNG" and _is_clean_png(data) and to.channels in USUAL
        plain = header.mode in (("L",) if to.channels == 1 else ("RGB", "L"))
        special = header.has_transparency_data or getattr(header, "is_animated", False)
        # Byte 24 is the bit depth: Pillow has the same mode for RGB of 16 and of 8 bits.
        if clean and plain and data[24] == 8 and not special and orientation(header) == 1 and small:
            return StoredImage(data, "png", pixels)
    pixels = _shrunk(pixels, to.short_side)
    return encode_jpeg(pixels) if is_jpeg else encode_png(pixels)._replace(highest=highest)


def store_array(pixels: np.ndarray, to: PictureFormat) -> StoredImage:
    """As `store`, of uint8 [H, W] or [H, W, C]."""
    pixels = np.atleast_3d(pixels)
    if pixels.shape[2] in USUAL and (pixels.shape[2] != to.channels or to.short_side):
        return store(encode_png(pixels).data, to)
    check_channels(pixels.shape[2], to.channels)
    return encode_png(_shrunk(pixels, to.short_side))


def _shrunk(pixels: np.ndarray, short_side: int | None) -> np.ndarray:
    """Pixels [H, W, C] whose shorter side has `short_side` pixels at most, averaged by area."""
    if not short_side or min(pixels.shape[:2]) <= short_side:
        return pixels
    scale = short_side / min(pixels.shape[:2])
    size = [max(short_side, round(side * scale)) for side in pixels.shape[1::-1]]
    parts = np.split(pixels, range(RESIZED_AT_ONCE, pixels.shape[2], RESIZED_AT_ONCE), 2)
    resized = [cv2.resize(np.ascontiguousarray(part), size, interpolation=cv2.INTER_AREA) for part in parts]
    return np.concatenate([np.atleast_3d(part) for part in resized], 2)


def _is_clean_png(data: bytes) -> bool:
    """Whether all chunks are intact, as TensorFlow demands. Raises ImageError if those of the pixels are not."""
    try:
        Image.open(io.BytesIO(data), formats=["PNG"]).verify()
    except Exception as error:  # as in read_header
        if "IDAT" in str(error):  # Pillow decodes them all the same
            raise ImageError(f"damaged: {error}") from None
        return False
    return data.endswith(b"\0\0\0\0IEND\xaeB`\x82")  # verify() does not check the last chunk


def _decode_jpeg(data: bytes, header: Image.Image, to: PictureFormat) -> tuple[np.ndarray, bool]:
    """The upright pixels, and whether every libjpeg decodes `data` to the same pixels without a warning."""
    if header.mode not in ("RGB", "L") or to.channels not in USUAL:
        return decode(data, header, to)[0], False
    try:
        pixels = simplejpeg.decode_jpeg(data, "GRAY" if to.channels == 1 else "RGB", strict=True)
    except ValueError as error:
        if not HARMLESS.search(str(error)) and not FOREIGN.search(str(error)):
            raise ImageError(f"damaged: {str(error)[:1].lower()}{str(error)[1:]}") from None
        return decode(data, header, to)[0], False  # or an ImageError, since one warning may hide another
    turn = orientation(header)
    clean = turn == 1 and _frame(data)[0] in EVERYWHERE
    return np.ascontiguousarray(UPRIGHT[turn](pixels)), clean


def _frame(data: bytes) -> tuple[int, int]:
    """The frame marker of a JPEG, which is its coding process, and the number of components; zeros if there is none."""
    position = 2
    while position + 10 <= len(data):
        marker = data[position + 1]
        if data[position] != 0xFF or marker == 0xFF:
            position += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return marker, data[position + 9]
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return 0, 0


def standard(data: bytes, channels: int) -> StoredImage | None:
    """A JPEG or PNG that another program stored as `store` stores it; None where TensorFlow shows it as it is.

    Where the header says that nothing needs to change, only that is read. Raises ImageError where the picture cannot be
    decoded.
    """
    if data.startswith(b"\xff\xd8"):
        marker, components = _frame(data)
        plain = marker in EVERYWHERE and components in (1, 3)
        metadata = data[: data.find(b"\xff\xda")]
    elif data.startswith(b"\x89PNG"):
        plain = data[24:25] == b"\x08" and data[25:26] in ((b"\0",) if channels == 1 else (b"\0", b"\2"))
        metadata = data
    else:
        return None
    if plain and not UNSEEN.search(metadata):
        return None
    stored = store(data, PictureFormat(channels))
    return None if stored.data == data else stored
