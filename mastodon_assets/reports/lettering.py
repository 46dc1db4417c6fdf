"""Text from the network as text in a picture: any script, any length, nothing lost in silence.

What belongs here: which fonts are asked, and what stands for a character that none of them has.

matplotlib brings DejaVu Sans alone: Latin, Greek, Cyrillic, Arabic, Hebrew and more, but no
Chinese, Japanese, Korean, Indic scripts or emoji. Of the families below those that the machine has
are asked next. What still has no glyph is written as its code points, `⟨65E5 672C⟩`: ugly, but
exact, where a box would hide which text it was and a transliteration would guess. Right-to-left
text is ordered and joined by matplotlib itself (3.11 or newer).
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


def installed_families(wanted: Sequence[str] = FONT_FAMILIES) -> list[str]:
    """Those of `wanted` that this machine has, in this order."""
    from matplotlib.font_manager import fontManager

    known = {font.name for font in fontManager.ttflist}
    return [family for family in wanted if family in known]


def glyph_lookup(families: Sequence[str]) -> Callable[[str], bool]:
    """A function that says whether one of `families`, all installed, has a character's glyph."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    fonts = [
        get_font(findfont(FontProperties(family=family), fallback_to_default=False))
        for family in families
    ]
    return lambda character: any(font.get_char_index(ord(character)) for font in fonts)


def label(text: str, has_glyph: Callable[[str], bool], max_width: int) -> str:
    """`text` as it can be drawn, cut with an ellipsis to `max_width` letters.

    A character of East Asian width counts as two. Characters without a glyph, and those that
    are invisible or turn the writing direction, become their code points in angle brackets.
    """
    whole = spelled_out(text, has_glyph)
    if _width(whole) <= max_width:
        return whole
    # No character is drawn narrower than half a letter, joiners and marks aside; those may be cut.
    for end in range(min(len(text), max_width), 0, -1):
        beginning = spelled_out(text[:end], has_glyph) + "…"
        if _width(beginning) <= max_width:
            return beginning
    return "…"


def spelled_out(text: str, has_glyph: Callable[[str], bool]) -> str:
    """`text` with each run of characters that cannot be drawn as `⟨code points in hex⟩`."""
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


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
