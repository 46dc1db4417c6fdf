"""SVG elements, colours, axes and text that fits.

Every colour is an attribute, which makes a file complete. Every element also has a class, so that
the page's style sheet can recolour it in the dark.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from typing import Any

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"
TEXT_SIZE = 12
# Blue and orange stay apart with every kind of colour blindness, as in the chart files.
COLOURS: Mapping[str, str] = {
    "positive": "#2B6CA3",
    "neutral": "#B4BEC5",
    "negative": "#D9772B",
    "count": "#3D5A73",
    "usual": "#B8461B",
    "ink": "#1F2A33",
    "muted": "#5B6770",
    "grid": "#E3E7EA",
    # Languages; Paul Tol's scheme "muted", in an order in which neighbours differ in lightness.
    "s0": "#332288",
    "s1": "#44AA99",
    "s2": "#DDCC77",
    "s3": "#AA4499",
    "s4": "#88CCEE",
    "s5": "#9AA5AD",
}
SERIES = ("s0", "s1", "s2", "s3", "s4", "s5")


def element(name: str, content: str = "", **attributes: object) -> str:
    """Return an element; `_` at the end or inside an attribute's name becomes nothing or `-`."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{written}>{content}</{name}>" if content else f"<{name}{written}/>"


def _number(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def picture(width: int, height: float, parts: Sequence[str], summary: str) -> str:
    """Return a whole SVG document of that size, which assistive technology reads as `summary`."""
    height = ceil(height)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" role="img" aria-label="{escape(clean(summary))}"'
        f' font-family="{FONT}" font-size="{TEXT_SIZE}">{"".join(parts)}</svg>'
    )


def text(
    x: float, y: float, content: str, *, anchor: str = "start", colour: str = "ink", **more: Any
) -> str:
    """Return a line of text; its own direction does not change where it is."""
    return element(
        "text",
        escape(clean(content)),
        x=float(x),
        y=float(y),
        text_anchor=None if anchor == "start" else anchor,
        fill=COLOURS[colour],
        class_=f"t-{colour}",
        **more,
    )


def rectangle(x: float, y: float, width: float, height: float, colour: str) -> str:
    """Return a filled rectangle."""
    return element(
        "rect",
        x=float(x),
        y=float(y),
        width=float(max(width, 0)),
        height=float(max(height, 0)),
        fill=COLOURS[colour],
        class_=f"f-{colour}",
    )


def line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    """Return a straight line."""
    return element(
        "path",
        d=f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}",
        stroke=COLOURS[colour],
        stroke_width=width,
        class_=f"l-{colour}",
    )


def path(d: str, *, fill: str | None = None, stroke: str | None = None, **more: Any) -> str:
    """Return a path that is filled or stroked."""
    return element(
        "path",
        d=d,
        fill=COLOURS[fill] if fill else "none",
        stroke=COLOURS[stroke] if stroke else None,
        class_=f"f-{fill}" if fill else f"l-{stroke}",
        **more,
    )


def ticks(highest: float, count: int = 4) -> list[float]:
    """Return round numbers from 0 to the first one that is not less than `highest`."""
    if highest <= 0:
        return [0, 1]
    rough = highest / count
    magnitude = 10 ** floor(log10(rough))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * 0.999)
    if highest >= 1 and step < 1:
        step = 1
    return [step * index for index in range(ceil(highest / step - 1e-9) + 1)]


def short(number: float) -> str:
    """Return a count as an axis shows it: 950, 1.2k, 3M."""
    for limit, suffix in ((1_000_000, "M"), (10_000, "k")):
        if number >= limit:
            return f"{number / (1000 if suffix == 'k' else limit):.3g}{suffix}"
    return f"{number:,.0f}" if number == int(number) else f"{number:g}"


def clean(content: str) -> str:
    """Return the text without what breaks XML or turns the direction of its surroundings.

    Joiners stay, which scripts and emoji need.
    """
    return "".join(
        char
        for char in content
        if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn")
        or char in "\u200c\u200d"
    )


def width_of(content: str, size: float = TEXT_SIZE) -> float:
    """Estimate the width of a text in pixels."""
    return size * sum(map(_ems, content))


def _ems(char: str) -> float:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0.0
    if unicodedata.east_asian_width(char) in ("W", "F"):
        return 1.0
    if char in "iljft.,:;'|!()[] ":
        return 0.36
    return 0.98 if char in "mwMW@%" else 0.72 if char.isupper() else 0.63


def fitted(content: str, width: float, size: float = TEXT_SIZE) -> str:
    """Return the text, or as much of it as fits into `width` pixels, with an ellipsis."""
    content = clean(content)
    if width_of(content, size) <= width:
        return content
    used, kept = size, ""
    for char in content:
        used += size * _ems(char)
        if used > width:
            break
        kept += char
    return kept.rstrip() + "…"


def framed(
    chart: str, width: int, title: str, subtitle: str, notes: Sequence[str], summary: str
) -> str:
    """Return a chart of `picture` as a document with its title above and its notes below."""
    margin, top = 20, 62
    size = chart.partition(' height="')[2]
    height = int(size.partition('"')[0])
    lines = [line for note in notes for line in _wrapped(note, width, 11)]
    whole = top + height + 18 + 16 * len(lines) + 10
    nested = chart.replace("<svg ", f'<svg x="{margin}" y="{top}" ', 1)
    parts = [
        f'<rect width="{width + 2 * margin}" height="{whole}" fill="#fff"/>',
        text(margin, 26, title, font_size=18, font_weight=600),
        text(margin, 46, subtitle, colour="muted"),
        nested,
        *(
            text(margin, top + height + 24 + 16 * number, content, colour="muted", font_size=11)
            for number, content in enumerate(lines)
        ),
    ]
    return picture(width + 2 * margin, whole, parts, summary or title)


def _wrapped(content: str, width: float, size: float) -> list[str]:
    lines, current = [], ""
    for word in content.split():
        longer = f"{current} {word}".strip()
        if current and width_of(longer, size) > width:
            lines.append(current)
            longer = word
        current = longer
    return [*lines, current] if current else lines
