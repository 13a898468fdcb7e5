"""Sources that are arrays of pixels: scikit-learn, IDX, CIFAR's files, HDF5."""

import gzip
import math
import pickle
import re
import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import pooch

from errors import UserError
from files import MOST_BYTES, all_files, list_directory, open_regular, read_regular
from pipeline.convert.sources import Example, HeldOut, Source, array_examples, download


def digits(source: Path | None, cache: Path) -> Source:
    """1,797 handwritten digits of 8×8, part of scikit-learn; takes no --source.
    The test part of UCI's optdigits (Alpaydin and Kaynak), 17 grey levels. A fifth is for test, an eighth of the rest
    for validation."""
    if source is not None:
        raise UserError("digits are part of scikit-learn and take no --source")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    examples = array_examples("digit", pixels, bunch.target, digits=4)
    return Source([str(i) for i in range(10)], 1, {"train": examples}, held_out=HeldOut(test=0.2, validation=0.125))


MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_FILES = {  # with the checksums of LeCun's files
    "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
}
FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FASHION_FILES = {
    "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
}
FASHION_CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]
FASHION_CLASSES += ["Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def mnist(source: Path | None, cache: Path) -> Source:
    """70,000 handwritten digits of 28×28: the four IDX files, .gz or not, or downloaded.
    By LeCun, Cortes and Burges. A twelfth of the 60,000 training pictures, 5,000, becomes the validation split; the
    10,000 test pictures do not change."""
    return _idx(source, cache, MNIST_URL, MNIST_FILES, [str(i) for i in range(10)])


def fashion_mnist(source: Path | None, cache: Path) -> Source:
    """70,000 articles of clothing in MNIST's format and splits, or downloaded.
    By Zalando (Xiao et al., arXiv:1708.07747)."""
    return _idx(source, cache, FASHION_URL, FASHION_FILES, FASHION_CLASSES)


def _idx(source: Path | None, cache: Path, url: str, files: dict[str, str], class_names: list[str]) -> Source:
    splits, paths = {}, {}
    for name, checksum in files.items():
        paths[name] = _find_idx(source, name) if source else download(url + name, checksum, cache)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        image_path, label_path = (paths[f"{prefix}-{part}-ubyte.gz"] for part in ("images-idx3", "labels-idx1"))
        images, labels = read_idx(image_path, rank=3), read_idx(label_path, rank=1)
        if len(images) != len(labels):
            raise UserError(f"{image_path} holds {len(images)} pictures, {label_path} {len(labels)} labels")
        if labels.max(initial=0) > 9:
            raise UserError(f"{label_path} holds the label {labels.max()}; the ten classes are 0 to 9")
        splits[split] = array_examples(split, images, labels)
    return Source(class_names, 1, splits, held_out=HeldOut(validation=1 / 12))


def _find_idx(source: Path, name: str) -> Path:
    """The file of a name in MNIST_FILES, or one as others call it: unpacked, in a folder, train-images.idx3-ubyte."""
    if (source / name).is_file():
        return source / name
    stem = re.compile(name.removesuffix(".gz").replace("-idx", "[-.]idx") + r"(\.gz)?")
    found = [path for path in all_files(source) if stem.fullmatch(path.name)]
    return min(found, key=lambda path: (len(path.parts), path), default=source / name)


def read_idx(path: Path, rank: int) -> np.ndarray:
    """Reads an IDX file of unsigned bytes: 0, 0, 8, rank, then the sizes as big-endian int32, then the data.

    The file may be compressed by gzip. Returns uint8 with `rank` dimensions. Raises UserError if the file is missing,
    damaged, or of another rank. No more is unpacked than the sizes say: a gzip file may hold a thousand times its size.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; the source needs {', '.join(MNIST_FILES)}, packed or not")
    try:
        with open_regular(path) as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            file = gzip.GzipFile(fileobj=raw) if packed else raw
            header = file.read(4 + 4 * rank)
            start, shape = struct.unpack_from(">HBB", header), struct.unpack_from(f">{rank}i", header, 4)
            size = math.prod(shape)
            if start != (0, 8, rank) or min(shape) < 1 or size > MOST_BYTES:
                raise UserError(f"{path} is no complete IDX file of unsigned bytes and rank {rank}")
            data = file.read(size + 1)  # one more than it may hold
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise UserError(f"{path} is no IDX file ({error})") from None
    if len(data) != size:
        raise UserError(f"{path} is no complete IDX file of unsigned bytes and rank {rank}")
    return np.frombuffer(data, np.uint8).reshape(shape)


CIFAR_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR_CHECKSUM = "md5:c32a1d4ab5d03f1284b67883e8d87530"
CIFAR_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CIFAR_RECORD = 1 + 3 * 32 * 32  # bytes: label, then the planes of red, green and blue


def cifar10(source: Path | None, cache: Path) -> Source:
    """60,000 pictures of 32×32: data_batch_* and test_batch, .bin or Python's; or downloaded.
    The binary version or the Python version (Krizhevsky, 2009); some of the five data_batch files may be missing. A
    tenth of the training pictures becomes the validation split."""
    if source is None:
        files = [Path(name) for name in download(CIFAR_URL, CIFAR_CHECKSUM, cache, pooch.Untar())]
    else:
        files = all_files(source)
    splits = {}
    for split, prefix in ("train", "data_batch"), ("test", "test_batch"):
        paths = [path for path in files if path.name.startswith(prefix)]
        if binary := [path for path in paths if path.suffix == ".bin"]:
            paths, read = binary, _read_cifar
        elif pickled := [path for path in paths if not path.suffix]:
            paths, read = pickled, _read_cifar_pickle
        else:
            raise UserError(_why_no_cifar(source, prefix, files))
        numbered = _numbered_batches(paths, prefix)
        splits[split] = [example for number in sorted(numbered) for example in read(numbered[number])]
        missing = [f"data_batch_{i}" for i in range(1, 6) if str(i) not in numbered] if split == "train" else []
        if missing:
            print(f"note: {source} lacks {', '.join(missing)}, each of 10,000 training pictures; the others are read")
    return Source(CIFAR_CLASSES, 3, splits)


def _numbered_batches(paths: list[Path], prefix: str) -> dict[str, Path]:
    """{number: file} of data_batch_1 to data_batch_5; of test_batch, whose name may go on, {'': file}.

    Raises UserError for two files of a number, and for other names: they may be copies, whose pictures would be twice.
    """
    numbered: dict[str, Path] = {}
    for path in paths:
        number = "" if prefix == "test_batch" else path.stem.removeprefix(f"{prefix}_")[:1]
        if first := numbered.get(number):
            raise UserError(f"{first} and {path} are both {prefix}{number and f'_{number}'}; remove or rename one")
        numbered[number] = path
    for number, path in numbered.items():
        if prefix != "test_batch" and (number not in tuple("12345") or path.stem != f"{prefix}_{number}"):
            raise UserError(f"{path} is none of {prefix}_1 to {prefix}_5; rename or remove it")
    return numbered


def _why_no_cifar(source: Path, prefix: str, files: list[Path]) -> str:
    """The error where files are missing."""
    needed = "cifar-10-binary.tar.gz or cifar-10-python.tar.gz, unpacked"
    if {"train", "test"} <= {path.stem for path in files}:
        other = f"{source} holds train and test, the names of CIFAR-100's files"
        return f"{other}; convert them with the cifar100 source; cifar10 needs {needed}"
    return f"{source} holds no {prefix}*.bin or {prefix}* of Python; it must hold the files of {needed}"


def _read_cifar(path: Path, fine: int = 0, classes: int = 10) -> list[Example]:
    """The examples of a file of a binary version: `fine` bytes, a byte of the label, then the planes of a picture."""
    data, size = np.frombuffer(read_regular(path), np.uint8), fine + CIFAR_RECORD
    if not data.size or data.size % size:
        raise UserError(f"{path} has {data.size} bytes, which is no multiple of {size}: it is truncated")
    rows = data.reshape(-1, size)[:, fine:]
    if rows[:, 0].max() >= classes:
        named = "the ten classes are 0 to 9" if classes == 10 else f"the classes are 0 to {classes - 1}"
        raise UserError(f"{path} holds the label {rows[:, 0].max()}; {named}")
    return array_examples(f"{path.stem}_", rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0])


CIFAR100_URL = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
CIFAR100_CHECKSUM = "md5:eb9058c3a382ffc7106e4002c42a8d85"
CIFAR100_NAMES = "fine_label_names"  # the key in Python's meta, and the name of a text file beside the binary version


def cifar100(source: Path | None, cache: Path) -> Source:
    """60,000 pictures of 32×32 in 100 classes: train, test and their class names; or downloaded.
    The Python version (train, test, meta) or the binary version (train.bin, test.bin, fine_label_names.txt) of
    Krizhevsky, 2009. The classes are the fine ones. A tenth of the training pictures becomes the validation split."""
    if source is None:
        files = [Path(name) for name in download(CIFAR100_URL, CIFAR100_CHECKSUM, cache, pooch.Untar())]
        source = files[0].parent
    else:
        files = all_files(source)
    for names in ("train.bin", "test.bin", f"{CIFAR100_NAMES}.txt"), ("train", "test", "meta"):
        found = [[path for path in files if path.name == name] for name in names]
        if double := next((paths for paths in found if len(paths) > 1), None):
            raise UserError(f"{source} holds {double[0]} and {double[1]}; give the directory of one with --source")
        if all(found):
            break
    else:
        needed = "train, test and meta of cifar-100-python.tar.gz, unpacked"
        binary = f"train.bin, test.bin and {CIFAR100_NAMES}.txt of cifar-100-binary.tar.gz"
        ten = "; for data_batch_* of CIFAR-10 use the cifar10 source"
        has_ten = any(path.name.startswith("data_batch") for path in files)
        raise UserError(f"{source} must hold {needed}, or {binary}{ten if has_ten else ''}")
    (train,), (test,), (meta,) = found
    if meta.suffix:
        class_names = read_regular(meta).decode("utf-8", "replace").split()
        splits = {path.stem: _read_cifar(path, 1, 100) for path in (train, test)}
    else:
        class_names = _unpickle(meta, "CIFAR-100").get(CIFAR100_NAMES)
        splits = {path.name: _read_cifar_pickle(path, "fine_labels", 100) for path in (train, test)}
    class_names = class_names if isinstance(class_names, list) else []
    class_names = [n.decode("utf-8", "replace") if isinstance(n, bytes) else n for n in class_names]
    if not all(isinstance(n, str) for n in class_names) or not len(class_names) == len(set(class_names)) == 100:
        raise UserError(f"{meta} must have the names of 100 fine classes, each once; it has {len(class_names)}")
    return Source(class_names, 3, splits)


MOST_PICKLE = 2**29  # bytes: CIFAR-100's train has 155 MB, half as much again as Python 3 writes it for Python 2
_OF_ARRAYS = ("multiarray._reconstruct", "numeric._frombuffer", "numpy.ndarray", "numpy.dtype")


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays, containers, text and numbers only: a pickle can call any function that it can name."""

    def find_class(self, module: str, name: str) -> object:
        """The function or class of a name. Raises UnpicklingError for all that arrays do not need."""
        short = re.sub(r"numpy\._?core\.", "", module)
        if (module, name) == ("_codecs", "encode"):  # of bytes that Python 3 wrote for Python 2
            return _latin1
        if f"{short}.{name}" not in _OF_ARRAYS:
            raise pickle.UnpicklingError(f"it would run {module}.{name}")
        return super().find_class(module if short == "numpy" else f"numpy._core.{short}", name)


def _latin1(text: str, encoding: str) -> bytes:
    """What stands for _codecs.encode: other codecs, one around the other, make gigabytes from a few bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("it would encode other than text as latin1")
    return text.encode("latin1")


def _unpickle(path: Path, kind: str) -> dict[str, object]:
    """The dict in a file of a Python version; Python 2 wrote its keys as bytes. Raises UserError for anything else."""
    try:
        with open_regular(path) as file:
            if path.stat().st_size > MOST_PICKLE:
                raise pickle.UnpicklingError(f"it is larger than {MOST_PICKLE:,} bytes")
            content = _ArrayUnpickler(file, encoding="bytes").load()
        return {key.decode() if isinstance(key, bytes) else key: value for key, value in content.items()}
    except OSError:
        raise
    except Exception as error:  # a damaged pickle raises errors of many types
        raise UserError(f"{path} is no pickle of {kind}'s Python version ({str(error)[:200]})") from None


def _read_cifar_pickle(path: Path, key: str = "labels", classes: int = 10) -> list[Example]:
    """The examples of a file of a Python version: a pickled dict of data, uint8 [N, 3072], and labels, a list or array.

    Labels may be [N, 1], as Keras has them.
    """
    kind = f"CIFAR-{classes}"
    batch = _unpickle(path, kind)
    try:
        rows, labels = batch["data"], _flat(batch[key])
        sound = rows.dtype == np.uint8 and rows.shape == (len(labels), CIFAR_RECORD - 1) and labels.dtype.kind in "iu"
    except Exception as error:  # of values of other types
        raise UserError(f"{path} is no pickle of {kind}'s Python version ({str(error)[:200]})") from None
    if not sound or not rows.size or not 0 <= labels.min() <= labels.max() < classes:
        needed = f"{CIFAR_RECORD - 1} bytes and a label of 0 to {classes - 1} for each picture"
        raise UserError(f"{path} does not hold {needed}")
    return array_examples(f"{path.stem}_", rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels)


def _flat(labels: object) -> np.ndarray:
    """The labels [N] of an array [N] or [N, 1] or of a list of numbers, not of lists: nested ones may be endless."""
    if isinstance(labels, np.ndarray) and labels.shape in ((len(labels),), (len(labels), 1)):
        return labels.ravel()
    if not isinstance(labels, list) or set(map(type, labels)) - {int}:
        raise TypeError("the labels are no flat list of whole numbers")
    return np.array(labels)


def signs(source: Path | None, cache: Path) -> Source:
    """Hand signs for 0 to 5 at 64×64 (deeplearning.ai's SIGNS): two HDF5 files.
    One has train_set_x and train_set_y, the other test_set_x and test_set_y; both have list_classes. A tenth of train
    becomes validation."""
    if source is None:
        raise UserError("the signs source needs --source DIR with train_signs.h5 and test_signs.h5")
    splits, class_names = {}, None
    for path in (path for path in list_directory(source)[1] if path.suffix in (".h5", ".hdf5")):
        try:
            with open_regular(path) as raw, h5py.File(raw, "r") as file:
                found = [split for split in ("train", "test") if f"{split}_set_x" in file]
                parts = {split: _read_signs(path, file, split) for split in found}
        except UserError:
            raise
        except Exception as error:  # HDF5 and NumPy raise errors of many types on damaged files
            raise UserError(f"{path} is no complete HDF5 file of the SIGNS format ({error})") from None
        for split, (examples, names) in parts.items():
            if split in splits or class_names not in (None, names):
                raise UserError(f"{path} holds {split} for the second time, or other classes than the file before")
            splits[split], class_names = examples, names
    if set(splits) != {"train", "test"}:
        found = ", ".join(splits) or "none"
        raise UserError(f"{source} must hold train_set_x and test_set_x in .h5 files; found: {found}")
    return Source(class_names, 3, splits)


def _read_signs(path: Path, file: h5py.File, split: str) -> tuple[list[Example], list[str]]:
    if sum(part.nbytes for part in file.values() if isinstance(part, h5py.Dataset)) > MOST_BYTES:
        raise UserError(f"{path} unpacks to more than 2 GiB; the SIGNS format is for small pictures")
    images, labels = file[f"{split}_set_x"][()], np.ravel(file[f"{split}_set_y"][()])
    names = [n.decode() if isinstance(n, bytes) else str(n) for n in np.ravel(file["list_classes"][()]).tolist()]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not images.size:
        raise UserError(f"{path}: {split}_set_x is {images.dtype} {images.shape}; it must be uint8 [N, H, W, 3]")
    if labels.dtype.kind not in "iu" or len(images) != len(labels) or labels.min() < 0 or labels.max() >= len(names):
        raise UserError(f"{path}: {split}_set_y does not label {len(images)} pictures with {len(names)} classes")
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(f"{path}: list_classes must have at least two names, each once")
    return array_examples(split, images, labels), names
