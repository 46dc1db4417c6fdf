"""Keyed hashes in place of everything that names a person, before anything reaches Kafka: pure.

What belongs here: which parts of a message name somebody, and what stands in their place. A hash is
keyed BLAKE2b (RFC 7693) of 128 bits, with the kind of value as its personalization, so that equal
values of different kinds differ. The same value has the same hash from every server and in every
run with the same key: one uri stays one row, one author one author.

What this does not protect: the text itself (who reads or searches it may find its author), the
server a post was read from and its id there, which deletes need and with which anybody can ask that
server for the post, and times and counts. Whoever has the key can try handles. Another key gives
other hashes: posts read before and after have different authors and uris, and a withdrawal finds
only those of the present key, so withdraw first, then change it.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from typing import Any
from urllib.parse import unquote

from pydantic import SecretStr

from mastodon_assets.contract.identity import full_handle
from mastodon_assets.contract.messages import Message
from mastodon_assets.ingest.api.html_text import html_to_text

_DIGEST_BYTES = 16
# A literal shorter than this is no address of anything.
_SHORTEST_ADDRESS = 8

_NAME = r"[\w.+-]++"
# A search begins where a name or its signs begin, never within, or long texts would take for ever.
_SIGNS = "(?<!@)@++"
_NAME_BEGINS = r"(?<![\w.+-])"
# Where a profile, or a post below it, stands on most servers; the scheme may have been hidden.
_PROFILE = (
    rf"(?:https?://)?{_NAME_BEGINS}(?P<host>{_NAME})(?::\d+)?/(?:[^\s@/]++/){{0,6}}?"
    rf"(?:@|(?:users|u|profile|accounts|channel)/)"
    rf"(?P<owner>{_NAME})(?:@(?P<owner_domain>{_NAME}))?[^\s<>\"'…]*+"
)
_FULL = rf"(?:{_SIGNS}|{_NAME_BEGINS})(?P<name>{_NAME})@++(?P<domain>{_NAME})"
_SHORT = rf"{_SIGNS}(?P<local>\w[\w.+-]*+)"
_NAMED = re.compile(f"{_PROFILE}|{_FULL}|{_SHORT}")
_PROFILE_LINK = re.compile(rf"{_PROFILE}\Z")
_ASCII = re.compile(r"[\x00-\x7f]+")


class Pseudonyms:
    """Made from the operator's key."""

    def __init__(self, key: SecretStr) -> None:
        secret = key.get_secret_value().encode()
        self._key = blake2b(secret, digest_size=blake2b.MAX_KEY_SIZE).digest()

    def __repr__(self) -> str:
        return "Pseudonyms()"

    def applied(self, message: Message, status: Mapping[str, Any]) -> Message:
        """`message`, made from `status`, without a name in it.

        Username, account id, uri and url are hashes, mentions in the texts the hash of the full
        handle, there is no HTML. An `@name` of nobody whom the status mentions is taken, as
        Mastodon does, for an account of the author's server; e-mail addresses go the same way.
        """
        people = _People(message, status)
        user_id, url, spoiler = (message[name] for name in ("user_id", "url", "spoiler_text"))
        html = message["content_html"]
        return {
            **message,
            "uri": self._hash("uri", message["uri"]),
            "url": self._hash("url", url) if isinstance(url, str) else url,
            "username": self.handle(message["username"]),
            "user_id": user_id and self._hash("account", f"{message['instance']}/{user_id}"),
            "content_html": None,
            "content": self._hidden(html_to_text(html, shown_for=people.linked), people),
            "spoiler_text": self._hidden(spoiler, people) if isinstance(spoiler, str) else spoiler,
            "hashtags": [self._hidden(tag, people) for tag in message["hashtags"]],
        }

    def handle(self, handle: str) -> str:
        """`user@domain` as two hashes; the first is of the whole handle, in any case."""
        _, _, domain = handle.partition("@")
        return f"{self._of_handle(handle)}@{self.domain(domain)}"

    def domain(self, domain: str) -> str:
        """The hash that stands for a server in handles."""
        return self._hash("domain", domain.casefold())

    def _of_handle(self, handle: str) -> str:
        return self._hash("handle", handle.casefold())

    def _hidden(self, text: str, people: "_People") -> str:
        return people.replaced(text, lambda handle: f"@{self._of_handle(handle)}")

    def _hash(self, kind: str, value: str) -> str:
        return blake2b(
            value.encode("utf-8", "surrogatepass"),
            digest_size=_DIGEST_BYTES,
            key=self._key,
            person=kind.encode(),
        ).hexdigest()


class _People:
    """Whom a status names: its author and those it mentions, by what stands for them in a text."""

    def __init__(self, message: Message, status: Mapping[str, Any]) -> None:
        author, instance = message["username"], message["instance"]
        self._domain = author.partition("@")[2]
        self._by_name: dict[str, str] = {}
        self._by_profile: dict[str, str] = {}
        self._by_address: dict[str, str] = {}
        for mention in _mentions(status):
            handle = full_handle(mention, instance)
            if handle is not None:
                self._add(handle, (mention.get("url"),))
        account = status["account"]
        self._add(author, (message["uri"], message["url"], account.get("url"), account.get("uri")))

    def linked(self, address: str) -> str | None:
        """What is shown for a link to one of them, or to whatever else looks like a profile."""
        known = self._by_address.get(address.rstrip("/"))
        if known is not None:
            return f"@{known}"
        profile = _PROFILE_LINK.match(unquote(address))
        return f"@{self._named(profile)[0]}" if profile else None

    def replaced(self, text: str, pseudonym: Callable[[str], str]) -> str:
        """`text` with `pseudonym` of a full handle where one, or an address of one, stood.

        An escaped @ becomes one.
        """
        text = text.replace("%40", "@")
        for address in sorted(self._by_address, key=len, reverse=True):
            text = text.replace(address, f"@{self._by_address[address]}")

        def replace(found: "re.Match[str]") -> str:
            handle, rest = self._named(found)
            return f"{pseudonym(handle)}{rest}"

        return _NAMED.sub(replace, text)

    def _add(self, handle: str, addresses: tuple[object, ...]) -> None:
        self._by_name.setdefault(handle.casefold(), handle)
        self._by_name.setdefault(handle.partition("@")[0].casefold(), handle)
        for address in addresses:
            if not isinstance(address, str) or len(address) < _SHORTEST_ADDRESS:
                continue
            profile = _PROFILE_LINK.match(unquote(address))
            if profile:
                self._by_profile.setdefault(_owner(profile), handle)
            else:
                self._by_address.setdefault(str(address).rstrip("/"), handle)

    def _named(self, found: "re.Match[str]") -> tuple[str, str]:
        """The full handle that is meant, and what of the match is text after it."""
        part = found.groupdict()
        if part["host"]:
            # A server's accounts may have another domain than its pages.
            owner = _owner(found)
            return self._by_profile.get(owner, owner), ""
        if part["local"]:
            for name, rest in _readings(part["local"]):
                if name.casefold() in self._by_name:
                    return self._by_name[name.casefold()], rest
            name, rest = next(_readings(part["local"]))
            return f"{name}@{self._domain}", rest
        for domain, rest in _readings(part["domain"]):
            handle = f"{part['name']}@{domain}"
            if handle.casefold() in self._by_name:
                return handle, rest
        domain, rest = next(_readings(part["domain"]))
        return f"{part['name']}@{domain}", rest


def _owner(profile: "re.Match[str]") -> str:
    """Whose page an address is, as the address alone says it."""
    domain = profile["owner_domain"] or profile["host"]
    return f"{profile['owner']}@{domain}".casefold()


def _mentions(status: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    mentions = status.get("mentions")
    if isinstance(mentions, list):
        yield from (mention for mention in mentions if isinstance(mention, Mapping))


def _readings(text: str) -> Iterator[tuple[str, str]]:
    """What of `text` may be the name, and the rest: all but punctuation at its end, then less.

    A script without spaces may go on right behind a name: "@adaさん".
    """
    name = text.rstrip(".+-")
    yield name, text[len(name) :]
    ascii_start = _ASCII.match(text)
    if ascii_start:
        start = ascii_start[0].rstrip(".+-")
        yield start, text[len(start) :]
