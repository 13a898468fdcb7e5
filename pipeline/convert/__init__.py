"""Makes TFRecord shards and dataset.json from raw pictures.

    python -m pipeline.convert NAME --out DIR [--source RAW]

NAME is one of
  digits         embedded in scikit-learn
  mnist          the four IDX .gz files; downloaded without --source, as are the next two
  fashion_mnist  the same format
  cifar10        the binary version, data_batch_*.bin and test_batch.bin
  signs          HDF5 files with train_set_x, train_set_y, test_set_x, test_set_y and list_classes
  flowers        TensorFlow's flower_photos, downloaded without --source, or a folder like it
  folder         one folder of pictures for each class, in train/ and test/ folders or without; or all in one folder
                 with --label-regex '^(\\w+)\\.', as Kaggle's cat.0.jpg
  csv            a table with a header: path,label[,split], or label,pixel0,pixel1,… as Kaggle's digits
  imagenet       LOC_synset_mapping.txt, and pictures whose name begins with a synset or whose folder is called by one;
                 all become the test split, to evaluate published weights on

Every picture is decoded before it is stored. Those that cannot be are listed with the reason in rejected.csv. TF-Slim's
own TFRecords with labels.txt need no conversion: name their directory with train.py --data.
"""

import argparse
import csv
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

import pooch
from tqdm import tqdm

import errors
from errors import UserError
from files import atomic_directory, atomic_write, os_errors_as_user_errors, read_regular
from pipeline import images, tfrecord
from pipeline.convert.sources import SOURCES, SPLITS, Example, Source
from pipeline.convert.sources.contract import is_text
from pipeline.images import ImageError
from pipeline.statistics import Moments

REJECTED_CSV = "rejected.csv"
CHUNK = 64  # examples handed to a process at a time
FEW = 1000  # so many are done sooner here than new processes are up


class Settings(NamedTuple):
    """What a process needs to know to store a picture."""

    class_names: list[str]
    channels: int
    short_side: int | None
    max_pixels: int


class Rejected(NamedTuple):
    """A picture that is not stored."""

    file: str
    split: str
    label: str
    reason: str


class Chunk(NamedTuple):
    """What a process gives back for some examples of a split."""

    records: list[bytes]
    labels: list[int]
    rejected: list[Rejected]
    moments: Moments | None  # of training pictures
    examples: int


@os_errors_as_user_errors()
def convert(
    name: str,
    out: str,
    source: str | None = None,
    on_error: str = "stop",
    *,
    label_regex: str | None = None,
    channels: int | None = None,
    short_side: int | None = None,
    max_pixels: int = images.MAX_PIXELS,
    processes: int | None = None,
) -> dict:
    """Converts a source into the directory `out`, which appears only when it is complete.

    Args:
        name: key of SOURCES.
        out: directory to make; it may exist only if it is empty.
        source: raw files, a directory or for csv a file; None downloads what is known.
        on_error: what to do when pictures do not decode: 'stop' with an error once all are looked at, or 'skip' them.
        label_regex: for folder: finds the class in the name of a file, as its only group.
        channels: 1 stores grey, 3 RGB; None what the source has.
        short_side: pictures with a longer shorter side are shrunk to it.
        max_pixels: a header that promises more is rejected.
        processes: how many decode; None takes all cores. The result does not depend on it.

    Returns:
        The content of dataset.json.

    Raises:
        UserError: an unknown name, an `out` that holds files, files that are missing or damaged, a class without
            training pictures, a split without pictures.
    """
    if name not in SOURCES:
        raise errors.unknown("data set", name, SOURCES)
    if label_regex is not None and name != "folder":
        raise UserError(f"--label-regex belongs to folder, not to {name}")
    for flag, value in (("--short-side", short_side), ("--max-pixels", max_pixels), ("--processes", processes)):
        if value is not None and value < 1:
            raise UserError(f"{flag} is {value}; it must be at least 1")
    source_path = Path(source) if source else None
    if source_path and not os.path.exists(source_path):  # Path.exists fails on what is too long
        raise UserError(f"--source {source} does not exist")
    if source_path and name != "csv":
        if not source_path.is_dir():
            raise UserError(f"--source {source} is no directory")
        if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(source_path)):
            raise UserError(f"--out {out} lies in --source {source}, and would be part of it; choose another directory")
    beside = Path(f"{os.path.abspath(out)}.{REJECTED_CSV}")
    if os.path.lexists(beside) and not _is_list(beside):
        raise UserError(f"{beside} is where pictures that cannot be used would be listed; move it away")
    options = {"label_regex": label_regex} if label_regex is not None else {}
    with atomic_directory(out) as unfinished:
        data = SOURCES[name](source_path, pooch.os_cache("slimgraph") / name, **options)
        for class_name in data.class_names:
            if not is_text(class_name):
                raise UserError(f"the name of the class {class_name!r} is no text in UTF-8; rename it")
        settings = Settings(data.class_names, channels or data.channels, short_side, max_pixels)
        moments, rejected, splits, left = Moments(settings.channels), [], {}, set()

        def records(chunks: Iterator[Chunk], progress: tqdm) -> Iterator[bytes]:
            for chunk in chunks:
                if chunk.moments:
                    moments.merge(chunk.moments)
                    left.update(chunk.labels)
                rejected.extend(chunk.rejected)
                yield from chunk.records
                progress.update(chunk.examples)

        with Pool(processes or os.cpu_count(), sum(map(len, data.splits.values())), settings) as pool:
            for split in SPLITS:
                examples = data.splits.get(split, [])
                with tqdm(total=len(examples), desc=f"{name} {split}", unit="picture", disable=None) as progress:
                    rows = records(pool.stored(split, examples), progress)
                    shards = tfrecord.write_shards(rows, unfinished, f"{name}_{split}")
                splits[split] = {"examples": sum(s["examples"] for s in shards), "shards": shards}
        trouble = _trouble(data, splits, left)
        if rejected:
            _write_list(unfinished / REJECTED_CSV if on_error == "skip" and not trouble else beside, rejected)
        if rejected and on_error != "skip":
            raise UserError(
                f"{len(rejected)} of the pictures cannot be used, the first is {rejected[0].file}: "
                f"{rejected[0].reason}. All are listed in {beside}; mend or remove them, or leave them out: "
                "python -m pipeline.convert … --on-error skip"
            )
        if trouble:
            raise UserError(f"{trouble}; {len(rejected)} were rejected" + (f", as {beside} lists" if rejected else ""))
        dataset = {
            "name": name,
            "source": str(source_path.resolve()) if source_path else None,
            "class_names": data.class_names,
            "channels": settings.channels,
            "short_side": short_side,
            "splits": splits,
            "statistics": moments.channel_statistics() if moments.count else None,
            "rejected": len(rejected),
            "ignored": data.ignored or {},
        }
        moments.save_pixel_statistics(unfinished)
        (unfinished / tfrecord.DATASET_JSON).write_text(json.dumps(dataset, indent=2) + "\n")
    if _is_list(beside):
        beside.unlink()  # of a try before
    return dataset


def _is_list(path: Path) -> bool:
    """Whether a file is one that _write_list wrote, and no file of the user's."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.readline().strip() == ",".join(Rejected._fields).encode()


def _write_list(path: Path, rejected: list[Rejected]) -> None:
    with atomic_write(path) as partial, partial.open("w", newline="", errors="surrogateescape") as file:
        csv.writer(file).writerows([Rejected._fields, *rejected])


def _trouble(data: Source, splits: dict, left: set[int]) -> str | None:
    """Why what is left cannot be trained on, or evaluated on where there is a test split alone."""
    train = {example.label for example in data.splits.get("train", [])}
    empty = [data.class_names[label] for label in sorted(train - left)]
    if empty:
        return f"every training picture was rejected of {', '.join(empty)}"
    for split in ("train", "validation") if "train" in data.splits else ("test",):
        if not splits[split]["examples"]:
            return f"no picture is left for the {split} split"
    return None


class Pool:
    """Processes that decode, or none where the examples are few."""

    def __init__(self, processes: int, examples: int, settings: Settings):
        self.settings, self.ahead, self.executor = settings, 4 * processes, None
        if processes > 1 and examples > FEW:
            # Spawned, not forked: whoever calls convert() may hold threads, such as TensorFlow's.
            self.executor = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _start_process)

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        if self.executor:
            self.executor.shutdown(cancel_futures=True)

    def stored(self, split: str, examples: list[Example]) -> Iterator[Chunk]:
        """The chunks in order, a few worked on ahead of the one that is asked for."""
        chunks = [examples[i : i + CHUNK] for i in range(0, len(examples), CHUNK)]
        if not self.executor:
            yield from (store_chunk(split, chunk, self.settings) for chunk in chunks)
            return
        pending: deque[tuple[list[Example], Future]] = deque()
        try:
            for chunk in chunks:
                pending.append((chunk, self.executor.submit(store_chunk, split, chunk, self.settings)))
                if len(pending) == self.ahead:
                    oldest, future = pending.popleft()
                    yield future.result()
            while pending:
                oldest, future = pending.popleft()
                yield future.result()
        except BrokenProcessPool:
            raise UserError(
                f"a process was killed while it read one of {oldest[0].filename} to {oldest[-1].filename}, or a few "
                "after them; is there too little memory? --processes 1 takes less"
            ) from None


def _start_process() -> None:
    """Ctrl-C is for the process that writes; and where that one is killed, this one ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        wait([multiprocessing.parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def store_chunk(split: str, examples: list[Example], settings: Settings) -> Chunk:
    """Decodes and serializes examples."""
    records, labels, rejected = [], [], []
    moments = Moments(settings.channels) if split == "train" else None
    for example in examples:
        class_name = settings.class_names[example.label]
        try:
            image = _stored(example, settings)
        except (ImageError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            rejected.append(Rejected(example.filename, split, class_name, reason))
            continue
        if moments:
            moments.add(image.pixels)
        records.append(tfrecord.serialize(image, example.label, class_name, example.filename))
        labels.append(example.label)
    return Chunk(records, labels, rejected, moments, len(examples))


def _stored(example: Example, settings: Settings) -> images.StoredImage:
    if isinstance(example.image, Path):
        return images.store(read_regular(example.image), settings.channels, settings.short_side, settings.max_pixels)
    image = images.encode_png(example.image)
    if image.pixels.shape[2] == settings.channels and settings.short_side is None:
        return image
    return images.store(image.data, settings.channels, settings.short_side, settings.max_pixels)


def parse_command_line() -> argparse.Namespace:
    """The arguments of this command."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help=f"one of {', '.join(SOURCES)}")
    parser.add_argument("--out", required=True, metavar="DIR", help="directory to make")
    parser.add_argument("--source", metavar="RAW", help="raw files that are already on disk")
    parser.add_argument("--label-regex", metavar="REGEX", help="folder: finds the class in a file's name, as its group")
    parser.add_argument("--channels", type=int, choices=[1, 3], help="store grey or RGB (default: what the source has)")
    parser.add_argument("--short-side", type=int, metavar="N", help="shrink what has a longer shorter side to N pixels")
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=images.MAX_PIXELS,
        metavar="N",
        help="reject a picture whose header promises more (default: %(default)s)",
    )
    parser.add_argument(
        "--on-error",
        choices=["stop", "skip"],
        default="stop",
        help="pictures that cannot be used end the conversion, once all are looked at, or are left out; either way "
        f"{REJECTED_CSV} lists them (default: stop)",
    )
    parser.add_argument("--processes", type=int, metavar="N", help="how many decode (default: one for each core)")
    return parser.parse_args()


def main() -> None:
    """The command line."""
    args = vars(parse_command_line())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is half made is removed
    dataset = convert(args.pop("name"), **args)
    counts = ", ".join(f"{part['examples']:,} {split}" for split, part in dataset["splits"].items())
    print(f"{args['out']}: {counts}; {len(dataset['class_names'])} classes; {dataset['rejected']} pictures rejected")
    if dataset["rejected"]:
        print(f"{os.path.join(args['out'], REJECTED_CSV)} says which and why")
    if dataset["ignored"]:
        endings = ", ".join(f"{number} {ending}" for ending, number in dataset["ignored"].items())
        print(f"left out: {endings}")


if __name__ == "__main__":
    with errors.reported():
        main()
