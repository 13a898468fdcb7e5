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

from tqdm import tqdm

import errors

if __name__ == "__main__":
    errors.quit_on_signals()

from errors import UserError
from files import check_output, expand, os_errors_as_user_errors
from pipeline import montage, tfrecord
from pipeline.balance import describe
from pipeline.corruption import Examiner, Fault
from pipeline.dataset import Dataset
from pipeline.index import Content, known_contents, stored_index
from pipeline.preprocess import FAMILIES, Preprocessor, find_family
from pipeline.tfrecord import SPLITS


def check(dataset: Dataset) -> tuple[dict[str, Counter], list[Fault]]:
    """Reads every record. Returns, for each split, the number of sound records by label; and all faults."""
    balance, faults = {}, []
    seen: dict[str, Counter] = {}  # TF-Slim data without validation: both splits are in the same shards
    index = known_contents(dataset.directory)
    with Examiner(dataset.channels, len(dataset.class_names)) as examiner:
        for name in SPLITS:
            if name not in dataset.splits:
                continue
            split, balance[name] = dataset.splits[name], Counter()
            with tqdm(total=split.examples, desc=name, unit="record", disable=None) as progress:
                for shard in split.shards:
                    if shard.file not in seen:
                        labels = seen[shard.file] = Counter()
                        path, known = os.path.join(dataset.directory, shard.file), index.get(shard.file)
                        try:
                            faults += _check_shard(path, shard.examples, known, examiner, labels, progress.update)
                        except OSError as error:
                            faults.append(Fault(path, None, f"the file cannot be read ({error.strerror})"))
                    balance[name].update(seen[shard.file])
    return balance, faults


def _check_shard(
    path: str, expected: int, known: Content | None, examiner: Examiner, labels: Counter, update: Callable
) -> Iterator[Fault]:
    """The faults of a shard, also against dataset.json and the stored index; counts the labels of sound records."""
    offsets, faulty = [], set()
    for offset, reason, label in _examined(path, examiner):
        if reason:
            yield Fault(path, offset, reason)
            faulty.add(len(offsets))
        else:
            labels[label] += 1
        offsets.append(offset)
        update()
    if len(offsets) > expected:
        yield Fault(path, None, f"holds {len(offsets)} records; dataset.json says {expected}")
    if len(offsets) < expected:
        end = os.path.getsize(path)
        yield Fault(path, end, f"it is missing; the file ends after {len(offsets)} of {expected} records")
    if known and (known.offsets.tolist() != offsets or not known.faults.keys() <= faulty):
        stored = stored_index(os.path.dirname(path))
        yield Fault(path, None, f"{stored} does not agree with it; remove that file, it is made anew")


def _examined(path: str, examiner: Examiner) -> Iterator[tuple[int, str | None, int | None]]:
    """Offset, reason why it is corrupt, and label of each record of a shard, in order."""
    records = tfrecord.walk(path)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        while block := list(islice(records, 256)):  # all at once would fill the memory
            for found, examined in zip(block, threads.map(examiner.reason, block), strict=True):
                yield found.offset, *examined


def parse_command_line() -> argparse.Namespace:
    """The arguments of this command."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shards = "shards with their dataset.json, or TF-Slim's with labels.txt"
    parser.add_argument("directory", type=expand, metavar="DIR", help=shards)
    parser.add_argument("--montage", type=expand, metavar="PNG", help="draw a sheet of labelled samples")
    augment = f"also draw training's inputs of the samples: {', '.join(FAMILIES)}"
    parser.add_argument("--augment", metavar="FAMILY", help=augment)
    parser.add_argument("--image-size", type=int, default=224, metavar="N", help="size for --augment (default: 224)")
    parser.add_argument("--split", choices=SPLITS, help="split of the samples (default: train, where there is one)")
    return parser.parse_args()


@os_errors_as_user_errors()
def main() -> None:
    """The command line."""
    args = parse_command_line()
    if args.augment:
        find_family(args.augment)
    if args.augment and not args.montage:
        raise UserError("--augment belongs to --montage, such as --montage samples.png")
    if not 1 <= args.image_size <= 4096:
        raise UserError(f"--image-size is {args.image_size}; it must be 1 to 4096")
    if args.montage:
        check_output("--montage", args.montage, ".png")
    dataset = Dataset.load(args.directory)
    if not any(map(dataset.size, dataset.splits)):
        raise UserError(f"{args.directory} holds no records; convert the data again")
    balance, faults = check(dataset)
    print(describe(balance, dataset.class_names))
    for line in faults:
        print(line)
    if args.montage:
        to = (args.augment, args.image_size, dataset.channels, dataset.statistics)
        montage.draw(args.montage, dataset, args.split, Preprocessor(*to) if args.augment else None)
        print(f"wrote {args.montage}")
    records = sum(counts.total() for counts in balance.values())
    if faults:
        advice = "mend the named files, or convert the data again"
        if records and all(fault.offset is not None for fault in faults):
            advice = "convert the data again, or replace them by other records: python train.py … --on-error skip"
        raise UserError(f"{len(faults)} faults in {args.directory}, named above; {advice}")
    print(f"{args.directory}: all {records:,} records are sound")


if __name__ == "__main__":
    with errors.reported():
        main()
