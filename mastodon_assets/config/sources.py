"""Names of sources: what is read of a server, as the settings write it. Pure.

What belongs here: parsing and naming. Which server has which sources and token is in `servers`;
how a source is requested is in `ingest.api.client`.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    pass

Kind = Literal["public", "local", "remote", "hashtag"]

SOURCES_ALLOWED = (
    "allowed: public, local, remote and #tag, with commas and no spaces between; a server in front,"
    " as in one.example/local, limits one to it"
)
# What a hashtag may hold (HASHTAG_NAME_PAT of the server); its length is ours.
_TAG = re.compile(r"\A[\w·\u200c\u30fb]{1,100}\Z")
_STREAM_PATHS: Mapping[Kind, str] = {
    "public": "public",
    "local": "public/local",
    "remote": "public/remote",
    "hashtag": "hashtag",
}


@dataclass(frozen=True)
class Source:
    """One timeline of a server and the stream of the same posts. `tag` is that of a hashtag."""

    kind: Kind
    tag: str | None = None

    @property
    def name(self) -> str:
        """The key in the tables: the kind, and for hashtags `hashtag:tag`."""
        return self.kind if self.tag is None else f"{self.kind}:{self.tag}"

    @property
    def stream_path(self) -> str:
        """Below `/api/v1/streaming/`, with the query."""
        query = "" if self.tag is None else f"?tag={quote(self.tag)}"
        return _STREAM_PATHS[self.kind] + query

    @property
    def timeline_path(self) -> str:
        """Below `/api/v1/timelines/`, with the query."""
        if self.tag is not None:
            return f"tag/{quote(self.tag)}"
        return "public" if self.kind == "public" else f"public?{self.kind}=true"


PUBLIC = Source("public")
_PLAIN = {each.name: each for each in (PUBLIC, Source("local"), Source("remote"))}


@dataclass(frozen=True)
class Wanted:
    """An entry of `MASTODON_SOURCES`; `address` None means every server."""

    source: Source
    address: str | None


def parse_sources(text: str) -> list[Wanted]:
    """The entries of `MASTODON_SOURCES`, each once. Raises: ValueError."""
    return list(dict.fromkeys(_parse_entry(entry) for entry in text.split(",")))


def address_of(url: str) -> str:
    """`host` or `host:port` of a URL, lower case."""
    return urlsplit(url).netloc.lower()


def _parse_entry(entry: str) -> Wanted:
    address, separator, name = entry.rpartition("/")
    if separator and not address:
        raise ValueError(SOURCES_ALLOWED)
    if name in _PLAIN:
        source = _PLAIN[name]
    elif name.startswith(("#", "hashtag:")):
        # As the server compares them: HashtagNormalizer of Mastodon begins like this.
        tag = unicodedata.normalize("NFKC", name.removeprefix("#").removeprefix("hashtag:")).lower()
        if not _TAG.fullmatch(tag):
            raise ValueError(SOURCES_ALLOWED)
        source = Source("hashtag", tag)
    else:
        raise ValueError(SOURCES_ALLOWED)
    return Wanted(source, address.lower() or None)
