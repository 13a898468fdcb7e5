"""Picture files: checks the header, decodes the pixels, encodes what a record stores. Free of TensorFlow.

The result is upright, 8 bits, RGB or grey. RGB and grey JPEGs are decoded by simplejpeg, others by pipeline.decoders.
A JPEG or PNG that TensorFlow decodes to the same pixels is stored unchanged.
"""

import io
import re
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from pipeline.decoders import UPRIGHT, ImageError, decode, no_warnings, orientation, read_header

MAX_PIXELS = 64_000_000  # the header of a 600-byte JPEG can have any number; decoding takes 3 bytes for each
EXTENSIONS = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".ico", ".psd"),
}
JPEG_QUALITY = 95
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
    pixels: np.ndarray  # uint8 [H, W, C], RGB or grey: `data` as TensorFlow decodes it

    height = property(lambda self: self.pixels.shape[0])
    width = property(lambda self: self.pixels.shape[1])


def encode_png(pixels: np.ndarray) -> StoredImage:
    """Encodes uint8 [H, W], [H, W, 1] or [H, W, 3] (RGB) without loss."""
    pixels = np.atleast_3d(pixels)
    _, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.shape[2] == 3 else pixels)
    return StoredImage(data.tobytes(), "png", pixels)


def encode_jpeg(pixels: np.ndarray) -> StoredImage:
    """Encodes uint8 [H, W, 1] or [H, W, 3] (RGB) at quality 95."""
    space = "GRAY" if pixels.shape[2] == 1 else "RGB"
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), JPEG_QUALITY, space)
    return StoredImage(data, "jpeg", simplejpeg.decode_jpeg(data, space))


@no_warnings()
def store(data: bytes, channels: int = 3, short_side: int | None = None, max_pixels: int = MAX_PIXELS) -> StoredImage:
    """Decodes the content of a picture file and returns what a record stores, RGB (3 channels) or grey (1).

    That is `data` itself if it is an upright 8-bit RGB or grey JPEG or PNG; else the pixels encoded again, as JPEG if
    they came from JPEG, otherwise as PNG. Pictures with a shorter side above `short_side` pixels are shrunk to it by
    area. Raises ImageError if the file is damaged, no picture, or its header has more than `max_pixels`.
    """
    header = read_header(data, max_pixels)
    is_jpeg = header.format in ("JPEG", "MPO")
    small = short_side is None or min(header.size) <= short_side
    if is_jpeg:
        pixels, clean = _decode_jpeg(data, header, channels)
        if clean and small:
            return StoredImage(data, "jpeg", pixels)
    else:
        pixels = decode(data, header, channels)
        clean = header.format == "PNG" and _is_clean_png(data)
        plain = header.mode in (("L",) if channels == 1 else ("RGB", "L"))
        special = header.has_transparency_data or getattr(header, "is_animated", False)
        # Byte 24 is the bit depth: Pillow has the same mode for RGB of 16 and of 8 bits.
        if clean and plain and data[24] == 8 and not special and orientation(header) == 1 and small:
            return StoredImage(data, "png", pixels)
    if short_side and min(pixels.shape[:2]) > short_side:
        scale = short_side / min(pixels.shape[:2])
        width, height = (max(short_side, round(side * scale)) for side in pixels.shape[1::-1])
        pixels = np.atleast_3d(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA))
    return encode_jpeg(pixels) if is_jpeg else encode_png(pixels)


def _is_clean_png(data: bytes) -> bool:
    """Whether all chunks are intact, as TensorFlow demands. Raises ImageError if those of the pixels are not."""
    try:
        Image.open(io.BytesIO(data), formats=["PNG"]).verify()
    except Exception as error:  # as in read_header
        if "IDAT" in str(error):  # Pillow decodes them all the same
            raise ImageError(f"damaged: {error}") from None
        return False
    return data.endswith(b"\0\0\0\0IEND\xaeB`\x82")  # verify() does not check the last chunk


def _decode_jpeg(data: bytes, header: Image.Image, channels: int) -> tuple[np.ndarray, bool]:
    """The upright pixels, and whether every libjpeg decodes `data` to the same pixels without a warning."""
    if header.mode not in ("RGB", "L"):
        return decode(data, header, channels), False
    try:
        pixels = simplejpeg.decode_jpeg(data, "GRAY" if channels == 1 else "RGB", strict=True)
    except ValueError as error:
        if not HARMLESS.search(str(error)) and not FOREIGN.search(str(error)):
            raise ImageError(f"damaged: {str(error)[:1].lower()}{str(error)[1:]}") from None
        return decode(data, header, channels), False  # or an ImageError, since one warning may hide another
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
    stored = store(data, channels)
    return None if stored.data == data else stored
