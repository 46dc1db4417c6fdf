"""The mentions and links in the HTML of a post.

What belongs here: which links of a post lead to accounts, and which to pages. Links to hashtags are
neither: a post's hashtags are stored.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from selectolax.lexbor import LexborHTMLParser

from mastodon_assets.contract.identity import account_form, uri_host

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

_SURROGATE = re.compile("[\ud800-\udfff]")
# The path of an account, such as /@ada, /@ada@two.example, /users/ada and snac's /ada.
_ACCOUNT_PATH = re.compile(r"\A/(?:@|users/|u/|profile/)?([^/@]+)(?:@([^/@]+))?/?\Z")
_HANDLE = re.compile(r"\A@?([^@\s]+)@([^@\s]+)\Z")


@dataclass(frozen=True)
class Mention:
    """A link to an account; `account` is user@domain, None if the link does not say it."""

    url: str
    account: str | None


@dataclass(frozen=True)
class Links:
    """The mentions and the addresses of other links, in their order, each address once."""

    mentions: tuple[Mention, ...]
    urls: tuple[str, ...]


def links_of(html: str) -> Links:
    """Return the mentions and links of a post's HTML.

    A mention has the class `mention`, a hashtag also `hashtag` or the relation `tag`. Only
    addresses of http and https are links.
    """
    # The parser takes UTF-8, which has no half surrogate pairs.
    body = LexborHTMLParser(_SURROGATE.sub("\ufffd", html)).body
    mentions: dict[str, Mention] = {}
    urls: dict[str, None] = {}
    for node in body.css("a[href]") if body is not None else ():
        url = (node.attributes.get("href") or "").strip()
        classes = (node.attributes.get("class") or "").split()
        relations = (node.attributes.get("rel") or "").split()
        if not url.lower().startswith(("https://", "http://")):
            continue
        if "hashtag" in classes or "tag" in relations:
            continue
        if "mention" in classes:
            mentions.setdefault(url, Mention(url, _account(url, node)))
        else:
            urls.setdefault(url)
    return Links(tuple(mentions.values()), tuple(urls))


def _account(url: str, node: "LexborNode") -> str | None:
    """Return the handle that the text says in full, or else the one of the address."""
    if named := _HANDLE.match(node.text().strip()):
        return account_form(f"{named[1]}@{named[2]}")
    try:
        path = urlsplit(url).path
    except ValueError:
        return None
    found, host = _ACCOUNT_PATH.match(path), uri_host(url)
    if found is None or host is None:
        return None
    return account_form(f"{found[1]}@{found[2] or host}")
