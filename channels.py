"""Numbers of channels: which ones pictures can have, their names, and what people see of them. Free of TensorFlow.

Pictures of 1 and 3 channels are grey and RGB. Of all others the first three channels are shown as red, green and blue,
of two channels the first one as grey.
"""

from typing import TypeVar

MOST = 16
USUAL = (1, 3)  # what JPEG has, and what a PNG is decoded to; other numbers are stored one below the other
Images = TypeVar("Images")  # an array or a tensor


def named(channels: int) -> "str | int":
    """RGB, grey, or the number."""
    return {1: "grey", 3: "RGB"}.get(channels, channels)


def visible(images: Images) -> Images:
    """The channels of pictures [..., H, W, C] that are shown: [..., H, W, 3] for RGB, or [..., H, W, 1] for grey."""
    return images[..., : 3 if images.shape[-1] >= 3 else 1]
