"""How software other than Mastodon answers: ids, documents, refusals, paging. Pure.

What belongs here: one row per software, and the functions that turn Mastodon's documents into its
own. The rows were recorded at Mastodon's streaming server 4.6.5, GoToSocial 0.20.0, Takahe 0.11.0
and snac 2.94, and tests compare them with the recordings.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Access = Literal["valid", "wrong", "none"]
IdForm = Literal["snowflake", "ulid", "takahe", "snac"]

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_TAKAHE_BEGAN = 1_641_020_400_000  # 2022-01-01T07:00:00Z
_PAGE, _TEXT, _JSON = "text/html; charset=utf-8", "text/plain", "application/json"
# One of this many posts is listed only inside a boost.
_POSTS_PER_BOOST = 20


@dataclass(frozen=True)
class Reply:
    """An answer that does not depend on the content; a mapping is sent as JSON.

    `is_bare` says that it lacks the headers of other answers.
    """

    status_code: int
    body: str | Mapping[str, str]
    content_type: str = _JSON
    is_bare: bool = False


@dataclass(frozen=True)
class Personality:
    """How one software answers.

    Attributes:
        name: The value of `simulate --as`.
        software: Name and version in nodeinfo; None if there is none.
        nodeinfo_path: Where the nodeinfo document is.
        version: What the instance documents say.
        id_form: How ids are made.
        stream: How events are sent.
        heartbeat: A heartbeat of server-sent events.
        splits_events: Whether an event is sent in two chunks, as Mastodon's server does.
        added: Fields of a status that Mastodon's have not, or that are constants.
        removed: Fields of a status that are not there.
        account_added: The same of an account.
        account_removed: The same of an account.
        instance_removed: Fields that the instance documents have not.
        instance_added: Fields that only its instance documents have, by version; a value of None
            is the server's domain.
        has_domain_in_acct: Whether local accounts are written with their domain.
        ignores: Kinds of timelines for which every post is listed.
        lists_replies: Whether its timelines list posts that answer others.
        largest_page: The most posts on a page.
        has_links: Whether pages have a `Link` header.
        absent: Paths below `/api/` that are not there.
        wants_token: Paths that need a token.
        ignores_wrong_tokens: Whether a wrong token is taken for none.
        replies: What is answered in place of the real answer, by situation.
        headers: Headers of every answer.
    """

    name: str
    version: str
    software: tuple[str, str] | None = None
    nodeinfo_path: str = "/nodeinfo/2.0"
    id_form: IdForm = "snowflake"
    stream: Literal["events", "socket", "none"] = "events"
    heartbeat: bytes = b":thump\n\n"
    splits_events: bool = True
    added: Mapping[str, Any] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()
    account_added: Mapping[str, Any] = field(default_factory=dict)
    account_removed: frozenset[str] = frozenset()
    instance_added: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    instance_removed: frozenset[str] = frozenset()
    has_domain_in_acct: bool = False
    ignores: frozenset[str] = frozenset()
    lists_replies: bool = True
    largest_page: int = 40
    has_links: bool = True
    absent: tuple[str, ...] = ()
    wants_token: tuple[str, ...] = ()
    ignores_wrong_tokens: bool = False
    replies: Mapping[str, Reply] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_mastodon(self) -> bool:
        """Whether the documents are Mastodon's own."""
        return self.id_form == "snowflake"

    def refused(self, path: str, *, by_ids: bool, access: Access, agent: str) -> Reply | None:
        """Return the answer in place of the real one; None for the real one.

        Args:
            path: The path of the request.
            by_ids: Whether posts are asked for by their ids.
            access: What kind of token the request brings.
            agent: The User-Agent.
        """
        situations = {
            "no user agent": not agent,
            "slash": path.endswith("/") and path != self.nodeinfo_path,
            "wrong token": access == "wrong" and not self.ignores_wrong_tokens,
            "not found": path.startswith(self.absent) if self.absent else False,
            "no token": access == "none" and path.startswith(self.wants_token or ("\0",)),
            "by ids": by_ids,
        }
        for situation, is_given in situations.items():
            if is_given and situation in self.replies:
                return self.replies[situation]
        return None

    def instance(self, document: Mapping[str, Any], version: int) -> dict[str, Any]:
        """Return an instance document of this software; `version` is that of the interface."""
        domain = document.get("domain") or document.get("uri")
        added = {
            name: domain if value is None else value
            for name, value in self.instance_added.get(version, {}).items()
        }
        changed = {**document, "version": self.version, **added}
        if self.instance_removed:
            changed["configuration"] = _without(changed["configuration"], self.instance_removed)
        return _without(changed, self.instance_removed)

    def status(self, status: Mapping[str, Any], ids: "Ids", domain: str) -> dict[str, Any]:
        """Return a status as this software writes it."""
        if self.is_mastodon:
            return dict(status)
        account = dict(status["account"])
        is_local = "@" not in account["acct"]
        old, new = str(status["id"]), ids.own(str(status["id"]), status["edited_at"])
        account["id"] = ids.account(account["id"])
        if is_local and self.has_domain_in_acct:
            account["acct"] = f"{account['acct']}@{domain}"
        account |= self.account_added
        changed = {**status, "id": new, **self.added}
        if changed["in_reply_to_id"] is not None:
            changed["in_reply_to_id"] = ids.own(str(changed["in_reply_to_id"]), None)
        if changed["in_reply_to_account_id"] is not None:
            changed["in_reply_to_account_id"] = ids.account(changed["in_reply_to_account_id"])
        if is_local:
            for name in ("uri", "url"):
                changed[name] = str(changed[name] or "").replace(old, ids.own(old, None))
        changed["mentions"] = [
            {**each, "id": ids.account(each["id"])} for each in status["mentions"]
        ]
        changed["account"] = _without(account, self.account_removed)
        return self._boosted(_without(changed, self.removed), old)

    def _boosted(self, status: dict[str, Any], old: str) -> dict[str, Any]:
        """Put some posts into boosts by their own author, as snac lists what was boosted."""
        if self.id_form != "snac" or int(old or 0) % _POSTS_PER_BOOST:
            return status
        outer = {**status, "content": "", "reblog": status, "id": status["id"].upper()}
        return outer | {"uri": f"{status['uri']}/Announce"}


class Ids:
    """The ids of one server in the form of its software, and back."""

    def __init__(self, form: IdForm) -> None:
        self._form = form
        self._known: dict[str, str] = {}

    def own(self, status_id: str, edited_at: str | None) -> str:
        """Return the id of a status whose id at a Mastodon server is known."""
        if self._form == "snowflake" or not status_id.isdecimal():
            return status_id
        milliseconds, rest = int(status_id) >> 16, int(status_id) & 0xFFFF
        if self._form == "ulid":
            return _base32(milliseconds, 10) + _digest(status_id)[:12].upper() + _base32(rest, 4)
        if self._form == "takahe":
            return str((milliseconds - _TAKAHE_BEGAN) << 22 | rest << 6)
        # The seconds are those of the stored file, which an edit changes.
        seconds = milliseconds // 1000
        if edited_at is not None:
            seconds = int(datetime.fromisoformat(edited_at).timestamp())
        digest = _digest(status_id)
        self._known[digest] = status_id
        return f"{seconds:010d}{digest}"

    def account(self, account_id: str) -> str:
        """Return the id of an account."""
        digest = _digest(account_id)
        match self._form:
            case "ulid":
                return "01" + _base32(int(digest, 16), 24)
            case "snac":
                return digest
            case _:
                return account_id

    def given(self, status_id: str) -> str | None:
        """Return the id at a Mastodon server for one of a request; None if it is not one."""
        if self._form == "snowflake":
            return status_id
        if self._form == "snac":
            return self._known.get(status_id.lower()[10:])
        if self._form == "takahe":
            if not status_id.isdecimal():
                return None
            milliseconds = (int(status_id) >> 22) + _TAKAHE_BEGAN
            return str(milliseconds << 16 | (int(status_id) >> 6) & 0xFFFF)
        if status_id == "0":
            return "0"
        if len(status_id) != 26 or not set(status_id) <= set(_CROCKFORD):
            return None
        return str(_number(status_id[:10]) << 16 | _number(status_id[-4:]) & 0xFFFF)


def _without(document: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names}


def _digest(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _base32(number: int, count: int) -> str:
    return "".join(_CROCKFORD[number >> 5 * place & 31] for place in reversed(range(count)))


def _number(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 32 + _CROCKFORD.index(letter)
    return number


_OWN_MARKS = {"favourited": False, "reblogged": False, "muted": False, "bookmarked": False}
_NO_QUOTES = frozenset({"quote", "quote_approval", "quotes_count"})
_NEWER = frozenset({"api_versions", "icon", "timelines_access", "limited_federation"})
_TAKAHE_PAGE = '<!DOCTYPE html>\n<html lang="en"><head><title>{}</title></head></html>'

# The default: Mastodon as its interface is documented.
MASTODON_4_5 = Personality(
    "mastodon-4.5",
    "4.5.0",
    software=("mastodon", "4.5.0"),
    heartbeat=b":thump\n",
    splits_events=False,
)
MASTODON_4_6 = Personality("mastodon-4.6", "4.6.5", software=("mastodon", "4.6.5"))
MASTODON_4_3 = Personality(
    "mastodon-4.3",
    "4.3.14",
    software=("mastodon", "4.3.14"),
    heartbeat=b":thump\n",
    instance_removed=frozenset({"timelines_access"}),
)
GOTOSOCIAL = Personality(
    "gotosocial",
    "0.20.0",
    software=("gotosocial", "0.20.0"),
    id_form="ulid",
    stream="socket",
    added={
        **_OWN_MARKS,
        "pinned": False,
        "text": "",
        "content_type": "text/plain",
        "interaction_policy": {},
    },
    removed=_NO_QUOTES | {"filtered"},
    account_added={"avatar_description": "", "header_description": ""},
    account_removed=frozenset({"hide_collections", "indexable", "noindex", "roles", "uri"}),
    instance_added={
        1: {"account_domain": None, "max_toot_chars": 5000},
        2: {"account_domain": None},
    },
    instance_removed=_NEWER | {"contact_account"},
    ignores=frozenset({"remote"}),
    absent=(
        "/api/v1/streaming/",
        "/api/v1/domain_blocks",
        "/api/v1/mutes",
    ),
    wants_token=("/api/v1/timelines", "/api/v1/statuses", "/api/v1/accounts", "/api/v1/blocks"),
    replies={
        "no user agent": Reply(
            418, {"error": "I'm a teapot: no user-agent sent with request"}, is_bare=True
        ),
        "slash": Reply(301, '<a href="/">Moved Permanently</a>.\n\n', _PAGE, is_bare=True),
        "not found": Reply(404, {"error": "Not Found"}),
        "wrong token": Reply(401, {"error": "Unauthorized: token not supplied"}),
        "no token": Reply(401, {"error": "Unauthorized: token not supplied"}),
        "by ids": Reply(405, "405 method not allowed", _TEXT),
        "gone": Reply(404, {"error": "Not Found: target status not found"}),
        "limited": Reply(429, {"error": "rate limit reached"}),
        "no socket": Reply(400, "Bad Request\n", "text/plain; charset=utf-8"),
    },
    headers={"Server": "gotosocial", "Cache-Control": "no-store"},
)
TAKAHE = Personality(
    "takahe",
    "takahe/0.11.0",
    software=("takahe", "0.11.0"),
    nodeinfo_path="/nodeinfo/2.0/",
    id_form="takahe",
    stream="none",
    added={**_OWN_MARKS, "pinned": False, "text": "", "language": None},
    removed=_NO_QUOTES | {"filtered", "application"},
    account_added={"limited": False, "moved": None, "source": None, "suspended": False},
    account_removed=frozenset({"hide_collections", "indexable", "noindex", "roles", "uri"}),
    instance_added={1: {"urls": {}}, 2: {"urls": {}, "email": ""}},
    instance_removed=_NEWER,
    has_domain_in_acct=True,
    lists_replies=False,
    absent=("/api/v1/streaming", "/api/v1/blocks", "/api/v1/mutes", "/api/v1/domain_blocks"),
    wants_token=("/api/v1/timelines/tag", "/api/v1/statuses", "/api/v1/accounts"),
    replies={
        "slash": Reply(404, _TAKAHE_PAGE.format(" - A trial server"), _PAGE),
        "not found": Reply(404, _TAKAHE_PAGE.format(" - A trial server"), _PAGE),
        "wrong token": Reply(400, "Invalid Bearer token", _PAGE),
        "no token": Reply(401, {"error": "identity_token_required"}),
        "by ids": Reply(403, {"error": "out_of_scope_for_token"}),
        "gone": Reply(404, _TAKAHE_PAGE.format(" - A trial server"), _PAGE),
        "odd id": Reply(500, _TAKAHE_PAGE.format("Internal Error"), _PAGE),
    },
    headers={"Server": "gunicorn", "Cache-Control": "no-store, max-age=0"},
)
_SNAC_404 = Reply(404, "<h1>404 Not Found (snac/2.94)</h1>", _PAGE)
SNAC = Personality(
    "snac",
    "4.0.0 (not true; really snac/2.94)",
    software=("snac", "2.94"),
    nodeinfo_path="/nodeinfo_2_0",
    id_form="snac",
    stream="none",
    added={
        **_OWN_MARKS,
        "pinned": False,
        "text": "",
        "reactions": [],
        "language": "en",
        "filtered": [],
    },
    removed=_NO_QUOTES | {"application"},
    account_added={"indexable": True, "noindex": False, "roles": []},
    has_domain_in_acct=True,
    instance_added={1: {"domain": None, "source_url": ""}},
    instance_removed=frozenset({"contact_account"}),
    ignores=frozenset({"local", "remote"}),
    largest_page=10_000,
    has_links=False,
    absent=("/api/v2/", "/api/v1/streaming", "/api/v1/domain_blocks"),
    wants_token=("/api/v1/statuses/", "/api/v1/accounts"),
    ignores_wrong_tokens=True,
    replies={
        "not found": _SNAC_404,
        "no token": Reply(401, "", _PAGE),
        "by ids": _SNAC_404,
        "gone": _SNAC_404,
        "wrong account": Reply(422, "", _PAGE),
    },
    headers={"X-Creator": "snac/2.94"},
)
PERSONALITIES: Mapping[str, Personality] = {
    each.name: each for each in (MASTODON_4_5, MASTODON_4_6, MASTODON_4_3, GOTOSOCIAL, TAKAHE, SNAC)
}
