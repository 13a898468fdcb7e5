"""Reads every record of a data set, compares them with dataset.json, and names what is wrong by shard and byte.

    python -m pipeline.check DIR [--montage out.png [--augment FAMILY]]

Looks at each record's CRCs, its label, and the picture, which is decoded as training decodes it; prints how many
pictures each class has. --montage draws a sheet of labelled samples, --augment what training makes of them. Exit code 2
says that something is wrong.
"""

import argparse
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from tqdm import tqdm

import errors
from errors import UserError
from files import check_output, os_errors_as_user_errors
from pipeline import shard_index, tfrecord
from pipeline.batches import Batches
from pipeline.convert.sources.contract import SPLITS
from pipeline.dataset import Index, load_dataset
from pipeline.pictures import decode
from pipeline.preprocess import PREPROCESSINGS
from pipeline.shard_index import Content
from tfcompat import tf

FEW_CLASSES = 50  # are all printed; of more, the largest and the smallest


class Fault(NamedTuple):
    """What is wrong with a record, for which another can stand in; or, without offset, with a shard."""

    path: str
    offset: int | None
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {'' if self.offset is None else f'the record at byte {self.offset}: '}{self.reason}"


class Examiner:
    """Looks into the payload of records: is it a labelled picture that training can decode?"""

    def __init__(self, channels: int, num_classes: int):
        self.num_classes = num_classes
        with tf.Graph().as_default() as graph:
            self.encoded = tf.placeholder(tf.string, [])
            self.pixels = decode(self.encoded, channels)
        self.session = tf.Session(graph=graph)

    def __enter__(self) -> "Examiner":
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def reason(self, payload: bytes) -> tuple[str | None, int | None]:
        """What is wrong with a payload, None for nothing; and its label, where there is one."""
        try:
            features = tf.train.Example.FromString(payload).features.feature
        except DecodeError:
            return "it is no tf.train.Example", None
        labels = features["image/class/label"].int64_list.value
        pictures = features["image/encoded"].bytes_list.value
        if len(labels) != 1:
            return "it has no image/class/label", None
        if not 0 <= labels[0] < self.num_classes:
            return f"its label is {labels[0]}; the classes are 0 to {self.num_classes - 1}", labels[0]
        if len(pictures) != 1:
            return "it has no image/encoded", labels[0]
        try:
            pixels = self.session.run(self.pixels, {self.encoded: pictures[0]})
        except tf.errors.OpError as error:
            return f"its picture cannot be decoded ({_told(error.message)})", labels[0]
        if not pictures[0].startswith((b"\xff\xd8\xff", b"\x89PNG")):  # TensorFlow decodes GIF, but not a part of it
            return "its picture is neither JPEG nor PNG", labels[0]
        for axis, key in enumerate(("image/height", "image/width")):
            stored = features[key].int64_list.value
            if stored and stored[0] != pixels.shape[axis]:
                return f"{key} is {stored[0]}; its picture has {pixels.shape[axis]}", labels[0]
        return None, labels[0]


def _told(message: str) -> str:
    """What TensorFlow's decoder says, without where in the graph it says so."""
    return re.sub(r"(?s)^Graph execution error:.*\nNode: [^\n]*\n", "", message).partition("\n")[0].strip()[:120]


class Records:
    """The batches of a split, and what to do when one of its records turns out to be corrupt while they are read."""

    def __init__(
        self,
        batches: Batches,
        index: Index,
        reload: Callable[[], Index],
        directory: str,
        dataset: dict,
        on_error: str,
    ):
        self.batches, self.index, self.reload = batches, index, reload
        self.directory, self.dataset, self.on_error = directory, dataset, on_error

    def attempt(self, session: tf.Session, call: Callable, rows: Callable[[], Iterable[int]], step: int) -> Any:
        """What `call` returns. Where TensorFlow fails in it, the corrupt records among `rows` are looked for.

        Args:
            session: that `call` runs in.
            call: reads batches.
            rows: gives the rows, in the index, of what `call` reads.
            step: where batches start again once others stand in for the corrupt records.

        Raises:
            UserError: names the first corrupt record, where on_error is 'stop' or it cannot be noted in the index.
            tf.errors.OpError: where no record is to blame.
        """
        while True:
            try:
                return call()
            except (tf.errors.OpError, UnicodeDecodeError) as error:  # what TensorFlow cites of a record may be no text
                faults = self._faults(rows())
                if not faults:
                    raise
                if self.on_error == "stop":
                    raise UserError(
                        f"{faults[0]}. python -m pipeline.check {self.directory} names all such records. Convert the "
                        "data again, or go on with others in their place: --on-error skip"
                    ) from error
                for fault in faults:
                    shard_index.add_fault(self.directory, os.path.basename(fault.path), fault.offset, fault.reason)
                before, self.index = self.index, self.reload()
                if all(map(np.array_equal, before[1:], self.index[1:])):  # it would fail again, and again
                    raise UserError(
                        f"{faults[0]}, which cannot be noted in {shard_index.place(self.directory)}; convert the data "
                        "again"
                    ) from error
                fed = dict(zip(self.batches.feed, self.index[:3], strict=True))
                self.batches = self.batches._replace(feed=fed, examples=len(self.index.offsets))
                self.batches.start(session, step)

    def _faults(self, rows: Iterable[int]) -> list[Fault]:
        faults = []
        with Examiner(self.dataset["channels"], len(self.dataset["class_names"])) as examiner:
            for path, offset in dict.fromkeys(map(self.index.place, rows)):
                try:
                    found = tfrecord.read_at(path, offset)
                except OSError as trouble:
                    raise UserError(f"{path} cannot be read ({trouble.strerror})") from None
                reason = found.fault or examiner.reason(found.payload)[0]
                if reason:
                    faults.append(Fault(path, offset, reason))
        return faults


def check(directory: str, dataset: dict) -> tuple[dict[str, Counter], list[Fault]]:
    """Reads every record. Returns, for each split, label to number of sound records; and all that is wrong."""
    balance, wrong = {}, []
    seen: dict[str, Counter] = {}  # TF-Slim data without validation: both splits lie in the same shards
    index = shard_index.known(directory)
    with Examiner(dataset["channels"], len(dataset["class_names"])) as examiner:
        for split in SPLITS:
            part = dataset["splits"].get(split) or {"examples": 0, "shards": []}
            balance[split] = Counter()
            progress = tqdm(total=part["examples"], desc=split, unit="record", disable=None)
            for shard in part["shards"]:
                name = shard["file"]
                if name not in seen:
                    path, seen[name] = os.path.join(directory, name), Counter()
                    try:
                        wrong += _check_shard(
                            path, shard["examples"], index.get(name), examiner, seen[name], progress.update
                        )
                    except OSError as error:
                        wrong.append(Fault(path, None, f"the file cannot be read ({error.strerror})"))
                balance[split].update(seen[name])
            progress.close()
    return balance, wrong


def _check_shard(
    path: str, expected: int, known: Content | None, examiner: Examiner, labels: Counter, update: Callable
) -> Iterator[Fault]:
    """What is wrong with a shard that should hold so many records and that the index knows; counts the sound labels."""
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
        place = shard_index.place(os.path.dirname(path))
        yield Fault(path, None, f"{place} says something else of it; remove that file, it is made anew")


def _examined(path: str, examiner: Examiner) -> Iterator[tuple[int, str | None, int | None]]:
    """For each record of a shard its offset, what is wrong with it, and its label, in order."""

    def look(found: tfrecord.Found) -> tuple[int, str | None, int | None]:
        return found.offset, *((found.fault, None) if found.fault else examiner.reason(found.payload))

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        pending: deque = deque()
        for found in tfrecord.walk(path):
            pending.append(threads.submit(look, found))
            if len(pending) > 64:
                yield pending.popleft().result()
        yield from (future.result() for future in pending)


def describe(balance: dict[str, Counter], class_names: list[str]) -> str:
    """A table: how many records each class has in each split."""
    splits = [split for split, counts in balance.items() if counts]
    labels = list(range(len(class_names)))
    totals = {label: sum(counts[label] for counts in balance.values()) for label in labels}
    if len(labels) > FEW_CLASSES:
        ranked = sorted(labels, key=lambda label: (-totals[label], label))
        labels = [*ranked[:5], None, *ranked[-5:]]
    width = max(len(class_names[label][:40]) for label in labels if label is not None)
    lines = [f"{'class':<{width}}" + "".join(f"{split:>12}" for split in splits)]
    for label in labels:
        if label is None:
            lines.append(f"… {len(class_names) - 10} classes between these")
            continue
        lines.append(
            f"{class_names[label][:40]:<{width}}" + "".join(f"{balance[split][label]:>12,}" for split in splits)
        )
    lines.append(f"{'all':<{width}}" + "".join(f"{sum(balance[split].values()):>12,}" for split in splits))
    present = [number for number in totals.values() if number]
    if present:
        lines.append(f"the largest class has {max(present) / max(1, min(totals.values())):.1f} times the smallest")
    return "\n".join(lines)


def parse_command_line() -> argparse.Namespace:
    """The arguments of this command."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", metavar="DIR", help="shards with their dataset.json, or TF-Slim's with labels.txt")
    parser.add_argument("--montage", metavar="PNG", help="draw a sheet of labelled samples")
    parser.add_argument(
        "--augment", metavar="FAMILY", help=f"what training makes of the samples: {', '.join(sorted(PREPROCESSINGS))}"
    )
    parser.add_argument("--image-size", type=int, default=224, metavar="N", help="of --augment (default: 224)")
    parser.add_argument("--split", choices=SPLITS, help="of the samples (default: train, where there is one)")
    return parser.parse_args()


@os_errors_as_user_errors()
def main() -> None:
    """The command line."""
    args = parse_command_line()
    if args.augment and args.augment not in PREPROCESSINGS:
        raise errors.unknown("preprocessing", args.augment, PREPROCESSINGS)
    if args.augment and not args.montage:
        raise UserError("--augment belongs to --montage, such as --montage samples.png")
    if not 1 <= args.image_size <= 4096:
        raise UserError(f"--image-size is {args.image_size}; it must be 1 to 4096")
    if args.montage:
        from pipeline import montage

        check_output("--montage", args.montage, ".png")
    dataset = load_dataset(args.directory)
    if not any(part["examples"] for part in dataset["splits"].values()):
        raise UserError(f"{args.directory} holds no records; convert the data again")
    balance, wrong = check(args.directory, dataset)
    print(describe(balance, dataset["class_names"]))
    for line in wrong:
        print(line)
    if args.montage:
        montage.draw(args.montage, args.directory, dataset, args.split, args.augment, args.image_size)
        print(f"wrote {args.montage}")
    records = sum(sum(counts.values()) for counts in balance.values())
    if wrong:
        advice = "mend what they name, or convert the data again"
        if records and all(fault.offset is not None for fault in wrong):
            advice = "convert the data again, or let others stand in for them: python train.py … --on-error skip"
        raise UserError(f"{len(wrong)} faults in {args.directory}, named above; {advice}")
    print(f"{args.directory}: all {records:,} records are sound")


if __name__ == "__main__":
    with errors.reported():
        main()
