"""Fonts for texts in pictures, such as class names in Chinese: matplotlib's own font shows boxes for many scripts."""

import sys
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

DEFAULT = "DejaVu Sans"  # comes with matplotlib
BOX = "□"  # for characters that no font has
_reported: list[str] = []


class Lettering(NamedTuple):
    """Texts, and the fonts that have all their characters."""

    texts: list[str]  # with boxes for characters that no installed font has
    families: list[str]  # as matplotlib's fontfamily
    files: list[str]

    def width(self, text: str, size: float) -> float:
        """The width of a line in points, the unit of the font's size."""
        font = font_manager.get_font(self.files)
        font.set_size(size, 72)
        font.set_text(text)
        return font.get_width_height()[0] / 64

    def fit(self, text: str, size: float, width: float) -> str:
        """A line of text, of which the middle is left out where it is wider than `width` points."""
        fitted, share = text, width / max(self.width(text, size), 1)
        for kept in range(min(len(text) - 1, round(share * len(text)) + 3), 1, -1):  # a little more than fits
            if self.width(fitted, size) <= width:
                break
            fitted = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
        return fitted


def lettering(texts: Sequence[str]) -> Lettering:
    """Finds fonts for texts. Says on standard error, once, where no installed font has a character."""
    default = font_manager.findfont(DEFAULT)
    files, missing = [default], {ord(c) for text in texts for c in text if c != "\n"} - _glyphs(default)
    while missing:
        best = max(_installed(), key=lambda path: len(missing & _glyphs(path)), default=default)
        if not missing & _glyphs(best):
            break
        files.append(best)
        missing -= _glyphs(best)
    if missing and not _reported:
        _reported.extend(map(chr, sorted(missing)))
        boxes = f"pictures show boxes for {''.join(_reported[:10])!r}"
        print(f"no installed font has all characters, so {boxes}; install one, such as Noto Sans CJK", file=sys.stderr)
    table = dict.fromkeys(missing, BOX)
    return Lettering([text.translate(table) for text in texts], list(map(_family, files)), files)


@cache
def _installed() -> tuple[str, ...]:
    return tuple(sorted(font_manager.findSystemFonts()))


@cache
def _glyphs(path: str) -> frozenset[int]:
    """The code points that a font file has; none where it cannot be read, and of a font of boxes for all scripts."""
    try:
        font = FT2Font(path)
    except Exception:  # FT2Font raises RuntimeError, OSError and others for files that it does not support
        return frozenset()
    return frozenset() if font.family_name.startswith("Last Resort") else frozenset(font.get_charmap())


@cache
def _family(path: str) -> str:
    """The name by which matplotlib finds a font file, which its list may not have yet."""
    manager = font_manager.fontManager
    if path not in {entry.fname for entry in manager.ttflist}:
        manager.addfont(path)
    return next(entry.name for entry in manager.ttflist if entry.fname == path)
