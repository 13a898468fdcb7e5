"""Converts raw pictures to TFRecord shards and dataset.json: `convert`, or python -m pipeline.convert.

pool.py decodes in several processes, sources/ reads the data sets. Nothing here loads TensorFlow.
"""

import csv
import hashlib
import inspect
import json
import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_type_hints

import numpy as np
import pooch
import tyro
from annotated_types import Interval
from tqdm import tqdm

import own_code
from channels import MOST
from config import AT_LEAST_ONE, check_values, flag, optional
from errors import UserError, unknown
from files import atomic_directory, atomic_write, expand, is_text, os_errors_as_user_errors
from pipeline import bands, images, listing, tfrecord
from pipeline.convert import archives, duplicates
from pipeline.convert.archives import Place
from pipeline.convert.duplicates import Duplicate
from pipeline.convert.pool import Chunk, Pool, Rejected, Settings
from pipeline.convert.sources import Source, arrays, folders, parquet, tables, webdataset, with_all_splits
from pipeline.convert.sources.own import own_source
from pipeline.statistics import Moments
from pipeline.tfrecord import SPLITS

REJECTED_CSV = "rejected.csv"
FIRST = 8  # pictures that are asked for their number of channels, until one can be read
BLACK = 2  # of 255: a mean below it, or as near to white, is that of pictures without content
DARK = bands.FULL_RANGE // 4  # where all samples are below, pictures come out nearly black
_SOURCES = (arrays.digits, arrays.mnist, arrays.fashion_mnist, arrays.cifar10)
_SOURCES += (
    arrays.cifar100,
    arrays.signs,
    folders.flowers,
    folders.folder,
    tables.csv,
    webdataset.webdataset,
    parquet.parquet,
    folders.imagenet,
)
ARCHIVE_SOURCES = ("folder", "flowers")  # which read archives of folders
FILE_SOURCES = ("csv", "webdataset", "parquet", *ARCHIVE_SOURCES)  # whose --source may be a file
SOURCES: dict[str, Callable[..., Source]] = {source.__name__: source for source in _SOURCES}


class Conversion(NamedTuple):
    """The result of a conversion."""

    directory: str
    class_names: list[str]
    splits: dict[str, int]  # number of pictures
    rejected: int  # pictures that cannot be used
    ignored: dict[str, int]  # number of files left out by kind, such as '.txt'
    balance: dict[str, Counter]  # number of pictures by split and label
    duplicates: list[list[Duplicate]]  # equal pictures in several splits or under several classes
    channels: int = 3  # of the stored pictures


class _Totals:
    """The sums over all chunks that are written."""

    def __init__(self, name: str, data: Source, settings: Settings):
        self.name, self.data, self.settings = name, data, settings
        self.moments = Moments(settings.pictures.channels)  # of the training pictures
        self.highest: int | None = None  # of their samples of 16 bits without a range
        self.balance: dict[str, Counter] = {}  # by split, of the pictures that are stored
        self.rejected: list[Rejected] = []
        self.splits: dict[str, dict] = {}  # as in dataset.json
        self.digest = hashlib.sha256()  # of the records of the split that is written

    def write(self, split: str, pool: Pool, directory: Path) -> None:
        """Writes the shards of a split."""
        examples = self.data.splits.get(split, [])
        self.digest = hashlib.sha256()
        with tqdm(
            total=len(examples), desc=f"{own_code.short(self.name)} {split}", unit="picture", disable=None
        ) as progress:
            self.balance[split] = Counter()
            records = self._records(split, pool.chunks(split, examples), progress)
            shards = tfrecord.write_shards(records, directory, f"{own_code.attribute(self.name)}_{split}")
        count = sum(shard["examples"] for shard in shards)
        self.splits[split] = {"examples": count, "sha256": self.digest.hexdigest(), "shards": shards}

    def _records(self, split: str, chunks: Iterator[Chunk], progress: tqdm) -> Iterator[bytes]:
        """The records of the chunks; adds each chunk to the sums."""
        for chunk in chunks:
            if chunk.moments:
                self.moments.merge(chunk.moments)
            if chunk.highest is not None:
                self.highest = max(self.highest or 0, chunk.highest)
            self.balance[split].update(chunk.labels)
            self.rejected.extend(chunk.rejected)
            for record in chunk.records:
                self.digest.update(record)
                yield record
            progress.update(len(chunk.records) + len(chunk.rejected))

    def missing(self) -> str | None:
        """Names classes without training pictures or a split without pictures; None if all have pictures."""
        train = {example.label for example in self.data.splits.get("train", [])}
        empty = [self.data.class_names[label] for label in sorted(train.difference(self.balance["train"]))]
        if empty:
            return f"every training picture was rejected of {', '.join(empty)}"
        for split in ("train", "validation") if "train" in self.data.splits else ("test",):
            if not self.splits[split]["examples"]:
                return f"no picture is left for the {split} split"
        return None

    def description(self, source: Path | None, options: dict[str, object]) -> dict:
        """The content of dataset.json. `options` are those of the conversion that change the records."""
        return {
            "name": own_code.attribute(self.name),
            **({"reader": self.name} if own_code.is_own(self.name) else {}),
            "source": str(source.resolve()) if source else None,
            "options": options,
            "class_names": self.data.class_names,
            **self.settings.pictures._asdict(),
            "light_strokes": self.moments.light_strokes(),
            "splits": self.splits,
            "statistics": self.moments.channel_statistics() if self.moments.count else None,
            "rejected": len(self.rejected),
            "ignored": self.data.ignored or {},
        }


@os_errors_as_user_errors()
def convert(
    name: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="NAME")]],
    out: Annotated[str, tyro.conf.arg(metavar="DIR")],
    source: Annotated[str | None, optional("RAW")] = None,
    on_error: Literal["stop", "skip"] = "stop",
    *,
    label_regex: Annotated[str | None, optional("REGEX")] = None,
    channels: Annotated[int | None, Interval(ge=1, le=MOST), optional("N")] = None,
    short_side: Annotated[int | None, AT_LEAST_ONE, optional("N")] = None,
    max_pixels: Annotated[int, AT_LEAST_ONE, tyro.conf.arg(metavar="N")] = images.MAX_PIXELS,
    sample_range: Annotated[tuple[float, float] | None, optional("LOW HIGH")] = None,
    processes: Annotated[int | None, AT_LEAST_ONE, optional("N")] = None,
    on_duplicates: Literal["note", "stop", "drop"] = "note",
) -> Conversion:
    r"""Converts a source into the directory `out`, which appears only when it is complete.

    Args:
        name: The kind of source: digits, folder, csv and so on; or your own, FILE.py:NAME.
        out: Directory to make; if it exists, it must be empty.
        source: The raw files: a directory or, where NAME allows it, a file. Default: download, if the source can.
        on_error: If pictures cannot be used: stop after all are checked, or skip; either way rejected.csv lists them.
        label_regex: For folder: finds the class in a file name, as the only group, such as '^(\w+)\.' in cat.0.jpg.
        channels: 1: grey; 3: RGB; 2 or 4 to 16: all channels as they are, also of a TIFF with a page for each. Default:
            as the source has it, or its first picture, if that is an array or a TIFF of bands.
        short_side: Shrink larger pictures, so that the shorter side has N pixels.
        max_pixels: Reject a picture whose header has more pixels.
        sample_range: Samples of more than 8 bits that become 0 and 255, such as 0 10000. Default: as the files declare,
            or 0 65535 for those of 16 bits.
        processes: Number of processes that decode. Default: one for each core. The result does not depend on it.
        on_duplicates: Equal pictures in several splits or classes: list them, stop, or drop all but those to test with.

    Raises:
        UserError: an unknown name, an `out` that contains files, files that are missing or damaged, a class without
            training pictures, a split without pictures.
    """
    out, source = expand(out), source and expand(source)
    options = dict(locals())
    check_values(options, get_type_hints(convert, include_extras=True))
    if sample_range and not (sample_range[0] < sample_range[1] and np.isfinite(sample_range).all()):
        raise UserError(
            f"--sample-range is {sample_range[0]:g} {sample_range[1]:g}; the first must be below the second"
        )
    name = own_code.named(name)
    reader = find_source(name)
    if label_regex is not None and name != "folder":
        raise UserError(f"--label-regex belongs to folder, not to {name}")
    source_path = _source_path(name, out, source)
    list_outside = Path(f"{os.path.abspath(out)}.{REJECTED_CSV}")  # for a conversion that fails
    if os.path.lexists(list_outside) and not _is_list(list_outside):
        raise UserError(f"{list_outside} is where pictures that cannot be used would be listed; move it away")
    with atomic_directory(out) as directory, _opened(name, source_path, directory) as place:
        of_source = {} if label_regex is None else {"label_regex": label_regex}
        data = reader(place, pooch.os_cache("slimgraph") / own_code.attribute(name), **of_source)
        for class_name in data.class_names:
            if not is_text(class_name):
                raise UserError(f"the name of the class {class_name!r} is no text in UTF-8; rename it")
        if source_path:
            listing.save(listing.list_source(name, source_path), directory)
        data, conflicts = _split(data, source or name, on_duplicates, directory)
        channels = channels or (data.channels if own_code.is_own(name) else _first_channels(data))
        pictures = images.PictureFormat(channels, short_side, max_pixels, sample_range)
        settings = Settings(data.class_names, pictures)
        totals = _Totals(name, data, settings)
        with Pool(processes or os.cpu_count(), sum(map(len, data.splits.values())), settings) as pool:
            for split in SPLITS:
                totals.write(split, pool, directory)
        changed = _changed(options)
        _check(totals, command(name, source, out, changed), on_error == "skip", directory / REJECTED_CSV, list_outside)
        totals.moments.save_pixel_statistics(directory)
        description = json.dumps(totals.description(source_path, changed), indent=2)
        (directory / tfrecord.DATASET_JSON).write_text(description + "\n")
    if _is_list(list_outside):
        list_outside.unlink()  # of an earlier conversion that failed
    counts = {split: part["examples"] for split, part in totals.splits.items()}
    rest = len(totals.rejected), data.ignored or {}, totals.balance, conflicts, channels
    return Conversion(out, data.class_names, counts, *rest)


def find_source(name: str) -> Callable[..., Source]:
    """A function of SOURCES, or for an absolute FILE.py:NAME the user's. Raises UserError for an unknown name."""
    if own_code.is_own(name):
        return own_source(name)
    if name not in SOURCES:
        raise unknown("data set", name, SOURCES)
    return SOURCES[name]


def _first_channels(data: Source) -> int:
    """The number of channels of the first picture that can be read, where that is an array or a TIFF of bands; else
    the source's. Raises UserError where the layout of an array is not clear."""
    examples = next((data.splits[split] for split in SPLITS if data.splits.get(split)), [])
    for example in examples[:FIRST]:
        if isinstance(example.image, np.ndarray):
            break
        try:
            content = example.read()
        except (OSError, images.ImageError):  # it is rejected later, with the reason
            continue
        try:
            return bands.channels_of(content) or data.channels
        except UserError as error:
            raise UserError(f"{example.filename}: {error}") from None
    return data.channels


def _opened(name: str, source: Path | None, scratch: Path) -> AbstractContextManager[Path | Place | None]:
    """What the reader gets: the source, or the folder in an archive. `scratch` is for its temporary file."""
    is_archive = name in ARCHIVE_SOURCES and source is not None and source.is_file()
    return archives.opened(source, scratch) if is_archive else nullcontext(source)


def _split(data: Source, origin: str, on_duplicates: str, directory: Path) -> tuple[Source, list[list[Duplicate]]]:
    """The data with all splits, and the equal pictures in several splits or under several classes that are left.

    Writes duplicates.csv, if there are or were any. Raises UserError if there are any, and `on_duplicates` is stop.
    """
    copies, dropped = duplicates.find_copies(data), []
    if on_duplicates == "drop" and (dropped := duplicates.find_conflicts(data, copies)):
        data, origin = duplicates.without_conflicts(data, dropped), f"{origin} without duplicates"
    data = with_all_splits(data, origin, copies)
    conflicts = duplicates.find_conflicts(data, copies)
    if on_duplicates == "stop" and conflicts:
        listed = f"--on-duplicates note, which lists them in {duplicates.DUPLICATES_CSV}"
        advice = f"remove them, leave them out with --on-duplicates drop, or keep them with {listed}"
        raise UserError(f"{duplicates.describe(conflicts)}; {advice}")
    duplicates.write([*dropped, *conflicts], directory)
    return data, conflicts


def _source_path(name: str, out: str, source: str | None) -> Path | None:
    """The path of the raw files. Raises UserError if it does not exist, is no directory, or contains `out`."""
    if not source:
        return None
    path = Path(source)
    if not os.path.exists(path):  # Path.exists raises on a name that is too long
        raise UserError(f"--source {source} does not exist")
    if not own_code.is_own(name) and not (path.is_file() and name in FILE_SOURCES):
        if not path.is_dir():
            archive = f"archives are for {' and '.join(ARCHIVE_SOURCES)}, tables for csv; unpack others"
            raise UserError(f"--source {source} is no directory; {archive}")
        if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(path)):
            place = f"--out {out} is in --source {source}"
            raise UserError(f"{place} and would become part of it; choose another directory")
    return path


def _changed(given: dict[str, object]) -> dict[str, object]:
    """The options of a conversion that change the records and are not the default."""
    parameters, places = inspect.signature(convert).parameters, ("name", "out", "source", "processes")
    return {key: value for key, value in given.items() if key not in places and value != parameters[key].default}


def command(name: str, source: str | None, out: str, options: dict[str, object]) -> list[str]:
    """The words of the command line of a conversion."""
    words = [*(["--source", source] if source else []), "--out", out]
    for key, value in options.items():
        values = [f"{each:g}" for each in value] if isinstance(value, tuple | list) else [str(value)]
        words += [flag(key), *values]
    return ["python", "-m", "pipeline.convert", name, *words]


def _check(totals: _Totals, command: list[str], skip: bool, list_inside: Path, list_outside: Path) -> None:
    """Writes rejected.csv, if pictures are rejected. Raises UserError if the data set cannot be used.

    command is the beginning of the command line that the remedy names.
    """
    rejected, missing = totals.rejected, totals.missing()
    if rejected:
        path = list_inside if skip and not missing else list_outside
        with atomic_write(path) as partial, partial.open("w", newline="", errors="surrogateescape") as file:
            csv.writer(file).writerows([Rejected._fields, *rejected])
    stored = sum(part["examples"] for part in totals.splits.values())
    if rejected and not skip:
        leave_out = f", or leave them out: {shlex.join([*command, '--on-error', 'skip'])}" if stored else ""
        advice = f"repair or remove them{leave_out}"
        first = f"the first is {rejected[0].file}: {rejected[0].reason}"
        listed = f"All are listed in {list_outside}"
        whole = len(rejected) + stored
        raise UserError(f"{len(rejected)} of {whole} pictures cannot be used, {first}. {listed}; {advice}")
    if totals.highest is not None and totals.highest < DARK:
        remedy = shlex.join([*command, "--sample-range", "0", str(10 ** len(str(totals.highest)))])
        raise UserError(
            f"the highest sample of the training pictures is {totals.highest:,}; scaled by {bands.FULL_RANGE:,}, to "
            f"{round(totals.highest * 255 / bands.FULL_RANGE)} of 255 at most, they would be nearly black. Name the "
            f"values that become 0 and 255, such as: {remedy}; or 0 {bands.FULL_RANGE} to keep them so"
        )
    if totals.settings.pictures.sample_range and totals.moments.count:
        mean = totals.moments.channel_statistics()["mean"]
        if max(mean) < BLACK or min(mean) > 255 - BLACK:
            given = " ".join(f"{each:g}" for each in totals.settings.pictures.sample_range)
            colour = f"{'black' if max(mean) < BLACK else 'white'} (mean {np.mean(mean):.1f} of 255)"
            raise UserError(
                f"with --sample-range {given} the training pictures come out {colour}; name the lowest and the highest "
                "value of the samples"
            )
    if missing:
        raise UserError(
            f"{missing}; {len(rejected)} {'was' if len(rejected) == 1 else 'were'} rejected"
            + (f", see {list_outside}" if rejected else "")
        )


def _is_list(path: Path) -> bool:
    """Whether a file was written by _check, and is no file of the user."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.readline().strip() == ",".join(Rejected._fields).encode()
