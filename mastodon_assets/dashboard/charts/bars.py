"""Horizontal bars by name: counts with a mark for comparison, and stacked shares."""

from collections.abc import Sequence
from dataclasses import dataclass

from mastodon_assets.dashboard.charts.svg import (
    element,
    fitted,
    line,
    picture,
    rectangle,
    short,
    text,
    width_of,
)
from mastodon_assets.dashboard.intervals import percent

_ROW = 26.0
_BAR = 14.0
_GAP = 8.0


@dataclass(frozen=True)
class Bar:
    """A named bar.

    Attributes:
        name: As shown; long names are shortened.
        value: Its length.
        label: What is written behind it.
        mark: A value to compare with, drawn as a line across the bar.
    """

    name: str
    value: float
    label: str
    mark: float | None = None


@dataclass(frozen=True)
class StackedBar:
    """A named bar of parts that add up to the whole width; the label is behind the name."""

    name: str
    label: str
    parts: Sequence[tuple[str, float]]


def horizontal_bars(
    width: int, bars: Sequence[Bar], summary: str, *, mark_name: str | None = None
) -> str:
    """Draw a bar per name, the first at the top.

    Args:
        width: Of the picture, in pixels.
        bars: The bars.
        summary: The chart in one sentence.
        mark_name: What the marks are; None if there are none.
    """
    names_width = min(max((width_of(bar.name) for bar in bars), default=0) + 4, width * 0.42)
    labels_width = max((width_of(bar.label) for bar in bars), default=0) + 8
    left = names_width + _GAP
    room = max(width - left - labels_width, 40)
    highest = max((max(bar.value, bar.mark or 0) for bar in bars), default=0) or 1
    parts, top = [], 0.0
    if mark_name:
        parts.append(line(2, 3, 2, 15, "usual", 3))
        parts.append(text(12, 13, mark_name, colour="muted"))
        top = 24.0
    for number, bar in enumerate(bars):
        y = top + number * _ROW
        middle = y + _BAR - 2.5
        length = room * bar.value / highest
        name = fitted(bar.name, names_width)
        parts.append(text(names_width, middle, name, anchor="end"))
        parts.append(rectangle(left, y, max(length, 1.5 if bar.value else 0), _BAR, "count"))
        end = left + length
        if bar.mark is not None:
            x = left + room * bar.mark / highest
            parts.append(line(x, y - 3, x, y + _BAR + 3, "usual", 3))
            end = max(end, x + 2)
        parts.append(text(end + 6, middle, bar.label, colour="muted"))
    return picture(width, top + len(bars) * _ROW, parts, summary)


def stacked_shares(
    width: int, bars: Sequence[StackedBar], legend: Sequence[tuple[str, str]], summary: str
) -> str:
    """Draw a bar of shares per name, the first at the top.

    Args:
        width: Of the picture, in pixels.
        bars: The bars; each part is a colour and a share.
        legend: Name and colour of each part.
        summary: The chart in one sentence.
    """
    names_width = min(max((width_of(bar.name) for bar in bars), default=0) + 4, width * 0.3)
    labels_width = max((width_of(bar.label) for bar in bars), default=0) + 10
    left, right = names_width + _GAP, width - labels_width
    parts, x = [], 0.0
    for name, colour in legend:
        parts.append(rectangle(x, 3, 12, 12, colour))
        parts.append(text(x + 18, 13, name))
        x += 34 + width_of(name)
    for number, bar in enumerate(bars):
        y = 28 + number * _ROW
        parts.append(text(names_width, y + 11.5, fitted(bar.name, names_width), anchor="end"))
        start = left
        for colour, share in bar.parts:
            length = (right - left) * share
            parts.append(rectangle(start, y, length - (1 if length > 3 else 0), _BAR, colour))
            if length > 42:
                parts.append(
                    element(
                        "text",
                        f"{share * 100:.0f} %",
                        x=start + length / 2,
                        y=y + 11,
                        text_anchor="middle",
                        font_size=11,
                        fill="#000" if colour == "neutral" else "#fff",
                        class_=f"on-{colour}",
                    )
                )
            start += length
        if not bar.parts:
            parts.append(text(left, y + 11.5, "withheld: fewer than 5 labelled", colour="muted"))
        else:
            parts.append(text(width, y + 11.5, bar.label, anchor="end", colour="muted"))
    return picture(width, 28 + len(bars) * _ROW, parts, summary)


def count_label(count: int, share: float | None = None) -> str:
    """Return a count, with its share of the whole if that is given."""
    shown = f"{count:,}" if count < 1_000_000 else short(count)
    return shown if share is None else f"{shown} · {percent(share)}"
