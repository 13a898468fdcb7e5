"""Class names of any script in pictures."""

import io

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image

import fonts
from pipeline import montage


@pytest.fixture(autouse=True)
def _nothing_is_reported_yet(monkeypatch):
    monkeypatch.setattr(fonts, "_reported", [])


def font_with(characters, path):
    """Writes a font in which each of these characters is a filled square."""
    names = [".notdef", *(f"u{ord(c):04X}" for c in characters)]
    pen = TTGlyphPen(None)
    for i, point in enumerate([(100, 0), (100, 800), (900, 800), (900, 0)]):
        (pen.lineTo if i else pen.moveTo)(point)
    pen.closePath()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(c): name for c, name in zip(characters, names[1:], strict=True)})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 100)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return str(path)


def drawn(title):
    """A sheet of one white picture, grey [H, W]."""
    figure, file = montage.sheet([(np.full((20, 20, 3), 255, np.uint8), title)], 1), io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return np.asarray(Image.open(file).convert("L"))


def ink(title):
    """The number of dark pixels of a title."""
    pixels = drawn(title)
    return int((pixels[: -round(100 * (montage.SIDE + 0.15))] < 100).sum())


@pytest.mark.filterwarnings("error")  # matplotlib warns about each glyph that is missing
def test_an_installed_font_that_has_the_characters_is_taken(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fonts, "_installed", lambda: (font_with("猫犬", tmp_path / "animals.ttf"),))
    found = fonts.lettering(["cat 猫", "dog 犬"])
    assert found.texts == ["cat 猫", "dog 犬"]
    assert found.families == ["DejaVu Sans", "animals"]
    assert found.width("猫", 10) == 10
    filled = ink("猫")
    assert filled > 40
    assert capsys.readouterr().err == ""


@pytest.mark.filterwarnings("error")
def test_boxes_are_reported_once(monkeypatch, capsys):
    monkeypatch.setattr(fonts, "_installed", lambda: ())
    assert fonts.lettering(["cat 猫"]).texts == ["cat □"]
    assert ink("猫\n犬") > 0
    err = capsys.readouterr().err
    assert err.count("no installed font") == 1
    assert "'猫'; install one, such as Noto Sans CJK" in err


def test_only_the_middle_of_a_line_that_is_too_wide_is_left_out():
    found = fonts.lettering([])
    for text in ("tulip", "predicted sunflower 98%"):
        assert found.fit(text, 8, 130) == text
    for text in ("W" * 60, "predicted " + "sunflower" * 9 + " 98%"):
        fitted = found.fit(text, 8, 130)
        assert 100 < found.width(fitted, 8) <= 130
        start, end = fitted.split("…")
        assert text.startswith(start)
        assert text.endswith(end)
        assert abs(len(start) - len(end)) <= 1


def test_a_white_picture_has_a_frame():
    assert (drawn("")[-100] < 240).sum() >= 2
