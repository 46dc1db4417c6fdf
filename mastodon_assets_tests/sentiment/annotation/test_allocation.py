"""How many posts are drawn from each stratum."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mastodon_assets.errors import SettingsError
from mastodon_assets.sentiment.annotation.allocation import (
    Stratum,
    allocate,
    group_languages,
    strata_sizes,
)

_LABELS = ("positive", "neutral", "negative")


def stratum(number: int) -> Stratum:
    return Stratum(f"l{number}", "positive", 1)


def test_languages_below_two_percent_are_one_group() -> None:
    groups = group_languages({"en": 9_000, "de": 800, "fr": 150, "ja": 50})
    assert groups == {"en": "en", "de": "de", "fr": "other", "ja": "other"}


def test_each_label_has_two_halves_and_the_first_has_the_odd_post() -> None:
    counts = {("en", "positive"): 5, ("fr", "positive"): 2, ("ja", "positive"): 1, ("hi", None): 7}
    groups = {"en": "en", "fr": "other", "ja": "other", "hi": "hi"}
    sizes = strata_sizes(counts, groups)
    assert sizes == {
        Stratum("en", "positive", 1): 3,
        Stratum("en", "positive", 2): 2,
        Stratum("other", "positive", 1): 2,
        Stratum("other", "positive", 2): 1,
        Stratum("hi", None, 1): 7,
    }
    assert [each.name for each in sizes][-2:] == ["other, positive, higher half", "hi, no label"]


def test_a_stratum_with_one_post_has_no_empty_half() -> None:
    assert strata_sizes({("en", "neutral"): 1}, {"en": "en"}) == {Stratum("en", "neutral", 1): 1}


def test_all_posts_are_drawn_if_there_are_not_more() -> None:
    sizes = {stratum(1): 3, stratum(2): 4}
    assert allocate(sizes, 300) == sizes


def test_draws_grow_with_the_square_root_of_a_stratum() -> None:
    drawn = allocate({stratum(1): 10_000, stratum(2): 100}, 110)
    assert drawn == {stratum(1): 100, stratum(2): 10}


def test_a_rare_stratum_gives_two_posts_or_all_it_has() -> None:
    drawn = allocate({stratum(1): 1_000_000, stratum(2): 9, stratum(3): 1}, 20)
    assert drawn == {stratum(1): 17, stratum(2): 2, stratum(3): 1}


def test_a_size_that_is_too_small_for_the_strata_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"--size 5 is too small: there are 3 .* at least 6"):
        allocate({stratum(number): 100 for number in range(3)}, 5)


@given(st.lists(st.integers(1, 5_000), min_size=1, max_size=40), st.integers(80, 400))
def test_the_draws_add_up_and_no_stratum_gives_more_than_it_has(
    counts: list[int], wanted: int
) -> None:
    sizes = {stratum(number): count for number, count in enumerate(counts)}
    drawn = allocate(sizes, wanted)
    assert sum(drawn.values()) == min(wanted, sum(counts))
    assert all(min(2, size) <= drawn[each] <= size for each, size in sizes.items())
