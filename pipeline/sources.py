"""The data sets that convert knows. A source is one function: from the user's files to pictures with labels.

def name(source: Path | None, cache: Path) -> Source
"""

import gzip
import hashlib
import os
import re
import struct
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pooch

from errors import UserError
from pipeline.images import EXTENSIONS

SPLITS = ("train", "validation", "test")
SPLIT_SEED = 0  # of the data set, not of a run: all runs share their test pictures


class Example(NamedTuple):
    """A picture, not yet decoded where it is a file."""

    filename: str
    label: int
    image: np.ndarray | Path  # uint8 [H, W, C], or where the file lies


class Source(NamedTuple):
    """A data set: its classes in label order, and its splits: train and validation, or test alone."""

    class_names: list[str]
    channels: int
    splits: dict[str, list[Example]]


def carve(examples: Iterable[Example], fraction: float) -> tuple[list[Example], list[Example]]:
    """Splits off a fraction of each class, at least one picture: those whose seeded hash of the file name is lowest.

    Returns (rest, part), in the order given. A file keeps its side when others come and go, but for those at the edge.
    """
    examples = list(examples)
    by_class = defaultdict(list)
    for example in examples:
        key = hashlib.sha256(os.fsencode(f"{SPLIT_SEED}/{example.filename}")).digest()
        by_class[example.label].append((key, example.filename))
    chosen = set()
    for keys in by_class.values():
        chosen.update(name for _, name in sorted(keys)[: max(1, round(fraction * len(keys)))])
    return [e for e in examples if e.filename not in chosen], [e for e in examples if e.filename in chosen]


def digits(source: Path | None, cache: Path) -> Source:
    """1,797 handwritten digits of 8×8 pixels and 17 grey levels, embedded in scikit-learn (Alpaydin and Kaynak, the
    test part of UCI's optdigits): a fifth for test, an eighth of the rest for validation."""
    if source is not None:
        raise UserError("digits are embedded in scikit-learn and take no --source")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    examples = [
        Example(f"digit{i:04d}.png", int(label), image)
        for i, (image, label) in enumerate(zip(pixels, bunch.target, strict=True))
    ]
    rest, test = carve(examples, 0.2)
    train, validation = carve(rest, 0.125)
    return Source([str(i) for i in range(10)], 1, {"train": train, "validation": validation, "test": test})


MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_FILES = {  # with the checksums of LeCun's files
    "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
}


def mnist(source: Path | None, cache: Path) -> Source:
    """70,000 handwritten digits of 28×28 (LeCun, Cortes and Burges), as the four IDX .gz files. The 10,000 test
    pictures stay as they are; a twelfth of the 60,000 training pictures, 5,000, becomes the validation split."""
    paths = {
        name: source / name if source else _download(MNIST_URL + name, checksum, cache)
        for name, checksum in MNIST_FILES.items()
    }
    splits = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        image_path, label_path = paths[f"{prefix}-images-idx3-ubyte.gz"], paths[f"{prefix}-labels-idx1-ubyte.gz"]
        images, labels = read_idx(image_path, rank=3), read_idx(label_path, rank=1)
        if len(images) != len(labels):
            raise UserError(f"{image_path} holds {len(images)} pictures, {label_path} {len(labels)} labels")
        if labels.max(initial=0) > 9:
            raise UserError(f"{label_path} holds the label {labels.max()}; digits are 0 to 9")
        splits[split] = [
            Example(f"{split}{i:05d}.png", int(label), image)
            for i, (image, label) in enumerate(zip(images, labels, strict=True))
        ]
    splits["train"], splits["validation"] = carve(splits["train"], 1 / 12)
    return Source([str(i) for i in range(10)], 1, splits)


def read_idx(path: Path, rank: int) -> np.ndarray:
    """Reads a gzipped IDX file of unsigned bytes: 0, 0, 8, rank, then the sizes as big-endian int32, then the data.

    Raises UserError where the file is missing, damaged, or of another rank.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; the source needs {', '.join(MNIST_FILES)}")
    try:
        data = gzip.decompress(path.read_bytes())
        start = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{rank}i", data, 4)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise UserError(f"{path} is no gzipped IDX file ({error})") from None
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * rank)
    if start != (0, 8, rank) or values.size != np.prod(shape):
        raise UserError(f"{path} is no complete IDX file of unsigned bytes and rank {rank}")
    return values.reshape(shape)


def folder(source: Path | None, cache: Path) -> Source:
    """Class folders of pictures, with train and test, validation or val folders above them, or without. What is
    missing is carved from train: a tenth for validation, and where there is no split at all, a tenth for test."""
    if source is None:
        raise UserError("the folder source needs --source DIR, with one folder of pictures for each class")
    if not source.is_dir():
        raise UserError(f"--source {source} is no directory")
    names = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
    if (source / "val").is_dir() and (source / "validation").is_dir():
        raise UserError(f"{source} has both val and validation; one of them has to go")
    parts = {names[d.name]: d for d in _subdirectories(source) if d.name in names} or {"train": source}
    if "train" not in parts:
        raise UserError(f"{source} has {', '.join(sorted(d.name for d in parts.values()))} but no train folder")
    class_names = [d.name for d in _subdirectories(parts["train"])]
    if len(class_names) < 2:
        raise UserError(
            f"{parts['train']} holds {len(class_names)} class folders; at least two are needed, each with its pictures"
        )
    splits = {}
    for split, directory in parts.items():
        strangers = {d.name for d in _subdirectories(directory)} - set(class_names)
        if strangers:
            raise UserError(f"{directory} has classes that train lacks: {', '.join(sorted(strangers))}")
        splits[split] = [
            Example(str(path.relative_to(source)), label, path)
            for label, name in enumerate(class_names)
            for path in _pictures(directory / name)
        ]
    for label, name in enumerate(class_names):
        if sum(e.label == label for e in splits["train"]) < 3:
            raise UserError(
                f"{parts['train'] / name} holds fewer than 3 pictures ({', '.join(sorted(EXTENSIONS))}); "
                "a class needs one each for training, validation and test"
            )
    empty = [str(directory) for split, directory in parts.items() if not splits[split]]
    if empty:
        raise UserError(f"{', '.join(empty)} holds no pictures; fill or remove it")
    if set(splits) == {"train"}:
        splits["train"], splits["test"] = carve(splits["train"], 0.1)
    if "validation" not in splits:
        splits["train"], splits["validation"] = carve(splits["train"], 0.1)
    return Source(class_names, 3, splits)


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
    class_names = _read_synsets(source)
    labels = {synset: label for label, synset in enumerate(class_names)}
    examples = []
    for path in _pictures(source):
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


def _read_synsets(source: Path) -> dict[str, str]:
    """Synset to class name, in the order of the labels. A name that two classes share, as crane, gets its synset."""
    paths = sorted(source.rglob(IMAGENET_CLASSES))
    if len(paths) != 1:
        found = ", ".join(map(str, paths)) or "none"
        raise UserError(f"{source} must hold one {IMAGENET_CLASSES}, Kaggle's list of the classes; found: {found}")
    names = {}
    for number, line in enumerate(paths[0].read_text("utf-8", "replace").splitlines(), start=1):
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


def _pictures(directory: Path) -> list[Path]:
    return sorted(
        path
        for path in directory.rglob("*")
        if path.suffix.lower() in EXTENSIONS and path.is_file() and not path.name.startswith(".")
    )


def _subdirectories(directory: Path) -> list[Path]:
    return sorted(d for d in directory.iterdir() if d.is_dir() and not d.name.startswith("."))


def _download(url: str, checksum: str, cache: Path) -> Path:
    try:
        return Path(pooch.retrieve(url, checksum, fname=url.rsplit("/", 1)[1], path=cache, progressbar=True))
    except (OSError, ValueError) as error:  # no network, or a checksum that differs
        raise UserError(f"{url} could not be downloaded ({error}); give files you have with --source DIR") from None


SOURCES: dict[str, Callable[[Path | None, Path], Source]] = {
    "digits": digits,
    "mnist": mnist,
    "folder": folder,
    "imagenet": imagenet,
}
