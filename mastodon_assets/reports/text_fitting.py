"""Text from the network fitted into a chart, in any script and of any length.

What belongs here: which fonts are used, and what replaces a character that none of them has.

matplotlib brings DejaVu Sans alone: Latin, Greek, Cyrillic, Arabic, Hebrew and more, but no
Chinese, Japanese, Korean, Indic scripts or emoji. Those of the families below that are installed
are used next. A character without a glyph is written as its code point, `⟨65E5 672C⟩`: exact,
whereas a box hides which text it was and a transliteration guesses. matplotlib orders and joins
right-to-left text itself (3.11 or newer).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from itertools import groupby

# Outline fonts only: matplotlib cannot draw the bitmaps of colour emoji fonts.
FONT_FAMILIES = (
    "DejaVu Sans",
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans JP",
    "Noto Sans SC",
    "Noto Sans KR",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Yu Gothic",
    "Microsoft YaHei",
    "Malgun Gothic",
    "WenQuanYi Zen Hei",
    "Noto Sans Devanagari",
    "Noto Sans Bengali",
    "Noto Sans Tamil",
    "Noto Sans Thai",
    "Noto Emoji",
    "Symbola",
    "Arial Unicode MS",
)
# In Persian and Indic words these two decide which letters join.
_JOINERS = "\u200c\u200d"
# Combining marks take no room of their own: one name could pile up thousands.
_MAX_CHARACTERS = 60
_POINTS_PER_INCH = 72
_SUBPIXELS = 64


def installed_families(wanted: Sequence[str] = FONT_FAMILIES) -> list[str]:
    """Return those of `wanted` that are installed on this machine, in this order."""
    from matplotlib.font_manager import fontManager

    known = {font.name for font in fontManager.ttflist}
    return [family for family in wanted if family in known]


def glyph_lookup(families: Sequence[str]) -> Callable[[str], bool]:
    """Return a function that says whether one of the installed `families` has a glyph."""
    from matplotlib.font_manager import get_font

    fonts = [get_font(file) for file in _files(families)]
    return lambda character: any(font.get_char_index(ord(character)) for font in fonts)


def text_width(families: Sequence[str], size: float) -> Callable[[str], float]:
    """Return a function that measures text in inches, at `size` points in installed `families`."""
    from matplotlib.font_manager import get_font

    font = get_font(_files(families))

    def measure(text: str) -> float:
        # Each time: matplotlib shares one font object, and drawing sets another size.
        font.set_size(size, _POINTS_PER_INCH)
        font.set_text(text)
        return font.get_width_height()[0] / _SUBPIXELS / _POINTS_PER_INCH

    return measure


def label(text: str, has_glyph: Callable[[str], bool], fits: Callable[[str], bool]) -> str:
    """Make `text` drawable and shorten it with an ellipsis until it `fits`.

    Characters without a glyph, and those that are invisible or change the writing direction,
    become their code points in angle brackets.

    Returns:
        At least one character: `…` alone if nothing else fits.
    """
    beginning = text[:_MAX_CHARACTERS]
    if beginning == text and fits(whole := spelled_out(text, has_glyph)):
        return whole
    cuts = (spelled_out(beginning[:end], has_glyph) + "…" for end in range(len(beginning), 0, -1))
    return next((cut for cut in cuts if fits(cut)), "…")


def spelled_out(text: str, has_glyph: Callable[[str], bool]) -> str:
    """Replace each run of characters that cannot be drawn by `⟨code points in hex⟩`."""
    parts = []
    for can_draw, run in groupby(text, lambda character: _is_drawable(character, has_glyph)):
        characters = "".join(run)
        parts.append(characters if can_draw else _code_points(characters))
    return "".join(parts)


def _is_drawable(character: str, has_glyph: Callable[[str], bool]) -> bool:
    is_control = unicodedata.category(character)[0] == "C" and character not in _JOINERS
    is_line_end = unicodedata.category(character) in ("Zl", "Zp")
    return not is_control and not is_line_end and has_glyph(character)


def _code_points(characters: str) -> str:
    return "⟨" + " ".join(f"{ord(character):04X}" for character in characters) + "⟩"


def _files(families: Sequence[str]) -> list[str]:
    from matplotlib.font_manager import FontProperties, findfont

    return [
        str(findfont(FontProperties(family=family), fallback_to_default=False))
        for family in families
    ]
