from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mastodon_assets.ingest.policy.consent import withheld_reason
from mastodon_assets_tests.support.documents import account, status


def without(document: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != name}


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (status(), None),
        (without(status(), "reblog"), None),
        (status(account=without(account(), "noindex")), None),
        (status(account=account(noindex=None, indexable=None)), None),
        (status(visibility="unlisted"), "not_public"),
        (status(visibility="private"), "not_public"),
        (status(visibility="direct"), "not_public"),
        (status(visibility="Public"), "not_public"),
        (status(visibility="local"), "not_public"),
        (status(reblog=status("2")), "boost"),
        (status(reblog={}), "boost"),
        (status(account=account(noindex=True)), "noindex"),
        (status(account=account(noindex=1)), "noindex"),
        (status(account=account(noindex=0)), None),
        (status(account=without(account(), "note")), None),
        (status(account=account(note=None, display_name=None, fields=None)), None),
        (status(local_only=True), "local_only"),
        (status(local_only=1), "local_only"),
        (status(local_only=False), None),
        (status(local_only=None), None),
        # What does not say enough.
        (None, "unreadable"),
        ([], "unreadable"),
        ("public", "unreadable"),
        ({}, "unreadable"),
        (without(status(), "account"), "unreadable"),
        (status(account=None), "unreadable"),
        (status(account="ada"), "unreadable"),
        (without(status(), "visibility"), "unreadable"),
        (status(visibility=None), "unreadable"),
        (status(visibility=True), "unreadable"),
        (status(account=account(display_name=5)), "unreadable"),
        (status(account=account(fields="#nobot")), "unreadable"),
        (status(account=account(fields=["#nobot"])), "unreadable"),
        (status(account=account(fields=[{"name": ["#nobot"]}])), "unreadable"),
        (status(account=account(note=["#nobot"])), "unreadable"),
        (status(account=account(noindex="no")), "unreadable"),
    ],
)
def test_a_post_is_withheld_for_the_reason_it_gives(document: object, reason: str | None) -> None:
    assert withheld_reason(document, policy="respect") == reason


@pytest.mark.parametrize(
    "bio",
    [
        "#nobot",
        "<p>Cats. #NoBot</p>",
        "<p>#NOINDEX please</p>",
        '<p><a href="https://one.example/tags/nobot" rel="tag">#<span>nobot</span></a></p>',
        "<p>here:#nobot.</p>",
        "<p>&#35;nobot</p>",
        "<p>&num;nobot</p>",
        "<p>＃nobot</p>",
        "<p>\N{SMALL NUMBER SIGN}nobot</p>",
        "<p>cats</p><p>#nobot</p><p>dogs</p>",
        "<p>cats<br>#nobot<br>dogs</p>",
        "#nobot-thanks",
        "<p>#\u200bnobot</p>",
        "<p>#no\u00adbot</p>",
        "<p>cats\u200b#nobot</p>",
        "<p>#nobots</p>",
        "<p>#NoSearch #cats</p>",
        "<p>#noarchive</p>",
        "<p>＃ＮＯＢＯＴ</p>",
    ],
)
def test_a_tag_in_the_text_of_the_bio_withholds_the_post(bio: str) -> None:
    assert withheld_reason(status(account=account(note=bio)), policy="respect") == "nobot"


@pytest.mark.parametrize(
    "bio",
    [
        "",
        "<p>#nobotany</p>",
        "<p>#nobotics</p>",
        "<p>#noindexing</p>",
        "<p>#nobot_friends</p>",
        "<p>nobot</p>",
        "<p>a#nobot</p>",
        '<p><a href="https://one.example/tags/#nobot">garden</a></p>',
        "<p># nobot</p>",
    ],
)
def test_what_is_not_the_whole_tag_withholds_nothing(bio: str) -> None:
    assert withheld_reason(status(account=account(note=bio)), policy="respect") is None


@pytest.mark.parametrize(
    "profile",
    [
        {"display_name": "Ada #nobot"},
        {"fields": [{"name": "Pronouns", "value": "she"}, {"name": "bots", "value": "#noindex"}]},
        {"fields": [{"name": "#NoSearch", "value": None}]},
        {"note": None, "fields": [{"name": "", "value": "<p>cats</p><p>#noarchive</p>"}]},
    ],
)
def test_a_tag_in_profile_fields_or_display_name_withholds_the_post(
    profile: dict[str, Any],
) -> None:
    assert withheld_reason(status(account=account(**profile)), policy="respect") == "nobot"


@pytest.mark.parametrize(
    ("indexable", "reason"),
    [(True, None), (False, "not_indexable"), (None, "not_indexable"), ("yes", "not_indexable")],
)
def test_opt_in_demands_that_the_account_says_yes(indexable: object, reason: str | None) -> None:
    document = status(account=account(indexable=indexable))

    assert withheld_reason(document, policy="opt-in") == reason
    assert withheld_reason(document, policy="respect") is None


def test_the_recorded_statuses_are_withheld_as_counted_by_hand(
    recorded_statuses: list[dict[str, Any]],
) -> None:
    reasons = [withheld_reason(document, policy="respect") for document in recorded_statuses]

    passed = {
        document["uri"]
        for document, reason in zip(recorded_statuses, reasons, strict=True)
        if reason is None
    }
    assert len(recorded_statuses) == 1163
    assert len(passed) == 1051
    assert Counter(reasons) == {
        None: 1057,
        "not_public": 73,
        "noindex": 15,
        "nobot": 10,
        "boost": 8,
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=5,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "visibility": st.just("public") | JSON,
            "reblog": st.none() | JSON,
            "account": st.fixed_dictionaries(
                {}, optional={"note": JSON, "noindex": JSON, "indexable": JSON, "fields": JSON}
            )
            | JSON,
        },
    )
)
def test_only_a_document_that_says_enough_passes(document: dict[str, Any]) -> None:
    if withheld_reason(document, policy="opt-in") is None:
        assert document["visibility"] == "public"
        assert document.get("reblog") is None
        assert document["account"].get("noindex") in (None, False)
        assert document["account"]["indexable"] is True
        assert isinstance(document["account"].get("note"), str | None)
