"""The confusion matrix: counts and names are at their places, and nothing is cut off."""

import numpy as np
import pytest

from engine.figures import NAMED, confusion, worst_mistakes
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
    texts = {tuple(text.get_position()): text.get_text() for text in axes.texts if text.get_text()}
    assert texts == {(0, 0): "2", (1, 0): "1", (1, 1): "2"}
    labels = *axes.get_xticklabels(), *axes.get_yticklabels()
    assert [text.get_text() for text in labels] == 2 * [name[:18] for name in names]
    assert not any(text.get_parse_math() for text in labels)
    assert axes.get_title() == "4 of 5 right"
    named = axes.xaxis.label, axes.yaxis.label, axes.title
    boxes = [text.get_window_extent() for text in (*axes.texts, *labels, *named)]
    for box in boxes:
        assert min(*box.min, *(figure.bbox.max - box.max)) >= 0, "outside of the figure"
    assert not any(box.overlaps(other) for box in boxes[:-3] for other in boxes[-3:])


def test_many_classes_have_a_scale_in_the_place_of_names():
    figure = confusion(table([0, NAMED], [0, 0]), [str(i) for i in range(NAMED + 1)])
    (matrix,) = figure.axes
    assert len(matrix.child_axes) == 1
    assert len(matrix.texts) == 0
    assert matrix.images[0].get_array()[NAMED, 0] == 1


def test_the_titles_of_mistakes_say_which_class_is_predicted_and_which_is_the_label():
    assert worst_mistakes(table([0, 1, 1], [0, 0, 1]), 5, ["rose", "sunflower of the field"]) == (
        [1],
        ["predicted rose 0%\nlabelled sunflower of the field"],
    )
