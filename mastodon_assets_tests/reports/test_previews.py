"""Pictures in Markdown: small enough for the page that shows them."""

import base64
import io
from xml.etree import ElementTree

import pytest
from PIL import Image

from mastodon_assets.reports import charts
from mastodon_assets.reports.previews import preview_markdown, sparkline_markdown
from mastodon_assets_tests.support.report_frames import per_day


def _content(markdown: str, media_type: str) -> bytes:
    start, _, encoded = markdown.partition(";base64,")
    assert start.endswith(f"](data:{media_type}")
    return base64.b64decode(encoded.removesuffix(")"), validate=True)


def _heights(markdown: str) -> list[int]:
    svg = ElementTree.fromstring(_content(markdown, "image/svg+xml"))  # noqa: S314
    bars = svg[0].attrib["d"].split("M")[1:]
    return [int(bar.rpartition("v-")[2]) for bar in bars]


def test_a_preview_is_a_png_360_pixels_wide() -> None:
    figure = charts.toots_per_day(per_day(7))
    picture = Image.open(io.BytesIO(_content(preview_markdown(figure), "image/png")))
    assert picture.format == "PNG"
    assert picture.width == 360


@pytest.mark.parametrize("count", [1, 30, 40, 41, 366, 100_000])
def test_a_sparkline_of_any_length_stays_inline(count: int) -> None:
    assert len(sparkline_markdown([10**9] * count)) < 900


def test_a_sparkline_shows_each_value_in_proportion_to_the_highest() -> None:
    assert _heights(sparkline_markdown([10, 5, 0, 20])) == [20, 10, 40]


def test_many_values_are_summed_and_the_newest_bar_is_a_whole_one() -> None:
    assert _heights(sparkline_markdown([1] * 79)) == [20, *[40] * 39]


def test_no_values_and_only_zeros_draw_nothing() -> None:
    assert sparkline_markdown([]) == ""
    assert _heights(sparkline_markdown([0, 0])) == []
