"""Directories that TensorFlow Datasets (TFDS) has prepared; what dataset.json would say about them.

Such a directory, ~/tensorflow_datasets/NAME/VERSION, holds features.json, the class names in LABEL.labels.txt, the
lengths of its shards in dataset_info.json, and shards like cifar10-train.tfrecord-00000-of-00001. The keys of a record
are the names of its features. TFDS itself is not needed.
"""

import json
import os
import re
from collections.abc import Mapping

from errors import UserError
from pipeline import storage
from pipeline.index import Content, scan
from pipeline.records import RecordKeys
from pipeline.slim_directory import Names, describe_splits, find_shards
from pipeline.tfrecord import SPLIT_NAMES

FEATURES_JSON, INFO_JSON = "features.json", "dataset_info.json"
FILE_NAMES = (
    "file_name",
    "filename",
    "image/filename",
    "id",
)  # features that may name a picture's file; the first is taken
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"  # TFDS's default, of the names of shards
CHANNELS = {1: 1, 3: 3, 4: 3}  # of a feature: of the data; transparent pictures get a background
UNLABELLED = -1
MOST_RECORDS = 2**23  # of a shard; a larger number is a mistake and would fill the memory
AS_TFRECORD = (
    "only TFRecord is read: prepare them again with tfds.load(…, builder_kwargs={'file_format': 'tfrecord'}), or "
    "tfds convert_format --dataset_dir=DIR --out_file_format=tfrecord --out_dir=NEW"
)
ONE_EACH = (
    "Needed are one Image and one ClassLabel, not within another feature; docs/data.md, 'Records of other programs', "
    "has a script that rewrites records"
)

_NAME = re.compile(r"((?:.+-)?)(train|validation|valid|val|test)\.tfrecord-(\d{5,})-of-(\d{5,})")
_ANY_NAME = re.compile(r".+-(?P<split>[^-]+)\.(?P<format>\w+)-\d{5,}-of-\d{5,}")


def describe(directory: str, like: Mapping | None = None) -> dict:
    """The content of a dataset.json for a directory of TFDS, which has no statistics.

    like is the description of a run's data, as in slim_directory.describe. Raises UserError for a directory that cannot
    be read as one data set of labelled pictures.
    """
    keys, channels, classes = _read_features(directory)
    names, missing = find_shards(directory, _NAME)
    left_out = _other_splits(directory)
    lengths = _read_lengths(directory)
    if lengths is not None:
        _compare(directory, lengths, names, missing)
    contents = {split: scan(directory, part, keys) for split, part in names.items()}
    for split in [split for split, part in contents.items() if _is_unlabelled(part)]:
        left_out.append(f"{split} (all its labels are {UNLABELLED}, for unlabelled)")
        del contents[split], names[split]
    if not any(len(content.offsets) for part in contents.values() for content in part):
        raise UserError(
            f"{directory} has {FEATURES_JSON} but no labelled records in files named like "
            f"NAME-train.tfrecord-00000-of-00001{_words(left_out)}"
        )
    counts = {
        split: [len(each.offsets) for each in contents[split]] if lengths is None else [lengths[name] for name in part]
        for split, part in names.items()
    }
    return {
        "class_names": classes,
        "channels": like["channels"] if like else channels,
        "splits": describe_splits(names, missing, contents, counts, like),
        "statistics": None,
        "record": {"encoded": keys.encoded, "label": keys.label, "filename": keys.filename},
        "left_out": left_out,
    }


def parents_mistake(directory: str) -> str | None:
    """What to name instead of a directory above those that TFDS has prepared, such as that of all versions; or None."""
    found = storage.find(directory, f"*/{FEATURES_JSON}") or storage.find(directory, f"*/*/{FEATURES_JSON}")
    if not found:
        return None
    places = [os.path.dirname(path) for path in found]
    names = ", ".join(place[len(directory) :].strip("/") for place in places)
    return f"{directory} holds data sets of TensorFlow Datasets: {names}; name one of them: --data {places[-1]}"


def names_file(directory: str, label: str) -> str:
    """The file that names the classes of a label: FEATURES_JSON where they are only counted."""
    path = os.path.join(directory, f"{label.replace('/', '-')}.labels.txt")
    return path if storage.exists(path) else os.path.join(directory, FEATURES_JSON)


def _read_json(path: str) -> Mapping:
    try:
        content = json.loads(storage.read(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); fetch it again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object; fetch it again")
    return content


def _read_features(directory: str) -> tuple[RecordKeys, int, list[str]]:
    """The keys of a record, the channels of the pictures, and the class names, from FEATURES_JSON."""
    path = os.path.join(directory, FEATURES_JSON)
    content = _read_json(path)
    if "type" in content and "content" in content:
        raise UserError(
            f"{path} was written by an old version of TensorFlow Datasets; prepare the data with a newer one"
        )
    features = content.get("featuresDict", {})
    features = features.get("features") if isinstance(features, dict) else None
    if not isinstance(features, dict) or not all(isinstance(feature, dict) for feature in features.values()):
        raise UserError(f"{path} lists no features; fetch it again")
    image, label = _only(path, features, "image", "Image"), _only(path, features, "classLabel", "ClassLabel")
    filename = next((name for name in FILE_NAMES if isinstance(features.get(name, {}).get("text"), dict)), None)
    shape = features[image]["image"].get("shape")
    sides = shape.get("dimensions") if isinstance(shape, dict) else None
    channels = str(sides[-1]) if isinstance(sides, list) and len(sides) == 3 else ""
    dtype = features[image]["image"].get("dtype", "uint8")
    if dtype != "uint8" or channels not in map(str, CHANNELS):
        raise UserError(
            f"{path}: the pictures in {image} are {dtype} with {channels or 'an unknown number of'} channels; only "
            f"uint8 with 1, 3 or 4 channels is read"
        )
    classes = _read_names(directory, label, features[label]["classLabel"])
    return RecordKeys(image, label, filename), CHANNELS[int(channels)], classes


def _only(path: str, features: Mapping[str, Mapping], key: str, kind: str) -> str:
    """The name of the only feature of a kind; of several that which is named image, or label."""
    found = [name for name, feature in features.items() if isinstance(feature.get(key), dict)]
    usual = {"image": "image", "classLabel": "label"}[key]
    if len(found) == 1 or usual in found:
        return usual if usual in found else found[0]
    kinds = (f"{name} ({_kind(feature)})" for name, feature in sorted(features.items()))
    several = f"several features are {kind}, none of them named {usual}" if found else f"no feature is {kind}"
    raise UserError(f"{path}: {several}; its features are {', '.join(kinds) or 'none'}. {ONE_EACH}")


def _kind(feature: Mapping) -> str:
    return str(feature.get("pythonClassName", "unknown")).rpartition(".")[2]


def _read_names(directory: str, label: str, content: Mapping) -> list[str]:
    """The class names in label order; numbers where the classes are only counted."""
    stated = str(content.get("numClasses", ""))
    path = names_file(directory, label)
    if os.path.basename(path) == FEATURES_JSON:
        if not re.fullmatch(r"[1-9]\d{0,5}", stated):
            raise UserError(
                f"{path} states no number of classes for {label}, and {label}.labels.txt is missing; fetch it"
            )
        names = [str(number) for number in range(int(stated))]
    else:
        text = storage.read(path).decode("utf-8-sig", "replace")
        names = [line.strip() for line in text.split("\n") if line.strip()]
        if stated and stated != str(len(names)):
            raise UserError(f"{path} names {len(names)} classes, but {FEATURES_JSON} states {stated}; fetch both again")
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(f"{path} names the classes {str(names)[:80]}; two or more, each once, are needed")
    return names


def _read_lengths(directory: str) -> dict[str, int] | None:
    """The number of records of each shard of train, validation and test, by its name; None without INFO_JSON.

    Raises UserError for files of another format than TFRecord.
    """
    matches = [match for name in storage.list_files(directory) if (match := _ANY_NAME.fullmatch(name))]
    formats = {match["format"] for match in matches}
    if formats and "tfrecord" not in formats:
        raise UserError(f"{directory} holds {', '.join(sorted(formats))} files; {AS_TFRECORD}")
    path = os.path.join(directory, INFO_JSON)
    if not storage.exists(path):
        return None
    info, lengths = _read_json(path), {}
    if info.get("fileFormat", "tfrecord") != "tfrecord":
        raise UserError(f"{path} says that the files are {info['fileFormat']}; {AS_TFRECORD}")
    try:
        for split in info.get("splits", []):
            if split["name"] not in SPLIT_NAMES:
                continue
            if split.get("filepathTemplate") not in (None, "", TEMPLATE):
                raise UserError(f"{path}: files are named {split['filepathTemplate']}; only {TEMPLATE} is read")
            counts = [int(count) for count in split.get("shardLengths", [])]
            if counts and not 0 <= min(counts) <= max(counts) <= MOST_RECORDS:
                raise ValueError(f"a shard of {min(counts)} to {max(counts)} records")
            for number, count in enumerate(counts):
                lengths[f"{info['name']}-{split['name']}.tfrecord-{number:05d}-of-{len(counts):05d}"] = count
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{path} is damaged ({error!r}); fetch it again") from None
    return lengths


def _compare(directory: str, lengths: Mapping[str, int], names: Names, missing: Names) -> None:
    """Adds to `missing` the shards that INFO_JSON lists and the directory lacks.

    Raises UserError for a shard that INFO_JSON does not list, and a split without any of its shards.
    """
    found = {name for part in names.values() for name in part}
    if more := sorted(found.difference(lengths)):
        raise UserError(
            f"{directory} has {more[0]}, which {INFO_JSON} does not list; remove it, or fetch {INFO_JSON} again"
        )
    for name in lengths:
        split = SPLIT_NAMES[_NAME.fullmatch(name)[2]]
        if split not in names:
            raise UserError(
                f"{directory} lacks {name} and all other shards of {split}, which {INFO_JSON} lists; fetch them"
            )
        if name not in found and name not in missing[split]:
            missing[split].append(name)


def _other_splits(directory: str) -> list[str]:
    """Names of splits, such as extra or unsupervised, that are none of train, validation and test."""
    matches = map(_ANY_NAME.fullmatch, storage.list_files(directory))
    return sorted({match["split"] for match in matches if match and match["split"] not in SPLIT_NAMES})


def _is_unlabelled(shards: list[Content]) -> bool:
    """Whether all labels say that there is none, as TFDS's test splits of competitions do."""
    labels = [content.notes["label"] for content in shards]
    return any(map(len, labels)) and all(bool((each == UNLABELLED).all()) for each in labels)


def _words(left_out: list[str]) -> str:
    return f"; left out: {', '.join(left_out)}" if left_out else ""
