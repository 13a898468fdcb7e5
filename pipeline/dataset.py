"""A data set: a directory of TFRecord shards with dataset.json, checked when it is loaded.

    dataset = Dataset.load("data/digits")
    index = dataset.index("train")
    for example in dataset.examples("test"): ...

dataset.json:

    {"name", "source", "class_names", "channels", "short_side",
     "splits": {"train": {"examples": 1259, "shards": [{"file": "…", "examples": 1259}]}, …},
     "statistics": {"units", "mean": [C], "deviation": [C], "eigenvalues": [C], "components": [C][C]},
     "rejected", "ignored"}

Statistics are over all pixels of the training split, on the scale 0 to 255; eigenvalues are variances on that scale,
the largest first, and row i of components is the unit vector of eigenvalue i. They are null without a training split.
short_side is the length that larger pictures were shrunk to; null for none.

A directory of TF-Slim's scripts has labels.txt instead and is read in place.
"""

import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from PIL import Image

from errors import UserError
from files import atomic_write, is_text, list_directory, os_errors_as_user_errors, read_regular
from pipeline import statistics, tfrecord
from pipeline.index import HELD_OUT, Index, Shard, Split, StoredExample, make_index, parse, scan
from pipeline.rewritten import with_copies
from pipeline.statistics import PIXEL_STATS, Statistics
from pipeline.tfrecord import DATASET_JSON, SPLIT_NAMES

LABELS_TXT = "labels.txt"
MOST_RECORDS = 2**23  # of a shard, which is closed at 128 MB; a larger number is a mistake and would fill the memory


@dataclass(frozen=True)
class Dataset:
    """A data set on disk. `description` is the content of dataset.json."""

    directory: str
    class_names: tuple[str, ...]  # in label order
    channels: int  # 3 for RGB, 1 for grey
    splits: Mapping[str, Split]
    statistics: Statistics = field(compare=False)
    description: Mapping

    @classmethod
    @os_errors_as_user_errors()
    def load(cls, directory: str) -> "Dataset":
        """Reads dataset.json, or TF-Slim's labels.txt. Raises UserError where both are missing, or one is damaged."""
        path = Path(directory) / DATASET_JSON
        try:
            description = json.loads(read_regular(path))
        except FileNotFoundError:
            if not (path.parent / LABELS_TXT).exists():
                raise UserError(
                    f"{path} is missing; make it with python -m pipeline.convert NAME --out {directory}, "
                    f"or name another directory of shards with --data (TF-Slim's own have {LABELS_TXT} instead)"
                ) from None
            description = _describe_slim(Path(directory))
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
            splits[name] = Split(part["examples"], shards, part.get("every"))
        class_names, channels = tuple(description["class_names"]), description["channels"]
        stats = statistics.load(directory, channels, description.get("statistics"))
        return cls(directory, class_names, channels, MappingProxyType(splits), stats, description)

    @property
    def short_side(self) -> int | None:
        """The length in pixels that the converter shrank longer short sides to; None for none."""
        return self.description.get("short_side")

    def size(self, split: str) -> int:
        """Number of examples in a split, 0 where there is no such split."""
        return self.splits[split].examples if split in self.splits else 0

    def index(self, split: str, on_error: str = "stop") -> Index:
        """The index of a split, as pipeline.index.make_index describes. Raises UserError where there is no split."""
        if not self.size(split):
            have = ", ".join(name for name in self.splits if self.size(name))
            raise UserError(f"{self.directory} has no {split} split; it has {have}")
        index = make_index(self.directory, self.splits[split], on_error)
        if os.path.exists(os.path.join(self.directory, DATASET_JSON)):
            return index
        return with_copies(index, self.directory, split, self.channels)  # of TF-Slim

    def examples(self, split: str, on_error: str = "stop") -> Iterator[StoredExample]:
        """Reads the records of a split, in the order of its shards."""
        index = self.index(split, on_error).intact()
        return (index.example(row) for row in range(len(index.offsets)))

    def copy_description(self, run: "str | Path") -> None:
        """Writes dataset.json and the statistics of each pixel into a run directory, where they are missing."""
        contents = {DATASET_JSON: (json.dumps(self.description, indent=2) + "\n").encode()}
        pixel_statistics = Path(self.directory) / PIXEL_STATS
        if pixel_statistics.exists():
            contents[PIXEL_STATS] = pixel_statistics.read_bytes()
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
        return index.intact() if self.intact else index


def has_dataset(directory: str) -> bool:
    """Whether a directory holds a data set: a converted one, or TF-Slim's."""
    return any(os.path.exists(os.path.join(directory, name)) for name in (DATASET_JSON, LABELS_TXT))


def _mistake(dataset: object) -> str | None:
    """The first mistake in the content of dataset.json, which may have been edited by hand; None for none."""
    if not isinstance(dataset, dict):
        return "it is no object"
    names, splits = dataset.get("class_names"), dataset.get("splits")
    if not isinstance(names, list) or not all(map(is_text, names)) or not 2 <= len(names) == len(set(names)):
        return "class_names must be two names or more, each once"
    if not _is_whole(dataset.get("channels")) or dataset["channels"] not in (1, 3):
        return "channels must be 1 or 3"
    if dataset.get("short_side") is not None and not (_is_whole(dataset["short_side"]) and dataset["short_side"]):
        return "short_side must be at least 1, or null"
    if not isinstance(dataset.get("statistics"), dict | None):
        return "statistics must be an object or null"
    if not isinstance(splits, dict) or not all(map(_is_split, splits.values())):
        return "each of splits must have the number of its examples and a list of shards, files beside it, that add up"
    files = [shard["file"] for part in splits.values() if "every" not in part for shard in part["shards"]]
    return None if len(files) == len(set(files)) else "a shard is listed twice"


def _is_whole(value: object) -> bool:
    return type(value) is int and value >= 0  # True is an int, too


def _is_split(part: object) -> bool:
    if not isinstance(part, dict) or not _is_whole(part.get("examples")) or not isinstance(part.get("shards"), list):
        return False
    for shard in part["shards"]:
        if not isinstance(shard, dict) or not _is_whole(shard.get("examples")) or not is_text(shard.get("file")):
            return False
        if shard["examples"] > MOST_RECORDS or not re.fullmatch(r"(?!\.\.?$)[^/\0]+", shard["file"]):
            return False
    if "every" in part:
        return part["every"] in ("tenth", "other")
    return part["examples"] == sum(shard["examples"] for shard in part["shards"])


_SLIM_NAME = re.compile(r"(?:.+_)?(train|validation|valid|val|test)(?:[-_]\d+-of-\d+)?(?:\.tfrecords?)?")


def _describe_slim(directory: Path) -> dict:
    """The content of a dataset.json for TF-Slim's shards and labels.txt, which have no statistics."""
    class_names = _read_labels(directory / LABELS_TXT)
    files: dict[str, list[str]] = {}
    for path in list_directory(directory)[1]:
        if match := _SLIM_NAME.fullmatch(path.name):
            files.setdefault(SPLIT_NAMES[match[1]], []).append(path.name)
    splits = {}
    for split, names in files.items():
        counts = [len(content.offsets) for content in scan(str(directory), names)]
        shards = [{"file": name, "examples": count} for name, count in zip(names, counts, strict=True)]
        splits[split] = {"examples": sum(counts), "shards": shards}
    if not any(part["examples"] for part in splits.values()):
        named = "flowers_train_00000-of-00005.tfrecord or train-00000-of-01024"
        raise UserError(f"{directory} has {LABELS_TXT} but no records in files named like {named}")
    first = next(shard["file"] for part in splits.values() for shard in part["shards"] if shard["examples"])
    if "train" in splits and "validation" not in splits:
        whole = splits["train"]
        held_out = whole["examples"] // HELD_OUT
        splits["train"] = {**whole, "examples": whole["examples"] - held_out, "every": "other"}
        splits["validation"] = {**whole, "examples": held_out, "every": "tenth"}
    channels = _channels(directory / first)
    return {"class_names": class_names, "channels": channels, "splits": splits, "statistics": None}


def _read_labels(path: Path) -> list[str]:
    """TF-Slim's labels.txt: a line 'NUMBER:NAME' for each class. A name that several share gets its number."""
    names = {}
    for number, line in enumerate(read_regular(path).decode("utf-8", "replace").splitlines(), start=1):
        label, colon, name = line.partition(":")
        if not line.strip():
            continue
        if not colon or not re.fullmatch(r"\s*\d{1,9}\s*", label) or int(label) in names:
            raise UserError(f"{path}, line {number}, is {line[:80]!r}; it must be like '0:daisy', each number once")
        names[int(label)] = name.strip()
    last = max(names, default=0)
    if len(names) < 2 or last > 2 * len(names):
        raise UserError(f"{path} names {len(names)} classes up to number {last}; at least two are needed")
    every = [names.get(i, "background" if i == 0 else f"class {i}") for i in range(last + 1)]
    shared = Counter(every)
    return [f"{name} ({i})" if shared[name] > 1 else name for i, name in enumerate(every)]


def _channels(path: Path) -> int:
    """1 where the first picture of a shard is grey, else 3."""
    try:
        header = Image.open(io.BytesIO(parse(next(tfrecord.walk(path)).payload or b"").encoded))
    except Exception as error:  # InvalidExample, or what Pillow's plugins raise
        raise UserError(f"{path}: the first record is no picture with TF-Slim's keys ({error})") from None
    return 1 if header.mode in ("L", "1") else 3
