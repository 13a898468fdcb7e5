"""Picture files: header first, then pixels. Free of TensorFlow."""

import io
import os
from typing import NamedTuple

os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # what it says of a damaged picture, our error says
import cv2
import numpy as np
from PIL import Image

MAX_PIXELS = 64_000_000  # a 600-byte JPEG can promise as many as it likes; decoding takes 3 bytes for each
EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
EXIF_ORIENTATION = 0x0112


class EncodedImage(NamedTuple):
    """A picture as it lies in a record: upright, 8 bits, 1 or 3 channels, JPEG or PNG."""

    data: bytes
    format: str  # 'jpeg' or 'png'
    pixels: np.ndarray  # uint8 [H, W, C], RGB


class ImageError(Exception):
    """A picture that cannot be used; the message says why."""


def encode_png(pixels: np.ndarray) -> EncodedImage:
    """Losslessly encodes uint8 [H, W], [H, W, 1] or [H, W, 3] (RGB)."""
    pixels = np.atleast_3d(pixels)
    stored = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.shape[2] == 3 else pixels
    _, data = cv2.imencode(".png", stored)
    return EncodedImage(data.tobytes(), "png", pixels)


def check(data: bytes) -> EncodedImage:
    """Decodes the bytes of a picture file and gives what a record stores: the bytes themselves of an upright 8-bit RGB
    or grayscale JPEG or PNG, else a lossless PNG of the upright RGB pixels.

    Raises ImageError for what is damaged, no picture, or larger than MAX_PIXELS.
    """
    try:
        header = Image.open(io.BytesIO(data))
        orientation = header.getexif().get(EXIF_ORIENTATION, 1)
    except Exception as error:  # Pillow's plugins raise anything from KeyError to struct.error on hostile headers
        raise ImageError(f"its header cannot be read ({type(error).__name__})") from error
    if header.width * header.height > MAX_PIXELS:
        raise ImageError(f"its header promises {header.width}×{header.height} pixels, more than {MAX_PIXELS:,}")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise ImageError(f"OpenCV cannot decode it ({error.err})") from error
    if pixels is None:
        raise ImageError("OpenCV cannot decode it: damaged, cut short, or of no known format")
    if header.format in ("JPEG", "PNG") and header.mode in ("RGB", "L") and orientation == 1:
        return EncodedImage(data, header.format.lower(), pixels)
    return encode_png(pixels)
