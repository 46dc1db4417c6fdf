"""Hashtags of any script become letters that a picture can hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from mastodon_assets.reports.text_fitting import (
    glyph_lookup,
    installed_families,
    label,
    spelled_out,
    text_width,
)

_DEJAVU = glyph_lookup(["DejaVu Sans"])


@pytest.mark.parametrize(
    "text",
    ["caturday", "Ελλάδα", "Україна", "مرحبا_بالعالم", "עברית", "$x$", "<b>", "می\u200cخواهم"],
)
def test_what_the_font_has_stays_as_it_is(text: str) -> None:
    assert spelled_out(text, _DEJAVU) == text


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("日本", "⟨65E5 672C⟩"),
        ("🎉party", "⟨1F389⟩party"),
        ("a\u202eb", "a⟨202E⟩b"),  # right-to-left override: would show `ba`
        ("a\x00\nb", "a⟨0000 000A⟩b"),
        ("a\u2028b", "a⟨2028⟩b"),
    ],
)
def test_what_cannot_be_drawn_or_misleads_is_spelled_as_code_points(
    text: str, spelled: str
) -> None:
    assert spelled_out(text, _DEJAVU) == spelled


def test_a_family_of_the_machine_helps_where_the_first_has_no_glyph() -> None:
    script_l = "\U0001d4c1"
    assert not _DEJAVU(script_l)
    assert glyph_lookup(["DejaVu Sans", "STIXGeneral"])(script_l)


def test_families_that_the_machine_lacks_are_left_out() -> None:
    assert installed_families(["No Such Family", "DejaVu Sans"]) == ["DejaVu Sans"]


@pytest.mark.parametrize(
    ("text", "drawn"), [("abcde", "abcde"), ("abcdef", "abcd…"), ("日本", "…"), ("a日", "a…")]
)
def test_a_name_that_does_not_fit_is_cut_with_an_ellipsis_never_within_code_points(
    text: str, drawn: str
) -> None:
    assert label(text, _DEJAVU, lambda cut: len(cut) <= 5) == drawn


def test_text_is_measured_in_inches_as_it_will_be_drawn() -> None:
    width = text_width(["DejaVu Sans"], 9)
    figure = Figure(dpi=200)
    for text in ("#caturday", "W" * 30, "مرحبا_بالعالم"):
        drawn = figure.text(0, 0, text, fontsize=9).get_window_extent()
        assert width(text) == pytest.approx(drawn.width / 200, rel=0.05)


def test_a_pile_of_marks_is_cut_though_it_takes_no_room() -> None:
    width = text_width(["DejaVu Sans"], 9)
    drawn = label("a" + "\u0301" * 5000, _DEJAVU, lambda text: width(text) < 2)
    assert len(drawn) <= 61


@given(st.text())
def test_a_label_always_fits_and_never_holds_a_missing_glyph(text: str) -> None:
    width = text_width(["DejaVu Sans"], 9)
    drawn = label(text, _DEJAVU, lambda text: width(text) < 1)
    assert width(drawn) < 1
    assert all(_DEJAVU(character) for character in drawn)
    assert bool(drawn) == bool(text)
