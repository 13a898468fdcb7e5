"""Reads every record of a data set, compares it with dataset.json, and names faults by shard and byte.

Checks each record's CRCs, its label, and its picture, which is decoded as in training; prints the number of pictures of
each class. The exit code is 2 where there are faults.
"""

import argparse
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

import errors

if __name__ == "__main__":
    errors.quit_on_signals()

import own_code
from errors import UserError, printable
from files import check_output, expand, expand_data, os_errors_as_user_errors
from pipeline import montage, storage, tfrecord
from pipeline.balance import counted, describe
from pipeline.corruption import Examiner
from pipeline.dataset import Dataset
from pipeline.index import Content, is_damaged, known_contents, stored_index
from pipeline.labels import Located, label_mistake, name_mistake
from pipeline.preprocess import FAMILIES, Preprocessor, find_family
from pipeline.records import NO_LABEL, NOTE, Fault, note
from pipeline.slim_directory import LABELS_TXT, left_out
from pipeline.splits import Split, members
from pipeline.tfrecord import SPLITS
from sizes import sides, size_argument

MISSING = "it is missing; the names of other shards speak of it"
EMPTY = "it is empty (0 bytes); fetch it again"
MOST_MISSING = 10  # shards of a split, that are named


class Examined(NamedTuple):
    """What a shard holds."""

    content: Content
    labels: np.ndarray  # int64 [records], NO_LABEL for a faulty record
    faults: list[Fault]


def check(dataset: Dataset) -> tuple[dict[str, Counter], list[Fault], str | None]:
    """Reads every record.

    Returns, for each split, the number of sound records by label; all faults; and what to do about labels without a
    class, where there are such.
    """
    balance, faults = {}, []
    examined: dict[str, Examined] = {}  # TF-Slim data without validation: both splits are in the same shards
    index = known_contents(dataset.directory)
    with Examiner(dataset) as examiner:
        for name, split in ((name, dataset.splits[name]) for name in SPLITS if name in dataset.splits):
            new = [shard for shard in split.shards if shard.file not in examined]
            with tqdm(total=sum(s.examples for s in new), desc=name, unit="record", disable=None) as progress:
                for shard in new:
                    path, known = os.path.join(dataset.directory, shard.file), index.get(shard.file)
                    examined[shard.file] = _check_shard(path, shard.examples, known, examiner, progress.update)
                    faults += examined[shard.file].faults
            faults += _missing(dataset.directory, split) if new else []
            balance[name] = _labels(split, [examined[shard.file] for shard in split.shards])
    shards = [Located(os.path.join(dataset.directory, file), each.content) for file, each in examined.items()]
    contradiction = name_mistake(shards, [], dataset.names) if shards else None
    return balance, [*faults, *filter(None, [contradiction])], label_mistake(shards, dataset.names) if shards else None


def _missing(directory: str, split: Split) -> Iterator[Fault]:
    """The faults of shards that are missing or empty."""
    empty = {shard.file for shard in split.shards}
    for file in split.missing[:MOST_MISSING]:
        yield Fault(os.path.join(directory, file), None, EMPTY if file in empty else MISSING)
    if more := len(split.missing[MOST_MISSING:]):
        yield Fault(directory, None, f"{more:,} more shards are missing or empty")


def _labels(split: Split, shards: list[Examined]) -> Counter:
    """The number of sound records of a split by label."""
    if not shards:
        return Counter()
    labels = np.concatenate([shard.labels for shard in shards])
    chosen = members(split, np.concatenate([shard.content.notes for shard in shards]))
    return Counter(labels[chosen & (labels != NO_LABEL)].tolist())


def _check_shard(path: str, expected: int, known: Content | None, examiner: Examiner, update: Callable) -> Examined:
    """Reads a shard; its faults are also those against dataset.json and the stored index."""
    offsets, notes, labels, faults = [], [], [], []
    try:
        for found, fault, label in _examined(path, examiner):
            faults += [fault] if fault else []
            labels.append(NO_LABEL if fault else label)
            notes.append(note(found.payload, examiner.keys))
            offsets.append(found.offset)
            update()
    except OSError as error:
        faults.append(Fault(path, None, f"the file cannot be read ({error.strerror})"))
    else:
        faults += _differences(path, expected, known, offsets, {fault.offset for fault in faults}, examiner.counted_in)
    return Examined(Content(np.array(offsets, np.int64), {}, np.array(notes, NOTE)), np.array(labels, np.int64), faults)


def _differences(
    path: str, expected: int, known: Content | None, offsets: list[int], faulty: set[int], counted_in: str
) -> Iterator[Fault]:
    """Faults of a shard that is not as the stored index and counted_in, which states the records, have it."""
    if len(offsets) > expected:
        yield Fault(path, None, f"holds {len(offsets)} records; {counted_in} says {expected}")
    if len(offsets) < expected:
        end, _ = storage.stamp(path)
        yield Fault(path, end, f"it is missing; the file ends after {len(offsets)} of {expected} records")
    if known and (known.offsets.tolist() != offsets or not {offsets[row] for row in known.faults} <= faulty):
        stored = stored_index(os.path.dirname(path))
        yield Fault(path, None, f"{stored} does not agree with it; remove that file, it is made anew")


def _examined(path: str, examiner: Examiner) -> Iterator[tuple[tfrecord.Found, Fault | None, int | None]]:
    """Each record of a shard in order, its fault, and its label."""
    records = tfrecord.walk(path, storage.open_file)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        while block := list(islice(records, 256)):  # all at once would fill the memory
            examined = threads.map(lambda found: examiner.fault(path, found), block)
            for found, result in zip(block, examined, strict=True):
                yield found, *result


def parse_command_line() -> argparse.Namespace:
    """The arguments of this command."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shards = "shards with their dataset.json, or of TF-Slim or TensorFlow Datasets; also in a remote place, gs://…"
    parser.add_argument("directory", type=expand_data, metavar="DIR", help=shards)
    parser.add_argument("--montage", type=expand, metavar="PNG", help="draw a sheet of labelled samples")
    augment = f"also draw training's inputs of the samples: {', '.join(FAMILIES)}, or FILE.py:NAME"
    parser.add_argument("--augment", metavar="FAMILY", help=augment)
    size = {"type": size_argument, "default": 224, "metavar": "N|HxW"}
    parser.add_argument("--image-size", **size, help="size for --augment, such as 224 or 224x320 (default: 224)")
    parser.add_argument("--split", choices=SPLITS, help="split of the samples (default: train, where there is one)")
    return parser.parse_args()


@os_errors_as_user_errors()
def main() -> None:
    """The command line."""
    args = parse_command_line()
    if args.augment:
        args.augment = own_code.named(args.augment)
        find_family(args.augment)
    if args.augment and not args.montage:
        raise UserError("--augment belongs to --montage, such as --montage samples.png")
    if not all(1 <= side <= 4096 for side in sides(args.image_size)):
        raise UserError(f"--image-size is {args.image_size}; it must be 1 to 4096")
    if args.montage:
        check_output("--montage", args.montage, ".png")
    dataset = Dataset.load(args.directory)
    if not any(map(dataset.size, dataset.splits)):
        raise UserError(f"{args.directory} holds no records; convert the data again")
    if is_damaged(args.directory):
        stored = stored_index(args.directory)
        print(f"{stored} is damaged, edited or of another version; it is not used, and training makes it anew")
    if os.path.basename(dataset.names.file) == LABELS_TXT and (names := left_out(args.directory)):
        print(f"left out, since their names have no split such as train or test: {printable(', '.join(names))}")
    if splits := dataset.description.get("left_out"):
        print(f"left out: the splits {printable(', '.join(splits))}")
    balance, faults, remedy = check(dataset)
    print(describe(balance, dataset.class_names))
    for line in faults:
        print(printable(str(line)))
    if args.montage:
        to = (args.augment, args.image_size, dataset.channels, dataset.statistics)
        montage.draw(args.montage, dataset, args.split, Preprocessor(*to) if args.augment else None)
        print(f"wrote {args.montage}")
    records = sum(counts.total() for counts in balance.values())
    whole = not any(fault.reason.endswith(tfrecord.LOST) for fault in faults)  # no record replaces those that are lost
    if faults:
        advice = "mend the named files, or convert the data again"
        if remedy:
            advice = remedy
        elif records and whole and all(fault.offset is not None and fault.replaceable for fault in faults):
            advice = "convert the data again, or replace them by other records: python train.py … --on-error skip"
        raise UserError(f"{counted(len(faults), 'fault')} in {args.directory}, named above; {advice}")
    print(f"{args.directory}: all {records:,} records are sound")


if __name__ == "__main__":
    with errors.reported():
        main()
