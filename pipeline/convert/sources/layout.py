"""The layout of a folder of pictures: which folders are splits, and where the class folders are."""

import re
from collections import Counter
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

from errors import UserError
from files import all_files, list_directory
from pipeline.images import EXTENSIONS
from pipeline.tfrecord import SPLIT_NAMES, SPLITS

WORDS = {**SPLIT_NAMES, "training": "train", "testing": "test"}
WORDS |= dict.fromkeys(("dev", "eval", "evaluation"), "validation")
_SPLIT = re.compile(  # train, training_set, seg_train, TestImages, val2017; not train_masks
    rf"(?:(?:seg|data|sets?|images?|imgs?)[\W_]*)*({'|'.join(sorted(WORDS, key=len, reverse=True))})"
    r"(?:[\W_]*(?:data|sets?|images?|imgs?|photos?|pictures?|split|folder|\d{4}))*"
)


def is_picture(path: Path) -> bool:
    """Whether the name of a file has the ending of a picture."""
    return path.suffix.lower() in EXTENSIONS


def kinds(unused: Iterable[Path], hidden: Iterable[Path]) -> Counter:
    """The numbers by kind of files that are not used, and of what list_directory leaves out.

    Of the latter only folders and pictures count: every folder of a Mac has a .DS_Store.
    """
    counts = Counter(_ending(path, "pictures beside the folders") or "without an ending" for path in unused)
    counts.update(f"folder {path.name}" for path in hidden if path.is_dir())
    counts["hidden pictures"] += sum(is_picture(path) and not path.is_dir() for path in hidden)
    return +counts


def _ending(path: Path, picture: str) -> str:
    return picture if is_picture(path) else path.suffix.lower()


def split_of(name: str) -> str | None:
    """The split that the name of a folder means, such as train for Training, train_set and seg_train; else None."""
    match = _SPLIT.fullmatch(name.lower())
    return WORDS[match[1]] if match else None


def find_splits(source: Path, classes_in_names: bool) -> tuple[dict[str, Path], Counter]:
    """{split: the folder that holds its class folders}, and the numbers of files and folders beside them by kind.

    Without split folders all pictures are the training split. A folder that alone holds pictures is entered: splits may
    be in outer/dataset, and classes in seg_train/seg_train. With classes_in_names class folders are not looked for.

    Raises UserError for two folders of one split, and where the class folders seem to be something else.
    """
    root, ignored = source, Counter()
    while not (parts := _named_splits(root, classes_in_names)) and (inner := _only_folder(root)):
        ignored += _beside(root, [inner])
        root = inner
    if parts:
        ignored += _beside(root, parts.values())
    else:
        parts = {"train": root}
    classes: set[str] = set()
    for split in () if classes_in_names else sorted(parts, key=SPLITS.index):  # first train: its folders are classes
        while (inner := _only_folder(parts[split])) and inner.name not in classes:
            ignored += _beside(parts[split], [inner])
            parts[split] = inner
        _check_classes(parts[split])
        classes = classes or {folder.name for folder in list_directory(parts[split])[0]}
    return parts, ignored


def _named_splits(root: Path, classes_in_names: bool) -> dict[str, Path]:
    """The folders in `root` that are splits by their names, or by the name of the only folder in each.

    The names that TF-Slim uses, train, val, test and so on, always mean splits. Others, such as training and test_set,
    do if one of them has its pictures in subfolders, and beside one of those each that has; else they are classes.
    """
    folders = [folder for folder in list_directory(root)[0] if split_of(folder.name)]
    plain = [folder for folder in folders if folder.name.lower() in SPLIT_NAMES]
    others = [folder for folder in folders if folder not in plain]
    if not classes_in_names:
        deep = list(filter(_has_only_folders, others))
        others = deep if plain or not deep else others
    parts: dict[str, Path] = {}
    for folder in [*plain, *others]:
        first = parts.setdefault(split_of(folder.name), folder)
        if first != folder and (folder in plain or first in others):
            raise UserError(f"{root} has both {first.name} and {folder.name}; keep one of them")
    return parts or _wrapped_splits(root, classes_in_names)


def _wrapped_splits(root: Path, classes_in_names: bool) -> dict[str, Path]:
    """The folders in `root`, where each holds only one folder, which is a split by its name: Google Drive packs train
    as train-20230101T000000Z-001/train. Raises UserError for two of one split."""
    parts: dict[str, Path] = {}
    for folder in list_directory(root)[0]:
        inner, files = list_directory(folder)
        split = split_of(inner[0].name) if len(inner) == 1 and not any(map(is_picture, files)) else None
        if split is None or not (classes_in_names or _has_only_folders(inner[0])):
            if any(map(is_picture, all_files(folder))):
                return {}
            continue
        first = parts.setdefault(split, folder)
        if first != folder and classes_in_names:
            return {}
        if first != folder:
            both = f"{first.name}/{inner[0].name} and {folder.name}/{inner[0].name}"
            raise UserError(f"{root} has both {both}; move the content of one into the other, class by class")
    return parts if len(parts) > 1 else {}


def beside_splits(parts: dict[str, Path]) -> str:
    """A hint for an error, where other folders of pictures are beside the splits: a class may be called train."""
    for split, folder in parts.items():
        beside = [other for other in list_directory(folder.parent)[0] if other not in parts.values()]
        names = [other.name for other in beside if any(map(is_picture, all_files(other)))]
        if names and split_of(folder.name) == split:
            others = f"{', '.join(names[:3])}{', …' if names[3:] else ''}"
            taken = f"{folder.name} is taken for the {split} split by its name, and {others} beside it left out"
            return f"; {taken}: if it is a class, give it another name, such as {folder.name}_class"
    return ""


def _has_only_folders(folder: Path) -> bool:
    folders, files = list_directory(folder)
    return bool(folders) and not any(map(is_picture, files))


def _only_folder(root: Path) -> Path | None:
    """The folder in `root` that alone holds pictures, all of them in subfolders; else None."""
    folders = list_directory(root)[0]
    if any(is_picture(file) for folder in folders for file in list_directory(folder)[1]):
        return None
    holding = [folder for folder in folders if any(map(is_picture, all_files(folder)))]
    return holding[0] if len(holding) == 1 else None


def _beside(root: Path, used: Iterable[Path]) -> Counter:
    """The numbers by kind of the files in `root` and of the folders that are not used."""
    hidden: list[Path] = []
    folders, files = list_directory(root, hidden)
    return kinds(files, hidden) + Counter(f"folder {folder.name}" for folder in folders if folder not in used)


def _check_classes(root: Path) -> None:
    """Raises UserError where folders in `root` have only subfolders, and those have the same names.

    Class folders may have subfolders; but color/apple, color/pear, grayscale/apple and grayscale/pear are not of the
    classes color and grayscale.
    """
    inside = {}
    for folder in filter(_has_only_folders, list_directory(root)[0]):
        inside[folder.name] = {below.name for below in list_directory(folder)[0]}
    often = Counter(name for names in inside.values() for name in names)
    suspects = [name for name, names in inside.items() if sum(often[below] > 1 for below in names) > 1]
    for one, two in combinations(suspects, 2):
        shared = sorted(inside[one] & inside[two])
        if len(shared) < 2:
            continue
        folders = f"{', '.join(shared[:3])}{', …' if shared[3:] else ''}"
        found = f"{root} holds {one} and {two}, both with folders {folders} and without pictures of their own"
        if all(map(split_of, (one, two))):
            advice = f"these splits are not at the top; give --source {root}"
        elif all(map(split_of, shared)):
            advice = f"splits must be outside of the classes: {shared[0]}/{one}, {shared[0]}/{two}; move the folders"
        else:
            advice = (
                "if they are splits, name them train, validation and test; if they are versions of the same pictures, "
                f"convert one of them with --source {root / one}; if they are classes, list the pictures in a table "
                "for the csv source"
            )
        raise UserError(f"{found}; {advice}")
