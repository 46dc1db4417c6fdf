"""Charts over time: stacked columns of counts, and shares with their intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mastodon_assets.dashboard.charts.svg import (
    COLOURS,
    SERIES,
    element,
    line,
    path,
    picture,
    short,
    text,
    ticks,
    width_of,
)
from mastodon_assets.dashboard.intervals import Share

_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 8.0, 10.0, 26.0
_LEGEND_LINE = 20.0
_LABEL_GAP = 18.0
# Up to that many columns have dots and whiskers; more have a line and a band.
_DOTS_UP_TO = 40


@dataclass(frozen=True)
class Series:
    """Counts by name, one per period."""

    name: str
    counts: Sequence[int]


@dataclass(frozen=True)
class Shares:
    """Shares by name, one per period; None where a share is withheld.

    Attributes:
        name: What is counted.
        colour: A key of `COLOURS`.
        values: The shares.
    """

    name: str
    colour: str
    values: Sequence[Share | None]


@dataclass(frozen=True)
class Axis:
    """The periods: the label of some, shown if there is room, and the whole name of each."""

    starts: Sequence[datetime]
    labels: Sequence[str]
    names: Sequence[str]


def stacked_columns(
    width: int, axis: Axis, series: Sequence[Series], unit: str, summary: str
) -> str:
    """Draw counts as columns, stacked by series, the first at the bottom.

    Args:
        width: Of the picture, in pixels.
        axis: The periods.
        series: At most six.
        unit: What a column counts, such as "posts per minute".
        summary: The chart in one sentence.
    """
    legend, top = _legend(width, [(each.name, SERIES[i]) for i, each in enumerate(series)])
    frame = _Frame(width, top + _TOP + 16, 200 if width > 500 else 170, len(axis.starts))
    totals = [sum(column) for column in zip(*(each.counts for each in series), strict=True)]
    steps = ticks(max(totals, default=0))
    parts = [*legend, text(0, top + 12, unit, colour="muted")]
    parts += _grid(frame, steps, [short(step) for step in steps])
    base = [0] * len(axis.starts)
    gap = 1 if frame.step > 4 else 0
    for index, each in enumerate(series):
        d = []
        for number, count in enumerate(each.counts):
            if count:
                bottom = frame.y(base[number], steps[-1])
                height = bottom - frame.y(base[number] + count, steps[-1])
                left, wide = frame.x(number), frame.step - gap
                d.append(f"M{left:.1f} {bottom:.1f}h{wide:.1f}v{-height:.1f}h{-wide:.1f}z")
                base[number] += count
        if d:
            parts.append(path("".join(d), fill=SERIES[index]))
    parts += _time_labels(frame, axis)
    parts += _hover(frame, axis, [_counts_text(series, n, totals[n]) for n in range(len(totals))])
    return picture(width, frame.bottom + _BOTTOM, parts, summary)


def _counts_text(series: Sequence[Series], number: int, total: int) -> str:
    parts = [f"{each.name} {each.counts[number]:,}" for each in series if each.counts[number]]
    return f"{total:,}" + (f" ({', '.join(parts)})" if len(parts) > 1 else "")


def shares_over_time(
    width: int, axis: Axis, series: Sequence[Shares], totals: Sequence[int], summary: str
) -> str:
    """Draw shares with 95 % intervals: dots and whiskers, or a line and a band if there are many.

    Args:
        width: Of the picture, in pixels.
        axis: The periods.
        series: The shares.
        totals: The posts that the shares are of, one number per period.
        summary: The chart in one sentence.
    """
    legend, top = _legend(width, [(each.name, each.colour) for each in series])
    frame = _Frame(width, top + _TOP + 16, 200 if width > 500 else 170, len(axis.starts))
    highest = max((s.high for each in series for s in each.values if s), default=1.0)
    steps = [step for step in ticks(min(highest * 100, 100)) if step <= 100]
    if steps[-1] < highest * 100 and steps[-1] < 100:
        steps.append(100)
    parts = [*legend, text(0, top + 12, "share of labelled posts", colour="muted")]
    parts += _grid(frame, steps, [f"{step:g} %" for step in steps])
    draw = _dots if len(axis.starts) <= _DOTS_UP_TO else _band
    for index, each in enumerate(series):
        offset = (index - (len(series) - 1) / 2) * min(9.0, frame.step / 4)
        parts += draw(frame, each, steps[-1] / 100, offset)
    parts += _time_labels(frame, axis)
    parts += _hover(frame, axis, [_shares_text(series, n, totals[n]) for n in range(len(totals))])
    return picture(width, frame.bottom + _BOTTOM, parts, summary)


def _shares_text(series: Sequence[Shares], number: int, total: int) -> str:
    values = ((each.name, each.values[number]) for each in series)
    parts = [
        f"{name} {share.value * 100:.0f} % ({share.low * 100:.0f} to {share.high * 100:.0f} %)"
        for name, share in values
        if share
    ]
    return f"{', '.join(parts) or 'withheld'}; n = {total:,}"


def _dots(frame: "_Frame", series: Shares, highest: float, offset: float) -> list[str]:
    whiskers, dots = [], []
    for number, share in enumerate(series.values):
        if share:
            x = frame.x(number) + frame.step / 2 + offset
            low, high = frame.y(share.low, highest), frame.y(share.high, highest)
            whiskers.append(f"M{x:.1f} {low:.1f}V{high:.1f}")
            dots.append(
                element(
                    "circle",
                    cx=x,
                    cy=frame.y(share.value, highest),
                    r=3.5,
                    fill=COLOURS[series.colour],
                    class_=f"f-{series.colour}",
                )
            )
    return [path("".join(whiskers), stroke=series.colour, stroke_width=2), *dots] if dots else []


def _band(frame: "_Frame", series: Shares, highest: float, _offset: float) -> list[str]:
    parts: list[str] = []
    for run in _runs(series.values):
        points = [(frame.x(number) + frame.step / 2, share) for number, share in run]
        if len(points) == 1:
            (x, only) = points[0]
            points = [(x - frame.step / 2, only), (x + frame.step / 2, only)]
        upper = [f"{x:.1f} {frame.y(share.high, highest):.1f}" for x, share in points]
        lower = [f"{x:.1f} {frame.y(share.low, highest):.1f}" for x, share in reversed(points)]
        middle = [f"{x:.1f} {frame.y(share.value, highest):.1f}" for x, share in points]
        parts.append(path(f"M{'L'.join(upper + lower)}z", fill=series.colour, fill_opacity="0.22"))
        parts.append(path(f"M{'L'.join(middle)}", stroke=series.colour, stroke_width=2))
    return parts


def _runs(values: Sequence[Share | None]) -> list[list[tuple[int, Share]]]:
    """Return the runs of neighbours that have a share."""
    runs: list[list[tuple[int, Share]]] = []
    for number, share in enumerate(values):
        if share is None:
            continue
        if runs and runs[-1][-1][0] == number - 1:
            runs[-1].append((number, share))
        else:
            runs.append([(number, share)])
    return runs


class _Frame:
    """Where the numbers of a chart are on the picture."""

    def __init__(self, width: int, top: float, height: float, columns: int) -> None:
        self.left, self.right = _LEFT, width - _RIGHT
        self.top, self.bottom = top, top + height
        # A single column is not as broad as the chart.
        self.step = (self.right - self.left) / max(columns, 6)
        self._start = self.left + (self.right - self.left - self.step * columns) / 2

    def x(self, number: int) -> float:
        """Return the left end of a column."""
        return self._start + number * self.step

    def y(self, value: float, highest: float) -> float:
        """Return the height of a value."""
        return self.bottom - (self.bottom - self.top) * value / (highest or 1)


def _grid(frame: _Frame, steps: Sequence[float], labels: Sequence[str]) -> list[str]:
    parts = []
    for step, label in zip(steps, labels, strict=True):
        y = frame.y(step, steps[-1])
        parts.append(line(frame.left, y, frame.right, y, "muted" if step == 0 else "grid"))
        parts.append(text(frame.left - 6, y + 4, label, anchor="end", colour="muted"))
    return parts


def _time_labels(frame: _Frame, axis: Axis) -> list[str]:
    """Label as many periods as have room, at about equal distances, the last label first."""
    named = [number for number, label in enumerate(axis.labels) if label]
    if not named:
        return []
    room = max(width_of(axis.labels[number]) for number in named) + _LABEL_GAP
    distance = frame.step * (named[-1] - named[0]) / max(len(named) - 1, 1)
    every = max(1, -int(-room // distance)) if distance else 1
    parts, following = [], frame.right + _RIGHT + room
    for number in named[::-1][::every]:
        x = frame.x(number) + frame.step / 2
        half = width_of(axis.labels[number]) / 2
        x = min(max(x, half), frame.right + _RIGHT - half)
        # Months begin in the fourth or fifth week after each other, the first anywhere.
        if following - x < room - _LABEL_GAP / 2:
            continue
        following = x
        label = text(x, frame.bottom + 18, axis.labels[number], anchor="middle", colour="muted")
        parts.append(label)
    return parts


def _hover(frame: _Frame, axis: Axis, texts: Sequence[str]) -> list[str]:
    """Return a transparent column per period whose title a pointer shows."""
    return [
        f'<rect x="{frame.x(number):.1f}" y="{frame.top:.1f}" width="{frame.step:.1f}"'
        f' height="{frame.bottom - frame.top:.1f}" fill="#000" fill-opacity="0" class="h">'
        f"<title>{axis.names[number]}: {_escaped(content)}</title></rect>"
        for number, content in enumerate(texts)
    ]


def _escaped(content: str) -> str:
    return content.replace("&", "&amp;").replace("<", "&lt;")


def _legend(width: int, names: Sequence[tuple[str, str]]) -> tuple[list[str], float]:
    """Return the legend and its height; none for a single series."""
    if len(names) < 2:
        return [], 0.0
    parts, x, y = [], 0.0, 14.0
    for name, colour in names:
        needed = 18 + width_of(name) + 16
        if x and x + needed - 16 > width:
            x, y = 0.0, y + _LEGEND_LINE
        parts.append(
            element(
                "rect",
                x=x,
                y=y - 10,
                width=12,
                height=12,
                rx=2,
                fill=COLOURS[colour],
                class_=f"f-{colour}",
            )
        )
        parts.append(text(x + 18, y, name))
        x += needed
    return parts, y + 8
