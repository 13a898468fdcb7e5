"""The index of a split: the shard and byte offset of each record. Corrupt records are left out or replaced here."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from errors import UserError
from pipeline.examples import StoredExample, read_example
from pipeline.shard_index import scan

if TYPE_CHECKING:
    from pipeline.dataset import Split

HELD_OUT = 10  # TF-Slim data without a validation split: every tenth training record is validation
SUBSET = 2  # folded into the seed, beside the purposes of pipeline.batches


class Index(NamedTuple):
    """Where each record of a split lies."""

    files: list[str]
    shards: np.ndarray  # int32 [examples], index into files
    offsets: np.ndarray  # int64 [examples], byte offset of the record in its file
    replaced: np.ndarray  # bool [examples], whether the record is corrupt and another record replaces it

    def take(self, rows: np.ndarray) -> "Index":
        """The index of some of the records."""
        return Index(self.files, self.shards[rows], self.offsets[rows], self.replaced[rows])

    def intact(self) -> "Index":
        """Without the replaced records, so that evaluation counts no record twice."""
        return self.take(np.flatnonzero(~self.replaced))

    def first_shuffled(self, examples: int | None, seed: int) -> "Index":
        """The first `examples` records of the shuffled index; all for None. A smaller set is part of a larger one."""
        if examples is None or examples >= len(self.offsets):
            return self
        return self.take(np.random.default_rng([seed, SUBSET]).permutation(len(self.offsets))[:examples])

    def place(self, row: int) -> tuple[str, int]:
        """Shard and byte offset of a record."""
        return self.files[self.shards[row]], int(self.offsets[row])

    def example(self, row: int) -> StoredExample:
        """Reads and parses a record."""
        return read_example(*self.place(row))

    def pictures(self, rows: Sequence[int], channels: int) -> list[np.ndarray]:
        """The pictures of some records as they are stored, uint8 [H, W, channels]."""
        return [self.example(row).pixels(channels) for row in rows]


def make_index(directory: str, part: "Split", on_error: str) -> Index:
    """Finds the records of a split, each checked against its CRCs once, and compares their number with dataset.json.

    Args:
        directory: of the shards.
        part: the split's shards.
        on_error: 'stop' raises at a corrupt record; 'skip' replaces it by another record of the split, the same each
            time, so that the order of the others does not change.

    Raises:
        UserError: shards that are missing, cut short, of another length or corrupt.
    """
    names = [shard.file for shard in part.shards]
    shards, offsets, faults = [], [], []
    for i, (content, shard) in enumerate(zip(scan(directory, names), part.shards, strict=True)):
        path, found = os.path.join(directory, shard.file), content.offsets
        missing = shard.examples - len(found)
        if missing < 0 or (missing and not content.faults and on_error == "stop"):
            raise UserError(
                f"{path} holds {len(found)} records, dataset.json says {shard.examples}; convert the data again"
                + ("" if missing < 0 else ", or continue without the missing ones: --on-error skip")
            )
        start = sum(map(len, offsets))
        faults += [
            (start + position, f"{path}: the record at byte {found[position]} is corrupt: {text}")
            for position, text in content.faults.items()
        ]
        lost = f"{path} ends after {len(found)} records, dataset.json says {shard.examples}"
        faults += [(start + position, lost) for position in range(len(found), shard.examples)]
        shards.append(np.full(shard.examples, i, np.int32))
        offsets.append(np.concatenate([found, np.full(missing, -1, np.int64)]))
    files = [os.path.join(directory, name) for name in names]
    index = Index(files, np.concatenate(shards), np.concatenate(offsets), np.zeros(sum(map(len, offsets)), bool))
    if faults:
        index = _without(index, faults, on_error, directory)
    if part.every is None:
        return index
    held_out = np.arange(len(index.offsets)) % HELD_OUT == HELD_OUT - 1
    return index.take(np.flatnonzero(held_out if part.every == "tenth" else ~held_out))


def _without(index: Index, faults: list[tuple[int, str]], on_error: str, directory: str) -> Index:
    """Replaces corrupt and missing records by others, or raises the error that names the first of them."""
    first = faults[0][1]
    if on_error == "stop":
        raise UserError(
            f"{first}; {len(faults)} of {len(index.offsets)} records are corrupt or missing; python -m pipeline.check "
            f"{directory} lists them. Convert the data again, or replace them by other records: --on-error skip"
        )
    print(f"{first}; {len(faults)} such records are replaced by others")
    rows = np.array([row for row, _ in faults])
    index.replaced[rows] = True
    intact = np.flatnonzero(~index.replaced)
    if not len(intact):
        raise UserError(f"{directory}: no record is intact; convert the data again")
    for row in rows:
        other = np.random.default_rng(row).choice(intact)
        index.shards[row], index.offsets[row] = index.shards[other], index.offsets[other]
    return index
