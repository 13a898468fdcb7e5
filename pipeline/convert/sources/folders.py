"""Sources that come as folders of picture files."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pooch

from errors import UserError
from files import read_regular
from pipeline.convert.sources.contract import SPLIT_NAMES, Example, Source, carved, download, files_below, listed
from pipeline.images import EXTENSIONS


def folder(source: Path | None, cache: Path, label_regex: str | None = None) -> Source:
    """Pictures in one folder for each class, with train and test, validation or val folders above them, or without. Or
    all in one folder, with --label-regex to find the class in the file name. What is missing is carved from train: a
    tenth for validation, and where there is no split at all, a tenth for test."""
    if source is None:
        raise UserError("the folder source needs --source DIR, with one folder of pictures for each class")
    parts, ignored = _parts(source)
    if "train" not in parts:
        raise UserError(f"{source} has {', '.join(sorted(d.name for d in parts.values()))} but no train folder")
    label_of = _label_of(label_regex)
    pictures = {}
    for split, directory in parts.items():
        files = files_below(directory)
        pictures[split] = [path for path in _pictures(files) if label_regex or path.parent != directory]
        ignored.update(map(_kind, set(files).difference(pictures[split])))
    if label_regex:
        class_names = sorted({label_of(path, parts["train"]) for path in pictures["train"]})
    else:
        class_names = [d.name for d in listed(parts["train"])[0]]
    if len(class_names) < 2:
        advice = (
            "at least two are needed, each with its pictures; for pictures in one folder, python -m pipeline.convert "
            "folder has --label-regex, and train.py takes what it makes as --data"
        )
        kind = "classes in its file names" if label_regex else "class folders"
        place = source if parts["train"] == source else f"{parts['train']}, the training split,"
        raise UserError(f"{place} holds {len(class_names)} {kind}; {advice}")
    numbers = {name: label for label, name in enumerate(class_names)}
    splits = {}
    for split, directory in parts.items():
        named = [(label_of(path, directory), path) for path in pictures[split]]
        folders = set() if label_regex else {d.name for d in listed(directory)[0]}
        strangers = ({name for name, _ in named} | folders) - set(class_names)
        if strangers:
            raise UserError(f"{directory} has classes that train lacks: {', '.join(sorted(strangers))}")
        examples = [Example(str(path.relative_to(source)), numbers[name], path) for name, path in named]
        splits[split] = sorted(examples, key=lambda example: example.label)
    empty = [str(directory) for split, directory in parts.items() if not splits[split]]
    if empty:
        raise UserError(f"{', '.join(empty)} holds no pictures ({', '.join(sorted(EXTENSIONS))}); fill or remove it")
    return Source(class_names, 3, carved(splits, class_names, parts["train"]), dict(sorted(ignored.items())))


FLOWERS_URL = "http://download.tensorflow.org/example_images/flower_photos.tgz"
FLOWERS_CHECKSUM = "sha256:4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c"  # as TFDS has it


def flowers(source: Path | None, cache: Path) -> Source:
    """3,670 photographs of daisies, dandelions, roses, sunflowers and tulips (TensorFlow's flower_photos, 229 MB), or a
    part of them, as class folders with or without train, validation and test above them."""
    if source is None:
        download(FLOWERS_URL, FLOWERS_CHECKSUM, cache, pooch.Untar())
        source = cache / "flower_photos.tgz.untar" / "flower_photos"
    return folder(source, cache)


def _parts(source: Path) -> tuple[dict[str, Path], Counter]:
    """Split to its folder, whatever the case of its name, and what lies beside them; or all as training pictures."""
    folders, files = listed(source)
    parts: dict[str, Path] = {}
    for directory in folders:
        split = SPLIT_NAMES.get(directory.name.lower())
        if split in parts:
            raise UserError(f"{source} has both {parts[split].name} and {directory.name}; one of them has to stay")
        if split:
            parts[split] = directory
    if not parts:
        return {"train": source}, Counter()
    others = (f"folder {directory.name}" for directory in folders if directory not in parts.values())
    return parts, Counter([*others, *map(_kind, files)])


def _kind(path: Path) -> str:
    """What a file that is left out counts as."""
    ending = path.suffix.lower()
    return "pictures beside the folders" if ending in EXTENSIONS else ending or "without an ending"


def _label_of(label_regex: str | None) -> Callable[[Path, Path], str]:
    """From a picture and its split's folder to the name of its class."""
    if not label_regex:
        return lambda path, directory: path.relative_to(directory).parts[0]
    try:
        pattern = re.compile(label_regex)
    except re.error as error:
        raise UserError(f"--label-regex {label_regex!r} is no regular expression ({error})") from None
    if pattern.groups != 1:
        raise UserError(
            f"--label-regex {label_regex!r} has {pattern.groups} groups; one is needed, around the class, such as "
            r"'^(\w+)\.' for cat.0.jpg"
        )

    def label(path: Path, directory: Path) -> str:
        match = pattern.search(path.name)
        if not match or not match[1]:
            raise UserError(f"--label-regex {label_regex!r} finds no class in {path}; rename or remove it")
        return match[1]

    return label


IMAGENET_CLASSES = "LOC_synset_mapping.txt"
_SYNSET = re.compile(r"n\d{8}(?!\d)")


def imagenet(source: Path | None, cache: Path) -> Source:
    """Pictures of the 1,000 classes of ILSVRC-2012 (Russakovsky et al., arXiv:1409.0575), to evaluate published weights
    on: all are the test split. LOC_synset_mapping.txt gives the classes, in the order of the labels; a picture's file
    name begins with its synset, else its folder is called so."""
    if source is None:
        raise UserError(
            f"the imagenet source needs --source DIR with {IMAGENET_CLASSES}, which Kaggle has (imagenet-object-"
            "localization-challenge), and pictures named by synset, such as those of "
            "github.com/EliSchwartz/imagenet-sample-images"
        )
    files = files_below(source)
    class_names = _read_synsets(source, [path for path in files if path.name == IMAGENET_CLASSES])
    labels = {synset: label for label, synset in enumerate(class_names)}
    examples = []
    for path in _pictures(files):
        synset = _SYNSET.match(path.name) or _SYNSET.fullmatch(path.parent.name)
        if synset is None:
            raise UserError(
                f"{path} has no synset: neither its name begins with one, as n01443537_goldfish.JPEG does, nor is its "
                "folder called by one; rename or remove it"
            )
        if synset[0] not in labels:
            raise UserError(f"{path} is of {synset[0]}, which {IMAGENET_CLASSES} lacks; rename or remove it")
        examples.append(Example(str(path.relative_to(source)), labels[synset[0]], path))
    if not examples:
        raise UserError(f"{source} holds no pictures ({', '.join(sorted(EXTENSIONS))})")
    return Source(list(class_names.values()), 3, {"test": examples})


def _read_synsets(source: Path, paths: list[Path]) -> dict[str, str]:
    """Synset to class name, in the order of the labels. A name that two classes share, as crane, gets its synset."""
    if len(paths) != 1:
        found = ", ".join(map(str, paths)) or "none"
        raise UserError(f"{source} must hold one {IMAGENET_CLASSES}, Kaggle's list of the classes; found: {found}")
    names = {}
    for number, line in enumerate(read_regular(paths[0]).decode("utf-8", "replace").splitlines(), start=1):
        synset, _, name = line.partition(" ")
        if not _SYNSET.fullmatch(synset) or not name.strip():
            raise UserError(
                f"{paths[0]}, line {number}, is {line[:80]!r}; it must be like 'n01440764 tench, Tinca tinca'"
            )
        if synset in names:
            raise UserError(f"{paths[0]}, line {number}, has {synset} for the second time; remove one of them")
        names[synset] = name.strip()
    if len(names) < 2:
        raise UserError(f"{paths[0]} holds {len(names)} classes; at least two are needed")
    shared = Counter(names.values())
    return {synset: f"{name} ({synset})" if shared[name] > 1 else name for synset, name in names.items()}


def _pictures(files: list[Path]) -> list[Path]:
    return [path for path in files if path.suffix.lower() in EXTENSIONS]
