"""Decoding and serializing of pictures, in several processes if there are many. Free of TensorFlow."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from itertools import islice
from multiprocessing.connection import wait
from typing import NamedTuple

import numpy as np

from errors import UserError
from pipeline import images, tfrecord
from pipeline.convert.sources import Example
from pipeline.statistics import Moments

CHUNK = 64  # examples in one task of a process
FEW = 1000  # up to this many examples, starting processes takes longer than decoding here


class Settings(NamedTuple):
    """How pictures are stored."""

    class_names: list[str]
    pictures: images.PictureFormat


class Rejected(NamedTuple):
    """A picture that is not stored: a row of rejected.csv."""

    file: str
    split: str
    label: str
    reason: str


class Chunk(NamedTuple):
    """The result for some examples of a split."""

    records: list[bytes]
    labels: list[int]
    rejected: list[Rejected]
    moments: Moments | None  # of training pictures
    highest: int | None  # of their samples of 16 bits without a range; None where there are no such


class Pool(AbstractContextManager):
    """Processes that decode pictures; or none, if the examples are few."""

    def __init__(self, processes: int, examples: int, settings: Settings):
        self.settings, self.ahead, self.executor = settings, 4 * processes, None
        if processes > 1 and examples > FEW:
            # Spawned, not forked: the caller of convert() may have threads, such as TensorFlow's.
            self.executor = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _start_process)

    def __exit__(self, *_: object) -> None:
        if self.executor:
            self.executor.shutdown(cancel_futures=True)

    def chunks(self, split: str, examples: list[Example]) -> Iterator[Chunk]:
        """The results in the order of the examples; up to `ahead` chunks are in work or wait for the caller.

        Raises UserError if a process was killed.
        """
        parts = (examples[i : i + CHUNK] for i in range(0, len(examples), CHUNK))
        if not self.executor:
            yield from (store_chunk(split, part, self.settings) for part in parts)
            return
        pending: deque[tuple[list[Example], Future]] = deque()
        oldest = examples
        try:
            while True:
                for part in islice(parts, self.ahead - len(pending)):
                    pending.append((part, self.executor.submit(store_chunk, split, part, self.settings)))
                if not pending:
                    return
                oldest, future = pending.popleft()
                yield future.result()
        except BrokenProcessPool:
            raise UserError(
                f"a process was killed while it read one of {oldest[0].filename} to {oldest[-1].filename}, or a file "
                "soon after them; if memory was too small, use --processes 1"
            ) from None


def _start_process() -> None:
    """Ignores Ctrl-C and a closed terminal, which the main process handles, and exits when that is killed."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)

    def watch() -> None:
        wait([multiprocessing.parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def store_chunk(split: str, examples: list[Example], settings: Settings) -> Chunk:
    """Decodes and serializes examples."""
    records, labels, rejected, highest = [], [], [], None
    moments = Moments(settings.pictures.channels) if split == "train" else None
    for example in examples:
        class_name = settings.class_names[example.label]
        try:
            image = _stored(example, settings.pictures)
        except (images.ImageError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            rejected.append(Rejected(example.filename, split, class_name, reason))
            continue
        if moments:
            moments.add(image.pixels)
            highest = max(filter(lambda value: value is not None, (highest, image.highest)), default=None)
        records.append(tfrecord.serialize(image, example.label, class_name, example.filename))
        labels.append(example.label)
    return Chunk(records, labels, rejected, moments, highest)


def _stored(example: Example, to: images.PictureFormat) -> images.StoredImage:
    if isinstance(example.image, np.ndarray):
        return images.store_array(example.image, to)
    return images.store(example.read(), to)
