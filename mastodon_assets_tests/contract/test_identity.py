import pytest

from mastodon_assets.contract.identity import (
    account_form,
    domain_form,
    full_handle,
    searched_tag,
    tag_form,
    unicode_domain,
    uri_host,
)


@pytest.mark.parametrize(
    ("spelling", "form"),
    [
        ("@Sam@One.Example", "sam@one.example"),
        ("sam@bücher.example", "sam@xn--bcher-kva.example"),
        ("sam@BU\u0308CHER.example.", "sam@xn--bcher-kva.example"),
        ("sam@xn--bcher-kva.example", "sam@xn--bcher-kva.example"),
        ("sam@ｅxample.com", "sam@example.com"),
        ("sam@under_score.example", "sam@under_score.example"),
        ("Sam", "sam"),
    ],
)
def test_all_spellings_of_an_account_have_one_form(spelling: str, form: str) -> None:
    assert account_form(spelling) == form
    assert account_form(form) == form


def test_a_domain_that_idna_does_not_allow_is_kept() -> None:
    assert domain_form("\ud83d.example") == "\ud83d.example"
    assert domain_form(f"{'ü' * 70}.example") == f"{'ü' * 70}.example"


def test_a_domain_has_a_unicode_form_for_people() -> None:
    assert unicode_domain("xn--bcher-kva.example") == "bücher.example"
    assert unicode_domain("one.example") == "one.example"


def test_a_local_account_has_the_servers_domain_and_not_its_pages_host() -> None:
    account = {"acct": "sam", "url": "https://social.one.example/@sam"}

    assert full_handle(account, "one.example") == "sam@one.example"
    assert full_handle(account, "unknown") == "sam@social.one.example"


@pytest.mark.parametrize(
    ("one", "other"),
    [("caf\u00e9", "CAFE\u0301"), ("ＡＩ", "ai"), ("#Tea", "tea"), ("ｶﾌｪ", "カフェ")],
)
def test_hashtags_that_differ_by_case_or_unicode_form_are_one(one: str, other: str) -> None:
    assert tag_form(one) == tag_form(other)


def test_servers_compare_hashtags_without_latin_accents() -> None:
    assert searched_tag("Café") == "cafe"
    assert searched_tag("Łódź") == "lodz"
    assert searched_tag("ガ") == "ガ"
    assert tag_form("Café") == "café"


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        ("https://Social.One.example:8443/users/sam", "social.one.example"),
        ("https://bücher.example/users/sam", "xn--bcher-kva.example"),
        ("unknown/1", None),
        ("https://[", None),
        (None, None),
    ],
)
def test_the_host_of_a_uri_is_a_domain(uri: str | None, host: str | None) -> None:
    assert uri_host(uri) == host
