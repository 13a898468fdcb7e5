"""What the index notes about a record, and what is wrong with one that holds no labelled picture."""

import base64
import functools
import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import google_crc32c
import numpy as np
from google.protobuf.message import DecodeError

from tfcompat import tf

REWRITE = "docs/data.md, 'Records of other programs', has a script that rewrites them"
MOST_FEATURES = 12  # that an error names
PICTURE_FORMATS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG"}
OTHER_FORMATS = {
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"RIFF": "WebP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\x93NUMPY": "a NumPy array",
    b"\x1f\x8b": "gzip",
}


@dataclass(frozen=True)
class RecordKeys:
    """Names of the features of a record, which differ between TF-Slim's shards and those of TensorFlow Datasets."""

    encoded: str  # the picture's file
    label: str
    filename: str | None = None  # None where records name no file; also for the size
    size: tuple[str, str] | None = None  # height and width


SLIM = RecordKeys("image/encoded", "image/class/label", "image/filename", ("image/height", "image/width"))
TEXT_KEYS = ("text", "synset")  # of image/class
NO_LABEL = np.iinfo(np.int64).min
# A label, hashes of the class's names (0 where the record has none), and one of the picture (0 for a corrupt record).
NOTE = np.dtype([("label", np.int64), *((key, np.uint64) for key in TEXT_KEYS), ("picture", np.uint32)])
NO_NOTE = (NO_LABEL, *(0 for _ in TEXT_KEYS), 0)


class Fault(NamedTuple):
    """A corrupt record, which another record can replace; without offset, a shard that cannot be used."""

    path: str
    offset: int | None
    reason: str
    replaceable: bool = True  # not where the label is wrong, as then it mostly is in a whole class

    def __str__(self) -> str:
        return f"{self.path}: {'' if self.offset is None else f'the record at byte {self.offset}: '}{self.reason}"


def note(payload: bytes | None, keys: RecordKeys) -> tuple[int, int, int, int]:
    """The NOTE of a record. It is lenient: what makes a record unusable is found when it is read."""
    try:
        features = tf.train.Example.FromString(payload or b"").features.feature
    except DecodeError:
        return NO_NOTE
    label, encoded = features[keys.label].int64_list.value, features[keys.encoded].bytes_list.value
    picture = google_crc32c.value(encoded[0]) or 1 if encoded else 0
    texts = (features.get(f"image/class/{key}") for key in TEXT_KEYS)  # [key] would make those that are missing
    hashes = (text_hash(text.bytes_list.value[0]) if text and text.bytes_list.value else 0 for text in texts)
    return label[0] if len(label) == 1 else NO_LABEL, *hashes, picture


@functools.lru_cache(maxsize=2**14)
def text_hash(text: bytes) -> int:
    """A hash of a class name, 64 bits, the same for upper and lower case; 0 for an empty one."""
    name = " ".join(text.decode("utf-8", "replace").casefold().replace("_", " ").split())
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") if name else 0


def describe_features(payload: bytes) -> str:
    """Names, kinds and lengths of the features of an Example, for an error; and what to do about them."""
    found = []
    for key, feature in sorted(tf.train.Example.FromString(payload).features.feature.items()):
        kind = feature.WhichOneof("kind") or "empty"
        count = len(getattr(feature, kind).value) if kind != "empty" else 0
        found.append(f"{key} ({count} {kind.removesuffix('_list')})")
    more = f" and {len(found) - MOST_FEATURES} more" if len(found) > MOST_FEATURES else ""
    return f"its features are {', '.join(found[:MOST_FEATURES]) or 'none'}{more}; {REWRITE}"


def wrong_format(encoded: bytes, shape: tuple[int, int]) -> str | None:
    """The reason why bytes are neither JPEG nor PNG; None where they are, or are empty. shape as the record has it."""
    if not encoded or encoded.startswith(tuple(PICTURE_FORMATS)):
        return None
    kind = next((name for magic, name in OTHER_FORMATS.items() if encoded.startswith(magic)), None)
    with_padding = encoded[:8].ljust(8, b"=")
    if not kind and base64.b64decode(with_padding.translate(bytes.maketrans(b"-_", b"+/"))).startswith(
        tuple(PICTURE_FORMATS)
    ):
        kind = "base64 text"
    height, width = shape
    if not kind and height * width and len(encoded) % (height * width) == 0:
        kind = f"{len(encoded):,} bytes of raw pixels, {len(encoded) // (height * width)} for each of {height}×{width}"
    return f"its picture is neither JPEG nor PNG but {kind or 'of another format'}; {REWRITE}"
