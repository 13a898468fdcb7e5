"""A data set: a directory of TFRecord shards with dataset.json, checked when it is loaded.

    dataset = Dataset.load("data/digits")
    index = dataset.index("train")
    for example in dataset.examples("test"): ...

dataset.json:

    {"name", "source", "class_names", "channels", "short_side", "max_pixels", "sample_range": [low, high],
     "light_strokes": {"share", "longer_side"},
     "splits": {"train": {"examples": 1259, "shards": [{"file": "…", "examples": 1259}]}, …},
     "statistics": {"units", "mean": [C], "deviation": [C], "eigenvalues": [C], "components": [C][C]},
     "rejected", "ignored"}

Statistics are over all pixels of the training split, on the scale 0 to 255; eigenvalues are variances on that scale,
the largest first, and row i of components is the unit vector of eigenvalue i. They are null without a training split.
short_side is the length that larger pictures were shrunk to; null for none. max_pixels is the largest size that the
converter accepts. sample_range are the samples of more than 8 bits that became 0 and 255; null for those that files
declare. light_strokes is null unless the training pictures are light strokes on black of one small size, such
as MNIST's: the share of those that are, and the median of their longer sides in pixels.

A directory of TF-Slim's scripts has labels.txt instead, one of TensorFlow Datasets features.json, and both are read in
place. Their splits may also have "part", where training and validation share shards ("every" in runs of earlier
versions), and "missing", names of shards. "record" has the keys of records that are not TF-Slim's ("encoded", "label",
"filename"), and "left_out" the names of other splits.
"""

import contextlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from channels import MOST
from errors import UserError
from files import atomic_write, is_remote, is_text, os_errors_as_user_errors
from pipeline import labels, slim_directory, statistics, storage, tfds_directory
from pipeline.images import MAX_PIXELS, PictureFormat
from pipeline.index import Index, StoredExample, known_contents, make_index
from pipeline.labels import ClassNames, Located
from pipeline.records import SLIM, RecordKeys
from pipeline.rewritten import with_copies
from pipeline.slim_directory import LABELS_TXT
from pipeline.splits import BY_PICTURE, BY_POSITION, Shard, Split
from pipeline.statistics import PIXEL_STATS, Statistics
from pipeline.tfds_directory import FEATURES_JSON, INFO_JSON
from pipeline.tfrecord import DATASET_JSON

PARTS = {"every": BY_POSITION, "part": BY_PICTURE}  # keys of a split that holds a part of the records of its shards


@dataclass(frozen=True)
class Dataset:
    """A data set on disk. `description` is the content of dataset.json."""

    directory: str
    class_names: tuple[str, ...]  # in label order
    channels: int  # 3 for RGB, 1 for grey, or another number up to 16
    splits: Mapping[str, Split]
    statistics: Statistics = field(compare=False)
    description: Mapping

    @classmethod
    @os_errors_as_user_errors()
    def load(cls, directory: str, like: "Dataset | None" = None) -> "Dataset":
        """Reads dataset.json, TF-Slim's labels.txt or TFDS's features.json.

        like is the data set of a run: shards that do not say how they are read are then read as by the run, with its
        channels and its way to hold validation out. Raises UserError where all three are missing, or one is damaged.
        """
        path = os.path.join(directory, DATASET_JSON)
        try:
            description = json.loads(storage.read(path))
        except FileNotFoundError:
            describe = _reader(directory)
            if not describe:
                raise UserError(why_none(directory)) from None
            description = describe(directory, like and like.description)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is not JSON ({error}); convert the data again") from None
        return cls.of(directory, description)

    @classmethod
    def of(cls, directory: str, description: Mapping) -> "Dataset":
        """Builds a data set from the content of its dataset.json. Raises UserError where that is wrong."""
        mistake = _mistake(description)
        if mistake:
            path = os.path.join(directory, DATASET_JSON)
            raise UserError(f"{path} is no description of a data set: {mistake}; convert the data again")
        splits = {}
        for name, part in description["splits"].items():
            shards = tuple(Shard(shard["file"], shard["examples"]) for shard in part["shards"])
            splits[name] = Split(
                part["examples"], shards, part.get("every") or part.get("part"), tuple(part.get("missing", ()))
            )
        class_names, channels = tuple(description["class_names"]), description["channels"]
        stats = statistics.load(directory, channels, description.get("statistics"), storage.open_file)
        return cls(directory, class_names, channels, MappingProxyType(splits), stats, description)

    @property
    def short_side(self) -> int | None:
        """The length in pixels that the converter shrank longer short sides to; None for none."""
        return self.description.get("short_side")

    @property
    def max_pixels(self) -> int:
        """The largest number of pixels of a picture that the converter accepts."""
        return self.description.get("max_pixels", MAX_PIXELS)

    @property
    def sample_range(self) -> tuple[float, float] | None:
        """The samples of more than 8 bits that became 0 and 255; None where the files' own range was used."""
        found = self.description.get("sample_range")
        return tuple(found) if found else None

    @property
    def picture_format(self) -> PictureFormat:
        """How the converter stored the pictures."""
        return PictureFormat(self.channels, self.short_side, self.max_pixels, self.sample_range)

    @property
    def stroke_length(self) -> int | None:
        """The longer side in pixels of the training pictures' light strokes on black; None for other pictures, and
        where that was not measured."""
        strokes = self.description.get("light_strokes")
        return strokes["longer_side"] if strokes else None

    def size(self, split: str) -> int:
        """Number of examples in a split, 0 where there is no such split."""
        return self.splits[split].examples if split in self.splits else 0

    def index(self, split: str, on_error: str = "stop") -> Index:
        """The index of a split, as pipeline.index.make_index describes. Raises UserError where there is no split."""
        if not self.size(split):
            have = ", ".join(name for name in self.splits if self.size(name))
            raise UserError(f"{self.directory} has no {split} split; it has {have}")
        index = make_index(self.directory, self.splits[split], on_error, self.keys, self.counted_in)
        if storage.exists(os.path.join(self.directory, DATASET_JSON)):
            return index
        return with_copies(index, self.directory, split, self.channels)  # of other programs

    @property
    def keys(self) -> RecordKeys:
        """The names of the features of a record."""
        record = self.description.get("record")
        return RecordKeys(record["encoded"], record["label"], record.get("filename")) if record else SLIM

    @property
    def counted_in(self) -> str | None:
        """The file that states how many records each shard holds; None for none, as in TF-Slim's directories."""
        names = (DATASET_JSON, INFO_JSON) if "record" in self.description else (DATASET_JSON,)
        return next((name for name in names if storage.exists(os.path.join(self.directory, name))), None)

    @property
    def names(self) -> ClassNames:
        """The names of the classes, and the file that they are from."""
        path = os.path.join(self.directory, DATASET_JSON)
        if not storage.exists(path):
            path = os.path.join(self.directory, LABELS_TXT)
            if self.keys != SLIM:
                path = tfds_directory.names_file(self.directory, self.keys.label)
        return ClassNames(self.class_names, path)

    def check_labels(self, split: str) -> None:
        """Raises UserError for labels without a class, and for records that name another class than their label.

        Class names of other splits are compared as far as these have been read.
        """
        known = known_contents(self.directory)
        own = [shard.file for shard in self.splits[split].shards if shard.file in known]
        listed = {shard.file for part in self.splits.values() for shard in part.shards}
        shards = [Located(os.path.join(self.directory, name), known[name]) for name in own]
        others = [known[name] for name in sorted(listed.intersection(known).difference(own))]
        mistake = shards and (
            labels.label_mistake(shards, self.names) or labels.name_mistake(shards, others, self.names)
        )
        if mistake:
            raise UserError(str(mistake))

    def examples(self, split: str, on_error: str = "stop") -> Iterator[StoredExample]:
        """Reads the records of a split, in the order of its shards."""
        index = self.index(split, on_error).intact()
        return (index.example(row) for row in range(len(index.offsets)))

    def copy_description(self, run: "str | Path") -> None:
        """Writes dataset.json and the statistics of each pixel into a run directory, where they are missing."""
        contents = {DATASET_JSON: (json.dumps(self.description, indent=2) + "\n").encode()}
        with contextlib.suppress(FileNotFoundError):
            contents[PIXEL_STATS] = storage.read(os.path.join(self.directory, PIXEL_STATS))
        for name in (name for name in contents if not (Path(run) / name).exists()):
            with atomic_write(Path(run) / name) as partial:
                partial.write_bytes(contents[name])


@dataclass(frozen=True)
class Selection:
    """The records of a split that a program reads."""

    dataset: Dataset
    split: str
    on_error: str = "stop"  # or 'skip', as Dataset.index has it
    examples: int | None = None  # of the shuffled split; None for all
    seed: int = 0  # of that shuffle
    intact: bool = False  # whether replaced records are left out, as evaluation does

    def index(self) -> Index:
        """The index of these records. Raises UserError as Dataset.index."""
        index = self.dataset.index(self.split, self.on_error).first_shuffled(self.examples, self.seed)
        self.dataset.check_labels(self.split)
        return index.intact() if self.intact else index


def has_dataset(directory: str) -> bool:
    """Whether a directory holds a data set: a converted one, TF-Slim's, or one of TensorFlow Datasets."""
    return storage.exists(os.path.join(directory, DATASET_JSON)) or _reader(directory) is not None


def why_none(directory: str) -> str:
    """What is missing in a directory that holds no data set, and what to do."""
    if mistake := tfds_directory.parents_mistake(directory):
        return mistake
    others = f"TF-Slim's own have {LABELS_TXT} instead, those of TensorFlow Datasets {FEATURES_JSON}"
    path = os.path.join(directory, DATASET_JSON)
    if is_remote(directory):
        return f"{path} is missing ({others}); correct the name, or convert to a local disk and copy that"
    remedy = f"make it with python -m pipeline.convert NAME --out {directory}"
    return f"{path} is missing; {remedy}, or name another directory of shards with --data ({others})"


def _reader(directory: str) -> Callable | None:
    """What describes a directory without dataset.json; None for one that holds no data set."""
    readers = {LABELS_TXT: slim_directory.describe, FEATURES_JSON: tfds_directory.describe}
    return next((read for name, read in readers.items() if storage.exists(os.path.join(directory, name))), None)


def _mistake(dataset: object) -> str | None:
    """The first mistake in the content of dataset.json, which may have been edited by hand; None for none."""
    if not isinstance(dataset, dict):
        return "it is no object"
    names, splits = dataset.get("class_names"), dataset.get("splits")
    if not isinstance(names, list) or not all(map(is_text, names)) or not 2 <= len(names) == len(set(names)):
        return "class_names must be two names or more, each once"
    if not _is_whole(dataset.get("channels")) or not 1 <= dataset["channels"] <= MOST:
        return f"channels must be 1 to {MOST}"
    if dataset.get("short_side") is not None and not (_is_whole(dataset["short_side"]) and dataset["short_side"]):
        return "short_side must be at least 1, or null"
    if not (_is_whole(dataset.get("max_pixels", 1)) and dataset.get("max_pixels", 1)):
        return "max_pixels must be at least 1"
    if dataset.get("sample_range") is not None and not _is_range(dataset["sample_range"]):
        return "sample_range must be two numbers, the first below the second, or null"
    strokes = dataset.get("light_strokes")
    if strokes is not None and not (isinstance(strokes, dict) and _is_whole(strokes.get("longer_side"))):
        return "light_strokes must have a longer_side in pixels, or be null"
    if not isinstance(dataset.get("statistics"), dict | None):
        return "statistics must be an object or null"
    record = dataset.get("record", {"encoded": "", "label": ""})
    if not isinstance(record, dict) or not all(is_text(record.get(key)) for key in ("encoded", "label")):
        return "record must have the keys of the picture, encoded, and of the label"
    if not isinstance(record.get("filename", ""), str | None):
        return "record has a filename that is none"
    if not isinstance(splits, dict) or not all(map(_is_split, splits.values())):
        return "each of splits must have the number of its examples and a list of shards, files beside it, that add up"
    files = [shard["file"] for part in splits.values() if not PARTS.keys() & part for shard in part["shards"]]
    return None if len(files) == len(set(files)) else "a shard is listed twice"


def _is_whole(value: object) -> bool:
    return type(value) is int and value >= 0  # True is an int, too


def _is_range(value: object) -> bool:
    if not isinstance(value, list) or [type(end) in (int, float) for end in value] != [True, True]:
        return False
    return math.isfinite(value[0]) and math.isfinite(value[1]) and value[0] < value[1]


def _is_split(part: object) -> bool:
    if not isinstance(part, dict) or not _is_whole(part.get("examples")) or not isinstance(part.get("shards"), list):
        return False
    for shard in part["shards"]:
        if not isinstance(shard, dict) or not _is_whole(shard.get("examples")) or not is_text(shard.get("file")):
            return False
        if shard["examples"] > tfds_directory.MOST_RECORDS or not re.fullmatch(r"(?!\.\.?$)[^/\0]+", shard["file"]):
            return False
    missing = part.get("missing", [])
    if not isinstance(missing, list) or not all(map(is_text, missing)):
        return False
    if key := next((key for key in PARTS if key in part), None):
        return part[key] in PARTS[key]
    return part["examples"] == sum(shard["examples"] for shard in part["shards"])
