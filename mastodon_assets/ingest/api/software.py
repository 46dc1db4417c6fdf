"""What the software of a server says nothing about, though its documents have a field for it. Pure.

What belongs here: facts about software other than Mastodon, by the name in its nodeinfo. They were
observed at GoToSocial 0.20, Takahe 0.11 and snac 2.94.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mastodon_assets.contract.identity import domain_form, full_handle

_PATH = re.compile(r"https?://[^/]+(/[\w./~-]{1,200})\Z")
_CONSENT_FIELDS = ("noindex", "indexable")


@dataclass(frozen=True)
class Software:
    """The software of one server.

    Attributes:
        name: The name in the server's nodeinfo; empty if the server has none.
        constants: Fields that are the same for every post and account, so that they say nothing.
        says_indexable: Whether an account can say that it may be indexed.
        hides_local_only: Whether posts for the server's own members look public.
        ignores: Kinds of timelines for which the server lists every post.
        filters_languages: Whether posts in languages that an account has not chosen do not arrive.
    """

    name: str = ""
    constants: frozenset[str] = frozenset()
    says_indexable: bool = True
    hides_local_only: bool = False
    ignores: frozenset[str] = frozenset()
    filters_languages: bool = True

    def said(self, status: Any) -> Any:
        """Return a `Status` document without the fields that say nothing, or what is none as is."""
        if not self.constants or not isinstance(status, Mapping):
            return status
        said = {name: value for name, value in status.items() if name not in self.constants}
        account = status.get("account")
        if isinstance(account, Mapping):
            said["account"] = {
                name: value for name, value in account.items() if name not in self.constants
            }
        return said

    def lists_wrongly(self, status: object, timeline: str, instance: str) -> bool:
        """Return whether a post that a timeline lists belongs to the other kind of timeline.

        A server may have local accounts of several domains (Takahe), so a post of another domain
        is taken for remote only if the software ignores `local`.
        """
        if timeline not in ("local", "remote") or not isinstance(status, Mapping):
            return False
        handle = full_handle(status.get("account"), instance)
        if handle is None:
            return False
        is_local = handle.partition("@")[2] == domain_form(instance)
        return is_local if timeline == "remote" else not is_local and timeline in self.ignores


UNKNOWN = Software()
_KNOWN = {
    each.name: each
    for each in (
        Software(
            "gotosocial",
            says_indexable=False,
            ignores=frozenset({"remote"}),
            filters_languages=False,
        ),
        Software("takahe", says_indexable=False, hides_local_only=True, filters_languages=False),
        Software(
            "snac",
            constants=frozenset({"language", *_CONSENT_FIELDS}),
            says_indexable=False,
            ignores=frozenset({"local", "remote"}),
            filters_languages=False,
        ),
    )
}


def software_of(nodeinfo: object) -> Software:
    """Return the software that a nodeinfo document names."""
    found = nodeinfo.get("software") if isinstance(nodeinfo, Mapping) else None
    name = found.get("name") if isinstance(found, Mapping) else None
    if not isinstance(name, str):
        return UNKNOWN
    return _KNOWN.get(name.lower(), Software(name.lower()[:50]))


def nodeinfo_path(links: object) -> str | None:
    """Return the path of a nodeinfo document that `/.well-known/nodeinfo` names; None without one.

    Its host is left out, because it may be another name of the same server.
    """
    listed = links.get("links") if isinstance(links, Mapping) else None
    for each in listed if isinstance(listed, list) else []:
        address = each.get("href") if isinstance(each, Mapping) else None
        if isinstance(address, str) and (found := _PATH.match(address)):
            return found[1]
    return None
