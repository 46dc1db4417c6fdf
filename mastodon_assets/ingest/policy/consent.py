"""Consent: whether a post may be read, decided before anything of it is kept. Pure.

What belongs here: the rules of consent, read from a `Status` document. How a withheld post is
handled is in `ingest.handler`.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Literal

from mastodon_assets.ingest.api.html_text import html_to_text

# Increased with every change of what is withheld; each run's state contains it.
CONSENT_VERSION = 3

ConsentPolicy = Literal["respect", "opt-in"]

# Reasons that concern an account and thereby all its posts, or only the post itself. The others say
# nothing about posts that are stored.
REFUSALS_OF_ACCOUNT = frozenset({"noindex", "nobot", "not_indexable"})
REFUSALS_OF_POST = frozenset({"not_public", "local_only"})

# The whole tag: not "#nobotany", not "a#nobot".
_OPT_OUT_TAG = re.compile(r"(?<!\w)#(?:nobots?|noindex|nosearch|noarchive)(?!\w)", re.IGNORECASE)
# A number sign, an entity that may be one, and the two characters that NFKC turns into one.
_MAY_HAVE_TAG = re.compile("[#&\N{SMALL NUMBER SIGN}\N{FULLWIDTH NUMBER SIGN}]")


def withheld_reason(status: object, *, policy: ConsentPolicy) -> str | None:
    """Return why `status` must not be published; None if it may be.

    A missing field and null mean the same, as in what Mastodon.py returns.

    Returns:
        `unreadable` (the document does not say enough to decide: nothing of it may be kept),
        `not_public`, `local_only`, `boost` (not a post), `noindex` (the account's setting), `nobot`
        (an opt-out tag in bio, profile fields or display name) or, under `opt-in`,
        `not_indexable`.
    """
    if not isinstance(status, Mapping) or not isinstance(status.get("account"), Mapping):
        return "unreadable"
    account = status["account"]
    visibility, noindex = status.get("visibility"), account.get("noindex")
    profile = _profile_texts(account)
    if not isinstance(visibility, str) or profile is None:
        return "unreadable"
    # Some servers write 0 and 1.
    if noindex is not None and noindex not in (False, True):
        return "unreadable"
    if visibility != "public":
        return "not_public"
    if status.get("local_only"):
        return "local_only"
    if status.get("reblog") is not None:
        return "boost"
    if noindex:
        return "noindex"
    if any(map(_has_opt_out_tag, profile)):
        return "nobot"
    if policy == "opt-in" and account.get("indexable") is not True:
        return "not_indexable"
    return None


def _profile_texts(account: Mapping[str, Any]) -> list[str] | None:
    """Return the texts in which an account may opt out; None if one cannot be read."""
    fields = account.get("fields") or []
    if not isinstance(fields, list) or not all(isinstance(each, Mapping) for each in fields):
        return None
    texts = [account.get("note"), account.get("display_name")]
    texts += [each.get(part) for each in fields for part in ("name", "value")]
    known = [text for text in texts if text is not None]
    return known if all(isinstance(text, str) for text in known) else None


def _has_opt_out_tag(text: str) -> bool:
    # Most texts have no number sign. Parsing each took a third of the CPU time of a post.
    if _MAY_HAVE_TAG.search(text) is None:
        return False
    plain = unicodedata.normalize("NFKC", html_to_text(text))
    if _OPT_OUT_TAG.search(plain) is not None:
        return True
    if plain.isascii():
        return False
    # People put invisible characters into a tag so that it is no link.
    visible = "".join(each for each in plain if unicodedata.category(each) != "Cf")
    return _OPT_OUT_TAG.search(visible) is not None
