"""Sources that are folders of picture files."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pooch

from errors import UserError
from files import all_files, list_directory, read_regular
from pipeline.convert import archives
from pipeline.convert.archives import Place
from pipeline.convert.sources import Example, Source, download, layout
from pipeline.images import EXTENSIONS


def folder(source: Path | Place | None, cache: Path, label_regex: str | None = None) -> Source:
    """Pictures in one folder for each class, also in a zip or tar; or all in one, with --label-regex.
    The class folders may be in folders whose names mean train, validation and test (layout.split_of). Missing splits
    are split off train: a tenth for validation and, if there is no split at all, a tenth for test."""
    if source is None:
        raise UserError("the folder source needs --source DIR or an archive, with a folder of pictures for each class")
    parts, ignored = layout.find_splits(source, classes_in_names=label_regex is not None)
    if "train" not in parts:
        found = ", ".join(sorted(directory.name for directory in parts.values()))
        hint = archives.inside(all_files(source)) or layout.beside_splits(parts)
        raise UserError(f"{source} has {found} but no train folder{hint}")
    label_of = _label_function(label_regex)
    labelled, folders = {}, {}
    for split, directory in parts.items():
        hidden: list[Path] = []
        files = all_files(directory, left_out=hidden)
        pictures = [path for path in files if layout.is_picture(path) and (label_regex or path.parent != directory)]
        ignored += layout.kinds(set(files).difference(pictures), hidden)
        labelled[split] = [(label_of(path, directory), path) for path in pictures]
        folders[split] = set() if label_regex else {d.name for d in list_directory(directory)[0]}
    class_names = sorted(folders["train"].union(name for name, _ in labelled["train"]))
    if len(class_names) < 2:
        kinds = ("class", "classes", " in its file names") if label_regex else ("class folder", "class folders", "")
        place = source if parts["train"] == source else f"{parts['train']}, the training split,"
        found = f"one {kinds[0]}" if class_names else f"no {kinds[1]}"
        needed = f"{place} holds {found}{kinds[2]}; at least two are needed, each with its pictures"
        if taken := archives.inside(all_files(parts["train"])) or layout.beside_splits(parts):
            raise UserError(f"{needed}{taken}")
        convert = "python -m pipeline.convert folder with --label-regex, then train.py with --data and its output"
        raise UserError(f"{needed}; for pictures in one folder, use {convert} directory")
    numbers = {name: label for label, name in enumerate(class_names)}
    splits = {}
    for split, directory in parts.items():
        if unknown := folders[split].union(name for name, _ in labelled[split]).difference(class_names):
            alike = {name.casefold(): name for name in class_names}
            written = sorted(alike[name.casefold()] for name in unknown if name.casefold() in alike)
            hint = f"; train has {', '.join(written)}: write them the same, upper and lower case too" if written else ""
            raise UserError(f"{directory} has classes that train lacks: {', '.join(sorted(unknown))}{hint}")
        examples = [Example(str(path.relative_to(source)), numbers[name], path) for name, path in labelled[split]]
        if isinstance(source, Place):
            examples = [example._replace(image=example.image.member) for example in examples]
        splits[split] = sorted(examples, key=lambda example: example.label)
    empty = [str(directory) for split, directory in parts.items() if not splits[split]]
    if empty:
        kind = "no pictures" if label_regex else "no pictures in class folders"
        kept = archives.inside([path for split in parts if not splits[split] for path in all_files(parts[split])])
        allowed = ", ".join(sorted(EXTENSIONS))
        raise UserError(f"{', '.join(empty)} holds {kind} ({allowed}){kept or '; fill or remove it'}")
    return Source(class_names, 3, splits, dict(sorted(ignored.items())))


FLOWERS_URL = "http://download.tensorflow.org/example_images/flower_photos.tgz"
FLOWERS_CHECKSUM = "sha256:4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c"  # the one that TFDS uses


def flowers(source: Path | Place | None, cache: Path) -> Source:
    """3,670 photographs in five classes, downloaded (229 MB); or a folder or archive like it.
    TensorFlow's flower_photos: daisies, dandelions, roses, sunflowers and tulips."""
    if source is None:
        download(FLOWERS_URL, FLOWERS_CHECKSUM, cache, pooch.Untar())
        source = cache / "flower_photos.tgz.untar" / "flower_photos"
    return folder(source, cache)


def _label_function(label_regex: str | None) -> Callable[[Path | Place, Path | Place], str]:
    """The function from the path of a picture and the folder of its split to the name of its class."""
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
    """LOC_synset_mapping.txt, and pictures named by synset: a test split, to evaluate published weights.
    Pictures of the 1,000 classes of ILSVRC-2012 (Russakovsky et al., arXiv:1409.0575). LOC_synset_mapping.txt lists the
    classes in label order. The synset of a picture is the start of its file name, or else the name of its folder."""
    if source is None:
        raise UserError(
            f"the imagenet source needs --source DIR with {IMAGENET_CLASSES}, which Kaggle has (imagenet-object-"
            "localization-challenge), and pictures named by synset, such as those of "
            "github.com/EliSchwartz/imagenet-sample-images"
        )
    files = all_files(source)
    class_names = _read_synsets(source, [path for path in files if path.name == IMAGENET_CLASSES])
    labels = {synset: label for label, synset in enumerate(class_names)}
    examples = []
    for path in filter(layout.is_picture, files):
        synset = _SYNSET.match(path.name) or _SYNSET.fullmatch(path.parent.name)
        if synset is None:
            needed = "its name must begin with one, like n01443537_goldfish.JPEG, or its folder's name must be one"
            raise UserError(f"{path} has no synset: {needed}; rename or remove it")
        if synset[0] not in labels:
            raise UserError(f"{path} is of {synset[0]}, which {IMAGENET_CLASSES} lacks; rename or remove it")
        examples.append(Example(str(path.relative_to(source)), labels[synset[0]], path))
    if not examples:
        raise UserError(f"{source} holds no pictures ({', '.join(sorted(EXTENSIONS))})")
    return Source(list(class_names.values()), 3, {"test": examples})


def _read_synsets(source: Path, paths: list[Path]) -> dict[str, str]:
    """{synset: class name} in label order. If two classes have the same name, such as crane, the synset is added."""
    if len(paths) != 1:
        found = ", ".join(map(str, paths)) or "none"
        raise UserError(f"{source} must hold one {IMAGENET_CLASSES}, Kaggle's list of classes; found: {found}")
    names = {}
    for number, line in enumerate(read_regular(paths[0]).decode("utf-8", "replace").splitlines(), start=1):
        place, (synset, _, name) = f"{paths[0]}, line {number},", line.partition(" ")
        if not _SYNSET.fullmatch(synset) or not name.strip():
            raise UserError(f"{place} is {line[:80]!r}; it must be like 'n01440764 tench, Tinca tinca'")
        if synset in names:
            raise UserError(f"{place} has {synset} for the second time; remove one of them")
        names[synset] = name.strip()
    if len(names) < 2:
        raise UserError(f"{paths[0]} holds {len(names)} classes; at least two are needed")
    shared = Counter(names.values())
    return {synset: f"{name} ({synset})" if shared[name] > 1 else name for synset, name in names.items()}
