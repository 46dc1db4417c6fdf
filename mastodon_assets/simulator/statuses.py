"""Synthetic statuses in the form of Mastodon 4.5, composed from phrases and accounts by a seed.

What belongs here: a single status. When it is posted, edited or deleted is in `synthetic`.
"""

import random
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from mastodon_assets.simulator import markup
from mastodon_assets.simulator.accounts import LOCAL_DOMAIN, Author, make_accounts
from mastodon_assets.simulator.phrases import (
    EMOJI,
    LANGUAGE_SHARES,
    LINK_PATHS,
    PHRASEBOOKS,
    REMOTE_DOMAINS,
    TOPICS,
    WITHOUT_WORDS,
    Mood,
)

Status = dict[str, Any]
MoodWeights = dict[Mood, float]

_TAGGED_SHARE = 0.45
_LOWER_CASE_TAG_SHARE = 0.3
_REPLY_SHARE = 0.06
_MEDIA_ONLY_SHARE = 0.03
_MEDIA_SHARE = 0.1
_LINK_SHARE = 0.07
_MENTION_SHARE = 0.06
_SENSITIVE_SHARE = 0.02
# Line breaks to Python's str.splitlines, but not to JSON, HTML or server-sent events.
_SEPARATORS = ("\u2028", "\u2029", "\u0085")
_SEPARATOR_SHARE = 0.004

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def timestamp(milliseconds: int) -> str:
    """Format milliseconds since 1970 as Mastodon does: `2026-11-23T17:43:09.904Z`."""
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{milliseconds % 1000:03}Z"


def snowflake(milliseconds: int, rank: int) -> str:
    """Return an id as Mastodon makes it: 48 bits of milliseconds, 16 low bits.

    The low bits look random and differ for up to 65,536 neighbouring ranks. Ids are unique if fewer
    posts share a millisecond.
    """
    return str(milliseconds << 16 | rank * 40503 & 0xFFFF)


@dataclass
class Text:
    """The text of a post, and what Mastodon extracts from it."""

    content: str
    tags: list[dict[str, str]] = field(default_factory=list)
    mentions: list[dict[str, str]] = field(default_factory=list)
    card: dict[str, Any] | None = None


class Composer:
    """Composes statuses; the same seed and calls give the same statuses."""

    def __init__(self, seed: int, *, purpose: str, today: date, domain: str = LOCAL_DOMAIN) -> None:
        self._domain = domain
        self.authors = make_accounts(seed, today, domain)
        self._rng = random.Random(f"{purpose} {seed}")  # noqa: S311
        self._everyone = [author for group in self.authors.values() for author in group]
        self._activity = {
            language: [author.activity for author in group]
            for language, group in self.authors.items()
        }
        self._languages = list(LANGUAGE_SHARES)
        self._language_weights = list(LANGUAGE_SHARES.values())
        self._topics = list(TOPICS)
        self._topic_weights = [share for share, _ in TOPICS.values()]
        self._last_status_ids: dict[str, str] = {}

    def author(self) -> Author:
        """Return a random author, weighted by the language's share and the author's activity."""
        language = self._rng.choices(self._languages, self._language_weights)[0]
        return self._rng.choices(self.authors[language], self._activity[language])[0]

    def status(
        self, author: Author, moods: MoodWeights, *, arrived: int, created: int, rank: int
    ) -> Status:
        """Compose a new public status.

        The id comes from the time of arrival, the `uri` from the time of creation on the author's
        server. Both are the same for a local author.

        Args:
            author: The author.
            moods: The weight of each mood.
            arrived: When it arrives at the simulated server, in milliseconds since 1970.
            created: When it was created, in milliseconds since 1970.
            rank: Its number in the history, for a unique id.
        """
        rng = self._rng
        status_id = snowflake(arrived, rank)
        origin_id = status_id if author.is_local else snowflake(created, rank * 31 + 7)
        is_media_only = rng.random() < _MEDIA_ONLY_SHARE
        written = Text("") if is_media_only else self.text(author, moods)
        has_media = is_media_only or rng.random() < _MEDIA_SHARE
        is_sensitive = rng.random() < _SENSITIVE_SHARE
        replied_to = self._last_status_ids.get(author.username)
        if rng.random() >= _REPLY_SHARE:
            replied_to = None
        self._last_status_ids[author.username] = status_id
        status: Status = {
            "id": status_id,
            "created_at": timestamp(created),
            # The public stream carries replies of authors to themselves only.
            "in_reply_to_id": replied_to,
            "in_reply_to_account_id": author.account["id"] if replied_to else None,
            "sensitive": is_sensitive,
            "spoiler_text": "long and a bit sad" if is_sensitive else "",
            "visibility": "public",
            "language": author.language,
            "uri": f"{author.account['uri']}/statuses/{origin_id}",
            "url": f"{author.account['url']}/{origin_id}",
            "replies_count": 0,
            "reblogs_count": 0,
            "favourites_count": int(rng.paretovariate(1.2)) - 1,
            "quotes_count": 0,
            "edited_at": None,
            "content": written.content,
            "reblog": None,
        }
        if author.is_local:
            status["application"] = {"name": "Web", "website": None}
        status |= {
            "account": author.account,
            "media_attachments": [self._image(status_id)] if has_media else [],
            "mentions": written.mentions,
            "tags": written.tags,
            "emojis": [],
            "quote": None,
            "card": written.card,
            "poll": None,
            "quote_approval": {"automatic": ["public"], "manual": [], "current_user": "automatic"},
            "filtered": [],
        }
        return status

    def edit(self, status: Status, author: Author, moods: MoodWeights, *, edited: int) -> Status:
        """Compose a later version of `status`, edited at `edited` milliseconds since 1970."""
        written = self.text(author, moods)
        return status | {
            "edited_at": timestamp(edited),
            "content": written.content,
            "mentions": written.mentions,
            "tags": written.tags,
            "card": written.card,
            "favourites_count": status["favourites_count"] + self._rng.randrange(4),
        }

    def boost(self, original: Status, author: Author, *, arrived: int, rank: int) -> Status:
        """Return the boost of `original` by `author`: a status that contains a status."""
        status_id = snowflake(arrived, rank)
        address = f"{author.account['uri']}/statuses/{status_id}/activity"
        return original | {
            "id": status_id,
            "created_at": timestamp(arrived),
            "in_reply_to_id": None,
            "in_reply_to_account_id": None,
            "uri": address,
            "url": address,
            "account": author.account,
            "reblog": original,
        }

    def text(self, author: Author, moods: MoodWeights) -> Text:
        """Compose a text in the author's language, in a random mood."""
        rng = self._rng
        mood = rng.choices(list(moods), list(moods.values()))[0]
        if author.language is None:
            return Text(markup.paragraphs([markup.text(rng.choice(WITHOUT_WORDS))]))
        topic = rng.choices(self._topics, self._topic_weights)[0]
        written = Text("")
        parts = [markup.text(self._sentences(author.language, topic, mood))]
        if rng.random() < _MENTION_SHARE:
            parts[0] = f"{self._mention(written)} {parts[0]}"
        if rng.random() < _LINK_SHARE:
            parts.append(self._link(written))
        if rng.random() < _TAGGED_SHARE:
            parts.append(self._hashtags(written, topic))
        written.content = markup.paragraphs(parts)
        return written

    def _sentences(self, language: str, topic: str, mood: Mood) -> str:
        rng = self._rng
        book = PHRASEBOOKS[language]
        thing = rng.choice(book.things[topic])
        sentence = rng.choice(book.sentences[mood])
        words = sentence.replace("{thing}", thing).replace("{Thing}", thing[0].upper() + thing[1:])
        if rng.random() < 0.4:
            words += rng.choice((" ", " ", "\n")) + rng.choice(book.tails[mood])
        if rng.random() < 0.3:
            words += " " + rng.choice(EMOJI[mood])
        if rng.random() < _SEPARATOR_SHARE:
            words = words.replace(" ", rng.choice(_SEPARATORS), 1)
        return words

    def _mention(self, written: Text) -> str:
        other = self._rng.choice(self._everyone).account
        keys = ("id", "username", "url", "acct")
        written.mentions.append({key: other[key] for key in keys})
        return markup.mention(other["username"], other["url"])

    def _link(self, written: Text) -> str:
        rng = self._rng
        domain, path = rng.choice(REMOTE_DOMAINS), rng.choice(LINK_PATHS)
        if rng.random() < 0.5:
            written.card = _card(domain, path)
        return markup.link(f"https://{domain}{path}")

    def _hashtags(self, written: Text, topic: str) -> str:
        rng = self._rng
        names = TOPICS[topic][1]
        chosen = dict.fromkeys(rng.choices(names, k=2 if rng.random() < 0.25 else 1))
        links = []
        for name in chosen:
            spelling = name.lower() if rng.random() < _LOWER_CASE_TAG_SHARE else name
            written.tags.append(
                {"name": spelling, "url": f"https://{self._domain}/tags/{name.lower()}"}
            )
            links.append(markup.hashtag(spelling, self._domain))
        return " ".join(links)

    def _image(self, status_id: str) -> dict[str, Any]:
        files = f"https://files.{self._domain}/media/{status_id}"
        return {
            "id": status_id,
            "type": "image",
            "url": f"{files}/original.jpg",
            "preview_url": f"{files}/small.jpg",
            "remote_url": None,
            "preview_remote_url": None,
            "text_url": None,
            "meta": {
                "original": {"width": 1600, "height": 1200, "size": "1600x1200", "aspect": 4 / 3},
                "small": {"width": 640, "height": 480, "size": "640x480", "aspect": 4 / 3},
            },
            "description": self._rng.choice((None, "A bridge in the evening, seen from the river")),
            "blurhash": "UAAAAAAAAAAA",
        }


def _card(domain: str, path: str) -> dict[str, Any]:
    return {
        "url": f"https://{domain}{path}",
        "title": path.rsplit("/", 1)[-1].replace("-", " ").capitalize(),
        "description": "",
        "language": "en",
        "type": "link",
        "author_name": "",
        "author_url": "",
        "provider_name": domain,
        "provider_url": f"https://{domain}",
        "html": "",
        "width": 0,
        "height": 0,
        "image": None,
        "image_description": "",
        "embed_url": "",
        "blurhash": None,
        "published_at": None,
        "authors": [],
    }
