"""Charts are well-formed, complete in themselves, and inside their width."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from mastodon_assets.dashboard.charts.bars import (
    Bar,
    StackedBar,
    count_label,
    horizontal_bars,
    stacked_shares,
)
from mastodon_assets.dashboard.charts.heatmap import week_map
from mastodon_assets.dashboard.charts.svg import clean, fitted, framed, ticks, width_of
from mastodon_assets.dashboard.charts.time_series import (
    Series,
    Shares,
    shares_over_time,
    stacked_columns,
)
from mastodon_assets.dashboard.formats import as_png
from mastodon_assets.dashboard.intervals import share
from mastodon_assets.dashboard.views.periods import axis_of, floor, grain_for
from mastodon_assets_tests.support.report_rows import ODD_HASHTAGS

_START = datetime(2026, 11, 20, tzinfo=UTC)
_SVG = "{http://www.w3.org/2000/svg}"


def _pictures(width: int, periods: int) -> list[str]:
    end = _START + timedelta(days=periods)
    axis = axis_of(grain_for(_START, end, shortest="hour"), _START, end)
    count = len(axis.starts)
    languages = [Series(f"l{n}", [n + 1] * count) for n in range(6)]
    shares = [
        Shares(name, name, [share(n % 9, 9) if n % 4 else None for n in range(count)])
        for name in ("positive", "negative")
    ]
    bars = [Bar(f"#{tag}", 5.0, "5 · 2.0×", mark=2.0) for tag in ODD_HASHTAGS]
    parts = [("positive", 0.6), ("negative", 0.4)]
    stacked = [StackedBar(tag, "n = 9", parts) for tag in ODD_HASHTAGS]
    stacked.append(StackedBar("few", "", ()))
    means = {(day, hour): float(day * hour) for day in range(1, 8) for hour in range(24)}
    return [
        stacked_columns(width, axis, languages, "posts per day", 'a <summary> & "more"'),
        shares_over_time(width, axis, shares, [9] * count, "shares"),
        horizontal_bars(width, bars, "bars", mark_name="usual"),
        stacked_shares(width, stacked, [("positive", "positive")], "s"),
        week_map(width, means, "week"),
        horizontal_bars(width, [], "nothing"),
    ]


@pytest.mark.parametrize("width", [326, 560, 1160])
@pytest.mark.parametrize("periods", [1, 30, 366])
def test_every_chart_is_well_formed_and_inside_its_width(width: int, periods: int) -> None:
    for picture in _pictures(width, periods):
        root = ElementTree.fromstring(picture)  # noqa: S314
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert root.get("viewBox") == f"0 0 {width} {root.get('height')}"
        for rectangle in root.iter(f"{_SVG}rect"):
            left, wide = float(rectangle.get("x", 0)), float(rectangle.get("width", 0))
            assert -1 <= left <= left + wide <= width + 1
        assert "style=" not in picture
        assert "<script" not in picture


def test_a_file_has_its_colours_title_and_notes_in_itself_and_becomes_a_png() -> None:
    chart = horizontal_bars(900, [Bar("<b>", 1.0, "1")], "a bar")
    document = framed(chart, 900, "Title & more", "subtitle", ["a note " * 60], "a bar")
    root = ElementTree.fromstring(document)  # noqa: S314
    texts = ["".join(each.itertext()) for each in root.iter(f"{_SVG}text")]
    assert texts[:3] == ["Title & more", "subtitle", "<b>"]
    assert sum(text.startswith("a note") for text in texts) > 1
    assert all(each.get("fill") for each in root.iter(f"{_SVG}text"))
    assert as_png(document).startswith(b"\x89PNG")


def test_what_breaks_xml_or_turns_the_surroundings_is_left_out() -> None:
    assert clean("x\u202ey\x00\ud800z\u2066") == "xyz"
    assert clean("👩\u200d💻 مرحبا") == "👩\u200d💻 مرحبا"
    short = fitted("日" * 60, 100)
    assert short.endswith("…")
    assert width_of(short) <= 112
    assert fitted("tea", 100) == "tea"


def test_axes_have_few_round_numbers_that_reach_the_highest_value() -> None:
    for highest in (0, 0.4, 1, 3, 7, 99, 101, 1234, 5_000_000):
        steps = ticks(highest)
        assert steps[0] == 0
        assert steps[-1] >= highest
        assert 2 <= len(steps) <= 6
    assert count_label(12_345, 0.0045) == "12,345 · 0.4 %"
    assert count_label(1, 0.0001) == "1 · <0.1 %"


@pytest.mark.parametrize(
    ("length", "name"),
    [
        (timedelta(hours=1), "minute"),
        (timedelta(hours=6), "5 minutes"),
        (timedelta(days=4), "hour"),
        (timedelta(days=7), "6 hours"),
        (timedelta(days=90), "day"),
        (timedelta(days=365), "week"),
        (timedelta(days=3650), "4 weeks"),
    ],
)
def test_periods_are_as_long_as_a_hundred_columns_need(length: timedelta, name: str) -> None:
    grain = grain_for(_START, _START + length)
    assert grain.name == name
    axis = axis_of(grain, _START, _START + length)
    assert axis.starts[0] == floor(grain, _START)
    assert len(axis.starts) <= 140
    assert any(axis.labels)


def test_a_month_of_several_weeks_is_named_once() -> None:
    end = datetime(2026, 11, 29, tzinfo=UTC)
    start = end - timedelta(days=365)
    axis = axis_of(grain_for(start, end), start, end)
    named = [label for label in axis.labels if label]
    assert len(named) == len(set(named)) == 13
    assert named[1:3] == ["Dec 2025", "Jan 2026"]


@pytest.mark.parametrize("width", [326, 1160])
def test_labels_of_months_have_room_also_if_the_first_one_is_short(width: int) -> None:
    end = datetime(2026, 11, 29, tzinfo=UTC)
    start = end - timedelta(days=365)
    axis = axis_of(grain_for(start, end), start, end)
    assert axis.labels[:2] == ["Nov 2025", "Dec 2025"]
    drawn = stacked_columns(width, axis, [Series("en", [1] * len(axis.starts))], "posts", "posts")
    places = sorted(
        float(element.attrib["x"])
        for element in ElementTree.fromstring(drawn).iter(f"{_SVG}text")  # noqa: S314 - ours
        if element.text in axis.labels
    )
    assert len(places) > 2
    gaps = [after - before for before, after in pairwise(places)]
    assert min(gaps) > width_of("Nov 2025")
