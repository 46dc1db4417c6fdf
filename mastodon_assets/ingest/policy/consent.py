"""Consent: whether a post may be read, decided before anything of it is kept. Pure.

What belongs here: the rules of consent, read from a `Status` document. How a withheld post is
handled is in `ingest.handler`.
"""

import re
from collections.abc import Mapping
from typing import Literal

from mastodon_assets.ingest.api.html_text import html_to_text

# Increased with every change of what is withheld; each run's state contains it.
CONSENT_VERSION = 1

ConsentPolicy = Literal["respect", "opt-in"]

# The whole tag, with either number sign of Mastodon: not "#nobotany", not "a#nobot".
_OPT_OUT_TAG = re.compile(r"(?<!\w)[#＃](?:nobot|noindex)(?!\w)", re.IGNORECASE)


def withheld_reason(status: object, *, policy: ConsentPolicy) -> str | None:
    """Return why `status` must not be published; None if it may be.

    A missing field and null mean the same, as in what Mastodon.py returns.

    Returns:
        `unreadable` (the document does not say enough to decide: nothing of it may be kept),
        `not_public`, `boost` (not a post), `noindex` (the account's setting), `nobot` (#nobot or
        #noindex in the bio) or, under `opt-in`, `not_indexable`.
    """
    if not isinstance(status, Mapping) or not isinstance(status.get("account"), Mapping):
        return "unreadable"
    account = status["account"]
    visibility, bio, noindex = status.get("visibility"), account.get("note"), account.get("noindex")
    if not isinstance(visibility, str) or not isinstance(bio, str):
        return "unreadable"
    if noindex is not None and not isinstance(noindex, bool):
        return "unreadable"
    if visibility != "public":
        return "not_public"
    if status.get("reblog") is not None:
        return "boost"
    if noindex:
        return "noindex"
    if _OPT_OUT_TAG.search(html_to_text(bio)):
        return "nobot"
    if policy == "opt-in" and account.get("indexable") is not True:
        return "not_indexable"
    return None
