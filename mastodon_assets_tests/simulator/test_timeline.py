"""Paging through a timeline."""

from functools import partial

import pytest

from mastodon_assets.simulator.timeline import Entry, PageRequest, Timeline


def timeline(ids: str) -> Timeline:
    """One entry a letter, in this order; a letter means its last place. Capitals are local."""
    places = {letter: place for place, letter in enumerate(ids)}
    entries = [
        Entry(place, letter, letter.isupper(), partial(bytes, letter, "ascii"))
        for place, letter in enumerate(ids)
    ]
    return Timeline(entries, position_of=lambda letter: places.get(letter, -1))


def page(ids: str, request: PageRequest) -> str:
    return "".join(entry.status_id for entry in timeline(ids).page(request))


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (PageRequest(limit=3), "hgf"),
        (PageRequest(limit=3, max_id="d"), "cba"),
        (PageRequest(limit=3, max_id="b"), "a"),
        (PageRequest(limit=3, since_id="b"), "hgf"),
        (PageRequest(limit=3, since_id="f"), "hg"),
        (PageRequest(limit=3, min_id="b"), "edc"),
        (PageRequest(limit=3, min_id="h"), ""),
        (PageRequest(limit=3, min_id="b", max_id="e"), "dc"),
        (PageRequest(limit=3, since_id="b", max_id="e"), "dc"),
        (PageRequest(limit=3, min_id="unknown"), "cba"),
        (PageRequest(limit=3, max_id="unknown"), ""),
    ],
)
def test_a_page_is_newest_first_and_min_id_walks_forward(
    request_: PageRequest, expected: str
) -> None:
    assert page("abcdefgh", request_) == expected


def test_a_page_of_one_kind_is_full_although_the_other_kind_lies_between() -> None:
    assert page("aBcDeFgH", PageRequest(limit=2, is_local=True)) == "HF"
    assert page("aBcDeFgH", PageRequest(limit=2, is_local=False, min_id="a")) == "ec"


@pytest.mark.parametrize("limit", [2, 3, 4, 5])
def test_walking_forward_past_an_id_that_is_listed_twice_skips_nothing(limit: int) -> None:
    ids, seen, last = "abcXdefghXij", "", "unknown"
    while found := page(ids, PageRequest(limit=limit, min_id=last)):
        seen += found[::-1]
        last = found[0]
    assert set(seen) == set(ids)


@pytest.mark.parametrize("limit", [2, 3, 4, 5])
def test_walking_back_past_an_id_that_is_listed_twice_ends(limit: int) -> None:
    ids, seen, request = "abcXdefghXij", "", PageRequest(limit=limit)
    for _ in range(len(ids)):
        found = page(ids, request)
        seen += found
        if not found:
            break
        request = PageRequest(limit=limit, max_id=found[-1])
    assert found == ""
    assert set(seen) == set(ids)
