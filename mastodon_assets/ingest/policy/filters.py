"""The operator's filters, applied after consent. Pure.

What belongs here: the rules of the FILTER_ settings. How a dropped post is handled is in
`ingest.handler`.

A word matches between word boundaries, in any case and width (NFKC and case folding on both
sides): `ai` matches in "AI!", "#AI", "j'ai" and "AI's", not in "said" or "ai_2". Scripts without
spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan) have no such boundary:
a word in one of them matches anywhere. There is a boundary between one of them and another script,
so `ai` matches in "AIとは".
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import regex

from mastodon_assets.config.settings import Settings
from mastodon_assets.contract.identity import searched_tag
from mastodon_assets.contract.messages import Message

_WITHOUT_SPACES = (
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]"
)
# `\w` of the package regex includes combining marks, which many Indian scripts need.
_JOINED = rf"[\w--{_WITHOUT_SPACES}]"
_UNKNOWN_LANGUAGE = "und"


@dataclass(frozen=True)
class Filters:
    """The rules for which posts pass; without rules all do.

    Attributes:
        languages: Primary subtags that pass; `und` for posts that declare none.
        words: A post passes if it has any of them.
        tags: A post passes if it has any of them; compared as Mastodon's servers do.
        drops_bots: Whether posts of bots are dropped.
        drops_replies: Whether replies are dropped, including those of authors to themselves.
    """

    languages: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    drops_bots: bool = False
    drops_replies: bool = False

    def dropped_by(self, message: Message) -> str | None:
        """Return the first rule that drops the post; None if it passes.

        Args:
            message: An upsert before pseudonyms. Words are searched in text and content warning.

        Returns:
            `language`, `bot`, `reply`, `tags` or `words`.
        """
        if self.languages and _primary_subtag(message["language"]) not in self.languages:
            return "language"
        if self.drops_bots and message["bot"] is True:
            return "bot"
        if self.drops_replies and message["in_reply_to_id"] is not None:
            return "reply"
        if self.tags and self.tags.isdisjoint(map(searched_tag, message["hashtags"])):
            return "tags"
        if self.words and not self._has_word(message):
            return "words"
        return None

    def __str__(self) -> str:
        """Return a fingerprint of the rules and the names of those that are set, or `none`."""
        rules = {
            "languages": sorted(self.languages),
            "words": sorted(self.words),
            "tags": sorted(self.tags),
            "bots": self.drops_bots,
            "replies": self.drops_replies,
        }
        names = [name for name, value in rules.items() if value]
        if not names:
            return "none"
        fingerprint = blake2b(repr(rules).encode(), digest_size=4).hexdigest()
        return f"{fingerprint} ({', '.join(names)})"

    def _has_word(self, message: Message) -> bool:
        texts = (message["spoiler_text"], message["content"])
        return any(isinstance(text, str) and self._words.search(_folded(text)) for text in texts)

    @cached_property
    def _words(self) -> "regex.Pattern[str]":
        return regex.compile("(?V1)" + "|".join(map(_word_pattern, sorted(self.words))))


def filters_from(settings: Settings) -> Filters:
    """Return the filters of the settings."""
    return Filters(
        languages=frozenset(map(_primary_subtag, _items(settings.filter_languages))),
        words=frozenset(map(_folded, _items(settings.filter_words))),
        tags=frozenset(map(searched_tag, _items(settings.filter_tags))),
        drops_bots=settings.filter_bots == "drop",
        drops_replies=settings.filter_replies == "drop",
    )


def _items(text: str) -> Iterable[str]:
    return filter(None, (item.strip() for item in text.split(",")))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _primary_subtag(language: object) -> str:
    if not isinstance(language, str) or not language:
        return _UNKNOWN_LANGUAGE
    return language.replace("_", "-").partition("-")[0].lower()


def _word_pattern(word: str) -> str:
    """Return the pattern of a word; a space in it matches any white space."""
    body = r"\s+".join(map(regex.escape, word.split()))
    before = f"(?<!{_JOINED})" if _is_joined(word[0]) else ""
    after = f"(?!{_JOINED})" if _is_joined(word[-1]) else ""
    return f"{before}{body}{after}"


def _is_joined(character: str) -> bool:
    return regex.match(f"(?V1){_JOINED}", character) is not None
