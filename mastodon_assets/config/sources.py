"""Names of sources: which timelines of a server are read, as the settings write it. Pure.

What belongs here: parsing and naming. Which server has which sources and token is in `servers`;
requests for a source are in `ingest.api.client`.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, urlsplit

Kind = Literal["public", "local", "remote", "hashtag"]

SOURCES_ALLOWED = (
    "allowed: a comma-separated list of public, local, remote and #tag, without spaces; a server in"
    " front of one, such as one.example/local, limits it to that server"
)
# Characters of a hashtag (HASHTAG_NAME_PAT of Mastodon); the length limit is our own.
_TAG = re.compile(r"\A[\w·\u200c\u30fb]{1,100}\Z")
_STREAM_PATHS: Mapping[Kind, str] = {
    "public": "public",
    "local": "public/local",
    "remote": "public/remote",
    "hashtag": "hashtag",
}


@dataclass(frozen=True)
class Source:
    """A timeline of a server and the stream of the same posts. `tag` is set for a hashtag."""

    kind: Kind
    tag: str | None = None

    @property
    def name(self) -> str:
        """Return the key in the tables: the kind, or `hashtag:tag` for a hashtag."""
        return self.kind if self.tag is None else f"{self.kind}:{self.tag}"

    @property
    def stream_path(self) -> str:
        """Return the path below `/api/v1/streaming/`, with the query."""
        query = "" if self.tag is None else f"?tag={quote(self.tag)}"
        return _STREAM_PATHS[self.kind] + query

    @property
    def timeline_path(self) -> str:
        """Return the path below `/api/v1/timelines/`, with the query."""
        if self.tag is not None:
            return f"tag/{quote(self.tag)}"
        return "public" if self.kind == "public" else f"public?{self.kind}=true"


PUBLIC = Source("public")
_PLAIN = {each.name: each for each in (PUBLIC, Source("local"), Source("remote"))}


@dataclass(frozen=True)
class SourceEntry:
    """An entry of `MASTODON_SOURCES`; `address` is None if it applies to every server."""

    source: Source
    address: str | None


def parse_sources(text: str) -> list[SourceEntry]:
    """Parse `MASTODON_SOURCES` into its entries, each once.

    Raises:
        ValueError: An entry names no source; the message says what is allowed.
    """
    return list(dict.fromkeys(_parse_entry(entry) for entry in text.split(",")))


def address_of(url: str) -> str:
    """Return `host` or `host:port` of a URL, lower case."""
    return urlsplit(url).netloc.lower()


def _parse_entry(entry: str) -> SourceEntry:
    address, separator, name = entry.rpartition("/")
    if separator and not address:
        raise ValueError(SOURCES_ALLOWED)
    if name in _PLAIN:
        source = _PLAIN[name]
    elif name.startswith(("#", "hashtag:")):
        # As Mastodon's HashtagNormalizer does.
        tag = unicodedata.normalize("NFKC", name.removeprefix("#").removeprefix("hashtag:")).lower()
        if not _TAG.fullmatch(tag):
            raise ValueError(SOURCES_ALLOWED)
        source = Source("hashtag", tag)
    else:
        raise ValueError(SOURCES_ALLOWED)
    return SourceEntry(source, address.lower() or None)
