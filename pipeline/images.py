"""Picture files: checks the header, decodes the pixels, encodes what a record stores. Free of TensorFlow.

The result is upright, 8 bits, RGB or grey. Transparent pictures get a white background; only the first frame of an
animation is used. A JPEG or PNG that TensorFlow decodes to the same pixels is stored unchanged.
"""

import io
import re
import warnings
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # ImageError reports damaged pictures
MAX_PIXELS = 64_000_000  # the header of a 600-byte JPEG can have any number; decoding takes 3 bytes for each
EXTENSIONS = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".ico", ".psd"),
}
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF", "PPM", "ICO", "PSD")
OPENCV_FORMATS = ("PNG", "BMP", "DIB", "WEBP", "TIFF", "PPM", "JPEG", "MPO")  # OpenCV scales 16 bits to 8, Pillow clips
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
JPEG_QUALITY = 95
# Warnings of libjpeg that do not concern pixels. To TensorFlow any warning is an error: such files are encoded again.
HARMLESS = re.compile(r"bad ICC marker|extraneous bytes before marker 0x(db|e|fe)")
FOREIGN = re.compile(r"subsampling level|[Uu]nsupported color")  # kinds that simplejpeg lacks and OpenCV may support


class StoredImage(NamedTuple):
    """A picture as a record stores it: upright, 8 bits, JPEG or PNG."""

    data: bytes
    format: str  # 'jpeg' or 'png'
    pixels: np.ndarray  # uint8 [H, W, C], RGB or grey: `data` as TensorFlow decodes it

    height = property(lambda self: self.pixels.shape[0])
    width = property(lambda self: self.pixels.shape[1])


class ImageError(Exception):
    """A picture that cannot be used; the message says why."""


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


def store(data: bytes, channels: int = 3, short_side: int | None = None, max_pixels: int = MAX_PIXELS) -> StoredImage:
    """Decodes the content of a picture file and returns what a record stores, RGB (3 channels) or grey (1).

    That is `data` itself if it is an upright 8-bit RGB or grey JPEG or PNG; else the pixels encoded again, as JPEG if
    they came from JPEG, otherwise as PNG. Pictures with a shorter side above `short_side` pixels are shrunk to it by
    area. Raises ImageError if the file is damaged, no picture, or its header has more than `max_pixels`.
    """
    header = _header(data, max_pixels)
    is_jpeg = header.format in ("JPEG", "MPO")
    untouched = _orientation(header) == 1 and (short_side is None or min(header.size) <= short_side)
    if is_jpeg:
        pixels, clean = _decode_jpeg(data, header, channels)
        if clean and untouched:
            return StoredImage(data, "jpeg", pixels)
    else:
        pixels = _decode(data, header, channels)
        plain = header.format == "PNG" and header.mode in (("L",) if channels == 1 else ("RGB", "L"))
        special = header.has_transparency_data or getattr(header, "is_animated", False)
        # Byte 24 is the bit depth: Pillow has the same mode for RGB of 16 and of 8 bits.
        if plain and data[24] == 8 and not special and untouched and _is_clean_png(data):
            return StoredImage(data, "png", pixels)
    if short_side and min(pixels.shape[:2]) > short_side:
        scale = short_side / min(pixels.shape[:2])
        width, height = (max(short_side, round(side * scale)) for side in pixels.shape[1::-1])
        pixels = np.atleast_3d(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA))
    return encode_jpeg(pixels) if is_jpeg else encode_png(pixels)


def _header(data: bytes, max_pixels: int) -> Image.Image:
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata; too many pixels are reported below
            header = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise ImageError(f"its header has far more than {max_pixels:,} pixels; --max-pixels allows more") from None
    except Exception as error:  # Pillow raises errors of many types, from KeyError to struct.error, on damaged headers
        kind = "no picture of a known format" if isinstance(error, Image.UnidentifiedImageError) else "damaged"
        raise ImageError(f"{kind}: its header cannot be read") from error
    if header.width * header.height > max_pixels:
        raise ImageError(
            f"its header has {header.width}×{header.height} pixels, more than {max_pixels:,}; --max-pixels allows more"
        )
    return header


def _orientation(header: Image.Image) -> int:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            orientation = header.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata of an intact picture: upright, as viewers show it
        return 1
    return orientation if orientation in range(1, 9) else 1


def _is_clean_png(data: bytes) -> bool:
    """Whether all chunks are intact: OpenCV accepts damage after the pixels, TensorFlow does not."""
    try:
        Image.open(io.BytesIO(data), formats=["PNG"]).verify()
    except Exception:  # as in _header
        return False
    return data.endswith(b"\0\0\0\0IEND\xaeB`\x82")  # verify() does not check the last chunk


def _decode_jpeg(data: bytes, header: Image.Image, channels: int) -> tuple[np.ndarray, bool]:
    """The upright pixels, and whether every libjpeg decodes `data` to the same pixels without a warning."""
    clean = _coding_process(data) in (0xC0, 0xC1, 0xC2)
    try:
        pixels = simplejpeg.decode_jpeg(data, "GRAY" if channels == 1 else "RGB", strict=True)
    except ValueError as error:
        clean = False
        if not HARMLESS.search(str(error)) and not FOREIGN.search(str(error)):
            raise ImageError(f"damaged: {str(error)[:1].lower()}{str(error)[1:]}") from None
        try:  # one warning may hide another
            header.load()
        except Exception as second:  # as in _header
            raise ImageError(f"damaged or truncated: {second}") from None
    if clean and header.mode in ("RGB", "L") and _orientation(header) == 1:
        return pixels, True
    return _decode(data, header, channels), False


def _coding_process(data: bytes) -> int:
    """The frame marker of a JPEG: every decoder supports 0xC0 to 0xC2 (baseline to progressive); 0 if there is none."""
    position = 2
    while position + 4 <= len(data):
        marker = data[position + 1]
        if data[position] != 0xFF or marker == 0xFF:
            position += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return marker
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return 0


def _decode(data: bytes, header: Image.Image, channels: int) -> np.ndarray:
    """Upright pixels of any format: by OpenCV if it supports the format and nothing is transparent, else by Pillow."""
    pixels = None
    if header.format in OPENCV_FORMATS and not header.has_transparency_data:
        flag = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
        try:  # OpenCV misses some orientations that Pillow finds, such as ImageMagick's in a PNG
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
        except cv2.error as error:
            raise ImageError(f"OpenCV cannot decode it ({error.err})") from None
        if pixels is None and header.format != "TIFF":  # only Pillow supports some of its compressions
            raise ImageError("damaged or truncated: its pixels cannot be decoded")
        if pixels is not None and header.format != "TIFF":  # OpenCV always rotates TIFF itself
            pixels = UPRIGHT[_orientation(header)](pixels)
    if pixels is None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                rgba = ImageOps.exif_transpose(header).convert("RGBA")
        except Exception as error:  # as in _header
            raise ImageError(f"damaged or truncated: its pixels cannot be decoded ({error})") from None
        over_white = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        pixels = np.asarray(over_white.convert("L" if channels == 1 else "RGB"))
    return np.ascontiguousarray(np.atleast_3d(pixels))
