"""Corrupt records: examined, named by shard and byte, and replaced while a session reads batches."""

import os
import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from channels import USUAL
from errors import UserError
from pipeline import storage, tfrecord
from pipeline.batches import Batches
from pipeline.dataset import Dataset, Selection
from pipeline.index import Index, InvalidExample, add_fault, parse, stored_index
from pipeline.pictures import decode
from pipeline.records import Fault, wrong_format
from tfcompat import tf


class Examiner(AbstractContextManager):
    """Checks whether a record is intact and holds a labelled picture that training can decode."""

    def __init__(self, dataset: Dataset):
        self.channels = dataset.channels
        self.num_classes, self.keys = len(dataset.class_names), dataset.keys
        self.counted_in = dataset.counted_in or tfrecord.DATASET_JSON
        with tf.Graph().as_default() as graph:
            self.encoded = tf.placeholder(tf.string, [])
            self.pixels = decode(self.encoded, dataset.channels)
        self.session = tf.Session(graph=graph)

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def reason(self, found: tfrecord.Found) -> tuple[str | None, int | None]:
        """The reason why a record is corrupt, None where it is sound; and its label, where it has one."""
        if found.fault:
            return found.fault, None
        try:
            example = parse(found.payload, self.keys)
            if not 0 <= example.label < self.num_classes:
                reason = f"its label is {example.label}; the classes are 0 to {self.num_classes - 1}"
                raise InvalidExample(reason, example.label)
            if reason := wrong_format(example.encoded, example.size):  # TensorFlow decodes GIF, but no part of it
                raise InvalidExample(reason, example.label)
            if self.channels not in USUAL and not example.encoded.startswith(b"\x89PNG"):
                raise InvalidExample(f"its picture is a JPEG, which has no {self.channels} channels", example.label)
            pixels = self.session.run(self.pixels, {self.encoded: example.encoded})
        except InvalidExample as error:
            return str(error), error.label
        except tf.errors.OpError as error:
            # TensorFlow's message without its place in the graph.
            message = re.sub(r"(?s)^Graph execution error:.*\nNode: [^\n]*\n", "", error.message).partition("\n")[0]
            return f"its picture cannot be decoded ({message.strip()[:120]})", example.label
        for key, stored, actual in zip(self.keys.size or (), example.size, pixels.shape, strict=False):
            if stored and stored != actual:
                return f"{key} is {stored}; its picture has {actual}", example.label
        return None, example.label

    def fault(self, path: str, found: tfrecord.Found) -> tuple[Fault | None, int | None]:
        """The fault of a record of the shard `path`, None where it is sound; and its label, where it has one."""
        reason, label = self.reason(found)
        named = label is None or 0 <= label < self.num_classes
        return Fault(path, found.offset, reason, named) if reason else None, label


class Reader:
    """Runs a session on batches; a record that turns out to be corrupt is named, or replaced by another one."""

    def __init__(self, batches: Batches, selection: Selection):
        self.batches, self.selection = batches, selection

    @property
    def examples(self) -> int:
        """Number of examples in an epoch."""
        return self.batches.examples

    def start(self, session: tf.Session, step: int = 0) -> None:
        """Moves to the batch of a step."""
        self.batches.start(session, step)

    def attempt(self, session: tf.Session, call: Callable[[], Any], step: int = 0) -> Any:
        """Returns call(), which reads the batch of `step` in the session, or in evaluation all batches.

        Where TensorFlow fails in it, corrupt records are replaced, and batches start again at `step`. Raises UserError
        that names the first of them where on_error is 'stop' or it cannot be marked; OpError where none is corrupt.
        """
        while True:
            try:
                return call()
            except (tf.errors.OpError, UnicodeDecodeError) as error:  # TensorFlow may cite bytes that are no text
                faults = self._faults(self.batches.rows_at(step))
                if not faults:
                    raise
                self.batches.index = self._replace(faults, error)
                self.start(session, step)

    def _replace(self, faults: list[Fault], error: Exception) -> Index:
        """Marks the records as corrupt and returns the index without them."""
        directory = self.selection.dataset.directory
        if unnamed := next((fault for fault in faults if not fault.replaceable), None):
            raise UserError(f"{unnamed}. python -m pipeline.check {directory} lists all such records") from error
        if self.selection.on_error == "stop":
            advice = "Convert the data again, or replace them by other records: --on-error skip"
            listed = f"python -m pipeline.check {directory} lists all such records"
            raise UserError(f"{faults[0]}. {listed}. {advice}") from error
        for fault in faults:
            add_fault(directory, os.path.basename(fault.path), fault.offset, fault.reason)
        before, after = self.batches.index, self.selection.index()
        if all(map(np.array_equal, before[1:4], after[1:4])):  # it would fail again
            place = stored_index(directory)
            raise UserError(f"{faults[0]}, which cannot be marked in {place}; convert the data again") from error
        return after

    def _faults(self, rows: Iterable[int]) -> list[Fault]:
        faults = []
        with Examiner(self.selection.dataset) as examiner:
            for path, offset in dict.fromkeys(map(self.batches.index.place, rows)):
                try:
                    fault, _ = examiner.fault(path, tfrecord.read_at(path, offset, storage.open_file))
                except OSError as trouble:
                    raise UserError(f"{path} cannot be read ({trouble.strerror})") from None
                if fault:
                    faults.append(fault)
        return faults
