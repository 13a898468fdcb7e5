"""The confusion matrix: counts and names are at their places, and nothing is cut off."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from engine.figures import NAMED, confusion, curves, worst_mistakes
from engine.journal import TRAIN, VALIDATION, Journal
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


def test_the_titles_of_mistakes_say_which_class_is_predicted_and_which_is_the_label():
    assert worst_mistakes(table([0, 1, 1], [0, 0, 1]), 5, ["rose", "sunflower of the field"]) == (
        [1],
        ["predicted rose 0%\nlabelled sunflower of the field"],
    )


def check_nothing_is_cut_off(figure):
    """Texts and axes with their ticks and labels lie in the figure, and no axes runs into another."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    for axes in figure.axes:
        sides = [axes.xaxis.get_tightbbox(renderer), axes.yaxis.get_tightbbox(renderer)]
        texts = [text.get_window_extent() for text in (*axes.texts, axes.title)]
        assert all(min(*box.min, *(figure.bbox.max - box.max)) >= 0 for box in (*sides, *texts)), (
            "outside of the figure"
        )
        assert not any(box.overlaps(other.bbox) for box in sides for other in figure.axes if other is not axes)


def test_of_many_classes_the_most_confused_are_shown_and_listed():
    classes = 1000
    labels = [*range(classes), *[7] * 9, *[500] * 4, 3]
    predictions = [*range(classes), *[900] * 9, *[7] * 3, 2, 4]
    names = [f"class {i} " + "W" * 30 for i in range(classes)]
    figure = confusion(table(labels, predictions), names)
    (axes,) = figure.axes
    check_nothing_is_cut_off(figure)
    rows = [text.get_text() for text in axes.get_yticklabels()]
    assert len(rows) == NAMED
    assert [text.get_text() for text in axes.get_xticklabels()] == [*rows, "other"]
    place = {int(name.split()[1]): i for i, name in enumerate(rows)}
    assert {2, 3, 4, 7, 500, 900} <= place.keys()
    counts = {tuple(text.get_position()): text.get_text() for text in axes.texts}
    assert counts[place[900], place[7]] == "9"
    assert counts[place[7], place[500]] == "3"
    shares = np.asarray(axes.images[0].get_array())
    assert shares[place[7], place[900]] == 0.9  # of the row
    np.testing.assert_allclose(shares.sum(1), 1)  # with the last column
    (listed,) = [text.get_text() for text in axes.texts if "→" in text.get_text()]
    lines = [line.split()[:5] for line in listed.splitlines() if "→" in line]
    assert lines == [
        [a, "of", b, "class", c]
        for a, b, c in (("9", "10", "7"), ("3", "5", "500"), ("1", "2", "3"), ("1", "5", "500"))
    ]
    assert axes.get_title() == "1,000 of 1,014 right; 30 most confused of 1,000 classes"


@pytest.mark.parametrize("count", [2, 10, 43])
def test_numbers_on_a_card_are_readable(count):
    """At 340 pixels, the width of a card in TensorBoard, digits are at least five pixels high."""
    rng = np.random.default_rng(0)
    figure = confusion(table(rng.integers(0, count, 9999), rng.integers(0, count, 9999)), ["W" * 18] * count, card=True)
    (axes,) = figure.axes
    check_nothing_is_cut_off(figure)
    cells = [text.get_window_extent() for text in axes.texts]
    assert len(cells) >= min(count, 10) ** 2
    scale = 340 / figure.bbox.width
    assert all(box.height * scale >= 5 for box in cells)
    assert not any(one.overlaps(other) for one, other in itertools.pairwise(cells))


def test_a_confusion_without_mistakes():
    figure = confusion(table(range(31), range(31)), [str(i) for i in range(31)])
    assert [text.get_text() for text in figure.axes[0].texts] == ["1"] * NAMED


LOSSES = {"4 × 10⁰": (5.2, 4.4, 3.9), "1e-5": (2.1e-5, 1.3e-5, 1.1e-5), "wide": (2.3, 0.02, 1e-9)}
LOSSES |= {"huge": (2.3, 7e18, 5.0), "flat": (4.01234, 4.01231, 4.01233), "zero": (0.0, 0.0, 0.0)}


@pytest.mark.parametrize("losses", LOSSES.values(), ids=LOSSES)
def test_curves_name_all_lines_and_cut_nothing_off(losses, tmp_path):
    journal = Journal(str(tmp_path / "metrics.jsonl"), 0)
    for step, loss in enumerate(losses, 1):
        journal.add(step, TRAIN, loss=loss, top1=step / 10)
        journal.add(step, VALIDATION, loss=loss, top1=0.99871 + step / 1e6, ema_loss=loss, ema_top1=0.5)
    figure = curves(journal, "run")
    check_nothing_is_cut_off(figure)
    for axes in figure.axes:
        names = [text.get_text() for text in axes.get_legend().get_texts()]
        assert names == ["train", "validation", "validation, EMA weights", "best validation"]
