"""Pseudonyms: keyed hashes that replace everything that names a person, before Kafka. Pure.

What belongs here: which parts of a message name somebody, and what replaces them. A hash is keyed
BLAKE2b (RFC 7693) of 128 bits. The kind of value is its personalization, so equal values of
different kinds differ. The same value has the same hash from every server and in every run with the
same key: one uri stays one row, one author stays one author.

What this does not protect:
- the text itself: whoever reads or searches it may find its author;
- the server a post was read from and its id there: deletes need them, and anybody can ask that
  server for the post;
- times and counts.
Whoever has the key can try handles. Another key gives other hashes: posts read before and after the
change have different authors and uris, and a purge finds only those of the present key. Purge
first, then change the key.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from typing import Any
from urllib.parse import unquote

from pydantic import SecretStr

from mastodon_assets.contract.identity import account_form, domain_form, full_handle
from mastodon_assets.contract.messages import Message
from mastodon_assets.ingest.api.html_text import html_to_text

_DIGEST_BYTES = 16
# Shorter text is not the address of anything.
_MIN_ADDRESS_LENGTH = 8

_NAME = r"[\w.+-]++"
# A search begins at the start of a name or its signs only; otherwise long texts take for ever.
_SIGNS = "(?<!@)@++"
_NAME_BEGINS = r"(?<![\w.+-])"
# The address of a profile, or of a post below it, on most servers; the scheme may be hidden.
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
    """The pseudonyms of one operator's key."""

    def __init__(self, key: SecretStr) -> None:
        secret = key.get_secret_value().encode()
        self._key = blake2b(secret, digest_size=blake2b.MAX_KEY_SIZE).digest()

    def __repr__(self) -> str:
        return "Pseudonyms()"

    def applied(self, message: Message, status: Mapping[str, Any]) -> Message:
        """Return `message`, which was made from `status`, without names.

        Username, account id, uri and url become hashes, mentions in the texts the hash of the full
        handle, and the HTML is dropped. An `@name` that the status does not mention counts as an
        account of the author's server, as in Mastodon. E-mail addresses are treated the same way.
        """
        people = _People(message, status)
        user_id, url, spoiler = (message[name] for name in ("user_id", "url", "spoiler_text"))
        html = message["content_html"]
        return {
            **message,
            "uri": self.uri(message["uri"]),
            "url": self._hash("url", url) if isinstance(url, str) else url,
            "username": self.handle(message["username"]),
            "user_id": user_id and self._hash("account", f"{message['instance']}/{user_id}"),
            "content_html": None,
            "content": self._hidden(html_to_text(html, shown_for=people.linked), people),
            "spoiler_text": self._hidden(spoiler, people) if isinstance(spoiler, str) else spoiler,
            "hashtags": [self._hidden(tag, people) for tag in message["hashtags"]],
        }

    def handle(self, handle: str) -> str:
        """Return the pseudonym of `user@domain`: hash of the handle, `@`, hash of the domain."""
        _, _, domain = handle.partition("@")
        return f"{self._of_handle(handle)}@{self.domain(domain)}"

    def domain(self, domain: str) -> str:
        """Return the hash of a server, as pseudonyms of handles contain it."""
        return self._hash("domain", domain_form(domain))

    def uri(self, uri: str) -> str:
        """Return the hash of a post's uri."""
        return self._hash("uri", uri)

    def _of_handle(self, handle: str) -> str:
        return self._hash("handle", account_form(handle))

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
    """The author of a status and the people it mentions, by their names in a text."""

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
        """Return the text for a link to one of them, or to any other address of a profile."""
        known = self._by_address.get(address.rstrip("/"))
        if known is not None:
            return f"@{known}"
        profile = _PROFILE_LINK.match(unquote(address))
        return f"@{self._named(profile)[0]}" if profile else None

    def replaced(self, text: str, pseudonym: Callable[[str], str]) -> str:
        """Return `text` with `pseudonym(handle)` for each handle or address of a person.

        An escaped @ becomes a plain one.
        """
        text = text.replace("%40", "@")
        for address in sorted(self._by_address, key=len, reverse=True):
            text = text.replace(address, f"@{self._by_address[address]}")

        def replace(found: "re.Match[str]") -> str:
            handle, rest = self._named(found)
            return f"{pseudonym(handle)}{rest}"

        return _NAMED.sub(replace, text)

    def _add(self, handle: str, addresses: tuple[object, ...]) -> None:
        self._by_name.setdefault(account_form(handle), handle)
        self._by_name.setdefault(account_form(handle.partition("@")[0]), handle)
        for address in addresses:
            if not isinstance(address, str) or len(address) < _MIN_ADDRESS_LENGTH:
                continue
            profile = _PROFILE_LINK.match(unquote(address))
            if profile:
                self._by_profile.setdefault(_owner(profile), handle)
            else:
                self._by_address.setdefault(str(address).rstrip("/"), handle)

    def _named(self, found: "re.Match[str]") -> tuple[str, str]:
        """Return the full handle of a match, and the part of the match that is text after it."""
        part = found.groupdict()
        if part["host"]:
            # The domain of a server's accounts may differ from the host of its pages.
            owner = _owner(found)
            return self._by_profile.get(owner, owner), ""
        if part["local"]:
            for name, rest in _possible_names(part["local"]):
                if account_form(name) in self._by_name:
                    return self._by_name[account_form(name)], rest
            name, rest = next(_possible_names(part["local"]))
            return f"{name}@{self._domain}", rest
        for domain, rest in _possible_names(part["domain"]):
            handle = f"{part['name']}@{domain}"
            if account_form(handle) in self._by_name:
                return handle, rest
        domain, rest = next(_possible_names(part["domain"]))
        return f"{part['name']}@{domain}", rest


def _owner(profile: "re.Match[str]") -> str:
    """Return the owner of a profile page according to its address."""
    domain = profile["owner_domain"] or profile["host"]
    return account_form(f"{profile['owner']}@{domain}")


def _mentions(status: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    mentions = status.get("mentions")
    if isinstance(mentions, list):
        yield from (mention for mention in mentions if isinstance(mention, Mapping))


def _possible_names(text: str) -> Iterator[tuple[str, str]]:
    """Yield possible names at the start of `text`, each with the rest, the longest first.

    A script without spaces may continue right after a name: "@adaさん".
    """
    name = text.rstrip(".+-")
    yield name, text[len(name) :]
    ascii_start = _ASCII.match(text)
    if ascii_start:
        start = ascii_start[0].rstrip(".+-")
        yield start, text[len(start) :]
