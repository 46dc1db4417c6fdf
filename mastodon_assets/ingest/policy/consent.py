"""Whether a post may be read: pure, before anything of it is kept or published.

What belongs here: the rules of consent and how they are read from a `Status` document. What is done
with a post that is withheld stands in `intake`.
"""

import re
from collections.abc import Mapping
from typing import Literal

from mastodon_assets.ingest.api.html_text import html_to_text

# Goes up with every change of what is withheld; each run's state tells it.
CONSENT_VERSION = 1

ConsentPolicy = Literal["respect", "opt-in"]

# The whole tag, in either form of the sign that Mastodon takes: not "#nobotany", not "a#nobot".
_OPT_OUT_TAG = re.compile(r"(?<!\w)[#＃](?:nobot|noindex)(?!\w)", re.IGNORECASE)


def withheld_reason(status: object, *, policy: ConsentPolicy) -> str | None:
    """Why `status` must not be published; None where it may be.

    One of `unreadable` (the document does not say enough to tell: nothing of it may be kept),
    `not_public`, `boost` (not a post), `noindex` (the account's setting), `nobot` (#nobot or
    #noindex in the text of the bio) and, under `opt-in`, `not_indexable`.

    Missing and null are the same thing, as they are in what Mastodon.py returns.
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
