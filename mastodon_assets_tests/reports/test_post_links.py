"""Mentions and links of a post, in the HTML of several kinds of servers."""

import pytest

from mastodon_assets.reports.post_links import Links, Mention, links_of


@pytest.mark.parametrize(
    ("address", "text", "account"),
    [
        ("https://one.example/@Ada", "@<span>Ada</span>", "ada@one.example"),
        ("https://one.example/@bob@two.example", "@<span>bob</span>", "bob@two.example"),
        ("https://one.example/users/ada", "@ada@pages.example", "ada@pages.example"),
        ("https://snac.example/ben", "@ben", "ben@snac.example"),
        ("https://takahe.example/@ben/", "@ben", "ben@takahe.example"),
        ("https://b\u00fccher.example/@eva", "@eva", "eva@xn--bcher-kva.example"),
        ("https://one.example/web/accounts/7", "@ada", None),
        ("https://[/@ada", "@ada", None),
    ],
)
def test_a_mention_names_its_account_as_far_as_it_can_be_told(
    address: str, text: str, account: str | None
) -> None:
    html = f'<p><a href="{address}" class="u-url mention">{text}</a> hello</p>'
    assert links_of(html) == Links((Mention(address, account),), ())


def test_hashtags_and_other_addresses_are_no_links() -> None:
    html = """
    <p><a href="https://one.example/tags/tea" class="mention hashtag" rel="tag">#tea</a>
    <a href="https://one.example/t/rum" rel="tag">#rum</a> <a href="mailto:ada@one.example">mail</a>
    <a href="javascript:alert(1)">x</a> <a href="/relative">y</a> <a>z</a> <a href="">w</a></p>
    """
    assert links_of(html) == Links((), ())


def test_links_keep_their_order_and_each_is_there_once() -> None:
    html = """
    <a href="https://b.example/2?x=1&amp;y=2">b</a> <a href=" HTTP://a.example ">a</a>
    <a href="https://b.example/2?x=1&amp;y=2">b again</a>
    """
    assert links_of(html) == Links((), ("https://b.example/2?x=1&y=2", "HTTP://a.example"))


@pytest.mark.parametrize("html", ["", "plain text", "<a href", "<p>\ud800</p>", "<div>" * 5_000])
def test_any_text_has_its_links(html: str) -> None:
    assert links_of(html) == Links((), ())
