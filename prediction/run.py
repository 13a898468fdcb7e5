"""Predictions of a net in a session, batch by batch."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from errors import unknown
from prediction.heatmaps import class_activation_map
from prediction.pictures import PictureReader, Prediction
from tfcompat import op_determinism, tf


def fetches(
    batch: tf.Tensor, logits: tf.Tensor, end_points: Mapping[str, tf.Tensor], *, end_point: str | None, cam: bool
) -> dict[str, tf.Tensor]:
    """Probabilities [N, classes] of a batch; features [N, D] of an end point and cam [N, h, w] if they are asked for.

    Raises UserError for an unknown end point.
    """
    found = {"probabilities": tf.nn.softmax(logits)}
    if end_point is not None:
        if end_point not in end_points:
            raise unknown("end point", end_point, end_points)
        found["features"] = tf.reshape(end_points[end_point], [tf.shape(batch)[0], -1])
    if cam:
        found["cam"] = class_activation_map(batch, logits)
    return found


class PredictionRun(NamedTuple):
    """A session with a restored net."""

    session: tf.Session
    fetches: Mapping[str, tf.Tensor]  # of `fetches`
    batch: tf.Tensor  # placeholder of the net's inputs
    reader: PictureReader
    class_names: Sequence[str]
    top_k: int | None  # classes in a prediction; None for all

    def predictions(
        self, files: Iterator[str], batch_size: int, check: Callable[[np.ndarray], None]
    ) -> Iterator[Prediction]:
        """Predicts files in order; closes the session after the last one. `check` gets the probabilities of a batch."""
        with contextlib.closing(self.session):
            while True:
                with op_determinism():
                    inputs = self.reader.read_batch(files, batch_size)
                    images = [each.image for each in inputs if not each.error]
                    values = self.session.run(self.fetches, {self.batch: np.stack(images)}) if images else {}
                if not inputs:
                    return
                if images:
                    check(values["probabilities"])
                rows = iter(range(len(images)))
                for each in inputs:
                    if each.error:
                        yield each
                        continue
                    row = next(rows)
                    outputs = {name: value[row] for name, value in values.items()}
                    top = self._top(outputs.pop("probabilities"))
                    image = each.image if "cam" in outputs else None  # else a list of predictions takes much memory
                    yield dataclasses.replace(each, top=top, image=image, **outputs)

    def _top(self, probabilities: np.ndarray) -> list[tuple[str, float]]:
        # Stable, so that of equal ones the first comes first, as argmax has it.
        best = np.argsort(-probabilities, kind="stable")[: self.top_k]
        return [(self.class_names[label], float(f"{probabilities[label]:.9g}")) for label in best]
