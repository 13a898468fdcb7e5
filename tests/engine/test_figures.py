"""The confusion matrix is laid out by hand: what it says stands where it belongs, and nothing is cut off."""

import numpy as np
import pytest

from engine.figures import NAMED, confusion
from engine.metrics import PerExample


def table(labels, predictions):
    labels, predictions = np.array(labels), np.array(predictions)
    right = (labels == predictions).astype(np.float32)
    given = {"label": labels, "prediction": predictions}
    return PerExample(**{name: given.get(name, right) for name in PerExample._fields})


@pytest.mark.parametrize(
    "names",
    [["cat", "$_$"], ["W" * 18 + "and more", "m"], ["鱼" * 18, "犬"], [f"class {i}" for i in range(NAMED)]],
)
@pytest.mark.filterwarnings("ignore:Glyph")
def test_confusion_counts_and_names_stand_at_their_places(names):
    figure = confusion(table([0, 0, 0, 1, 1], [0, 0, 1, 1, 1]), names)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    texts = {tuple(text.get_position()): text.get_text() for text in axes.texts}
    assert {place: text for place, text in texts.items() if text.isdigit()} == {(0, 0): "2", (1, 0): "1", (1, 1): "2"}
    assert [texts[-0.6, i] for i in range(len(names))] == [name[:18] for name in names]
    assert [texts[i, len(names) - 0.4] for i in range(len(names))] == [name[:18] for name in names]
    assert axes.get_title() == "4 of 5 right"
    boxes = [text.get_window_extent() for text in (*axes.texts, axes.xaxis.label, axes.yaxis.label, axes.title)]
    for box in boxes:
        assert min(*box.min, *(figure.bbox.max - box.max)) >= 0, "outside of the figure"
    assert not any(box.overlaps(other) for box in boxes[:-3] for other in boxes[-3:])


def test_many_classes_have_a_scale_in_the_place_of_names():
    figure = confusion(table([0, NAMED], [0, 0]), [str(i) for i in range(NAMED + 1)])
    matrix, _ = figure.axes
    assert len(matrix.texts) == 0
    assert matrix.images[0].get_array()[NAMED, 0] == 1
