"""Picture files on which an export is compared with its checkpoint."""

import cv2
import numpy as np

from pipeline.dataset import Dataset, has_dataset
from pipeline.images import encode_jpeg, encode_png

PICTURES = 8


def sample_pictures(data: str | None, size: int, channels: int) -> tuple[list[bytes], str]:
    """JPEG and PNG files, and a description of their origin: a directory of shards, or noise where it is missing."""
    if data and has_dataset(data):
        dataset = Dataset.load(data)
        split = next(name for name in ("test", "validation", "train") if dataset.size(name))
        index = dataset.index(split, "skip").intact()
        count = len(index.offsets)
        rows = np.linspace(0, count - 1, min(PICTURES, count), dtype=int)
        return [index.example(row).encoded for row in rows], f"pictures of {data}, {split}"
    return noise(size, channels), "pictures of noise, since the run's data are not here"


def noise(size: int, channels: int) -> list[bytes]:
    """JPEG and PNG files of random waves whose amplitude falls with their frequency, as in photographs."""
    random, files = np.random.default_rng(0), []
    height, width = size + size // 4, size + size // 2
    for number in range(PICTURES):
        waves = [
            cv2.resize(random.normal(0, 1 / side, (side, side, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
            for side in (2, 4, 8, 16, 32, 64)
        ]
        pixels = np.clip(128 + 100 * sum(waves), 0, 255).astype(np.uint8)
        pixels = np.ascontiguousarray(pixels[..., :channels])
        files.append((encode_jpeg if number % 2 else encode_png)(pixels).data)
    return files
