"""The accounts that write synthetic toots: their profiles, activity and consent.

What belongs here: `Account` objects in the form of Mastodon 4.5. Their posts are in `statuses`.
"""

import random
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from mastodon_assets.simulator import markup
from mastodon_assets.simulator.phrases import (
    FIRST_NAMES,
    LANGUAGE_SHARES,
    NICKNAMES,
    REMOTE_DOMAINS,
)

LOCAL_DOMAIN = "simulator.example"
ACCOUNTS = 150
_LOCAL_SHARE = 0.3
# Ranks by activity: accounts with a mark, and bots, write often enough to be seen, but are not the
# busiest.
_NOINDEX = (3, 9)
_NOBOT = (5, 8)
_BOTS = (4, 12)


@dataclass(frozen=True)
class Author:
    """An account, with what the simulator knows of it beyond the API's object."""

    account: dict[str, Any]
    domain: str
    language: str | None
    activity: float
    is_local: bool

    @property
    def username(self) -> str:
        """Return the name without the domain."""
        username: str = self.account["username"]
        return username


def make_accounts(
    seed: int, today: date, domain: str = LOCAL_DOMAIN
) -> dict[str | None, list[Author]]:
    """Return about `ACCOUNTS` authors by language, the most active first.

    Activity within a language is 1/rank, so a few write much and most write little.

    Args:
        seed: The same seed gives the same authors.
        today: The date of `last_status_at`; nothing else depends on it.
        domain: The simulated server. Authors on other servers are the same for all domains.
    """
    rng = random.Random(f"population {seed}")  # noqa: S311
    authors: dict[str | None, list[Author]] = {}
    taken: set[str] = set()
    for language, share in LANGUAGE_SHARES.items():
        size = max(2, round(ACCOUNTS * share / 100))
        authors[language] = [
            _author(rng, language, rank=rank, taken=taken, today=today, local=domain)
            for rank in range(size)
        ]
    return authors


def _author(
    rng: random.Random,
    language: str | None,
    *,
    rank: int,
    taken: set[str],
    today: date,
    local: str,
) -> Author:
    is_english = language == "en"
    # Only local accounts have the setting `noindex`; remote ones write a tag in their bio.
    noindex = is_english and rank in _NOINDEX
    nobot = is_english and rank in _NOBOT
    is_local = noindex or (not nobot and rng.random() < _LOCAL_SHARE)
    domain = local if is_local else rng.choice(REMOTE_DOMAINS)
    username = _username(rng, language, taken)
    joined = datetime.combine(date(2017, 4, 1), time(), UTC) + timedelta(days=rng.randrange(2600))
    account_id = str(int(joined.timestamp() * 1000) << 16 | rng.randrange(1 << 16))
    page = f"https://{domain}/@{username}"
    files = f"https://files.{local}/accounts"
    account: dict[str, Any] = {
        "id": account_id,
        "username": username,
        "acct": username if is_local else f"{username}@{domain}",
        "display_name": _display_name(rng, username),
        "locked": rng.random() < 0.1,
        "bot": is_english and rank in _BOTS,
        "discoverable": rng.choice((True, True, False, None)),
        "indexable": rng.random() < 0.6,
        "group": False,
        "created_at": f"{joined:%Y-%m-%d}T00:00:00.000Z",
        "note": _note(rng, domain, nobot=nobot),
        "url": page,
        "uri": f"https://{domain}/users/{username}",
        "avatar": f"{files}/avatars/{account_id}/original.png",
        "avatar_static": f"{files}/avatars/{account_id}/original.png",
        "header": f"{files}/headers/{account_id}/original.png",
        "header_static": f"{files}/headers/{account_id}/original.png",
        "followers_count": int(rng.paretovariate(0.7) * 12),
        "following_count": rng.randrange(900),
        "statuses_count": int(rng.paretovariate(0.6) * 20),
        "last_status_at": today.isoformat(),
        "hide_collections": rng.choice((True, False, None)),
        "emojis": [],
        "fields": [],
    }
    if is_local:
        account["noindex"] = noindex
        account["roles"] = []
    return Author(account, domain, language, activity=1 / (rank + 1), is_local=is_local)


def _username(rng: random.Random, language: str | None, taken: set[str]) -> str:
    name = f"{rng.choice(FIRST_NAMES[language])}_{rng.choice(NICKNAMES)}"
    while name in taken:
        name = f"{name.rstrip('0123456789')}{rng.randrange(2, 1000)}"
    taken.add(name)
    return name


def _display_name(rng: random.Random, username: str) -> str:
    name = username.split("_", 1)[0].capitalize()
    return f"{name} {rng.choice(('🌻', '🚲', '📚', '🐈', '𝓍𝑜'))}" if rng.random() < 0.3 else name


def _note(rng: random.Random, domain: str, *, nobot: bool) -> str:
    about = rng.choice(("tea & trains", "she/her", "mostly pictures", "opinions are my own", ""))
    paragraphs = [markup.text(about)] if about else []
    if nobot:
        paragraphs.append(markup.hashtag("nobot", domain))
    return markup.paragraphs(paragraphs)
