"""Which posts the operator wants at all: pure, decided after consent.

What belongs here: the rules of the FILTER_ settings. What is done with a post that is left out
stands in `handler`.

A word is found between word boundaries, in any case and width (NFKC and case folding on both
sides): `ai` is found in "AI!", "#AI", "j'ai" and "AI's", not in "said" or "ai_2". Scripts that put
no spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan) have no such
boundary: a word in one of them is found anywhere, and where one of them meets another script there
is a boundary, so `ai` is found in "AIとは".
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import regex

from mastodon_assets.config.settings import Settings
from mastodon_assets.contract.messages import Message

_WITHOUT_SPACES = (
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]"
)
# `\w` of the package regex holds combining marks, which those of many Indian scripts are.
_JOINED = rf"[\w--{_WITHOUT_SPACES}]"
_UNKNOWN_LANGUAGE = "und"


@dataclass(frozen=True)
class Filters:
    """What is let through; everything where nothing is set.

    `languages` are primary subtags, `und` for posts that declare none. `words` and `tags` each let
    a post through that has any of them. An answer is a reply to whomever, the author included.
    """

    languages: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    drops_bots: bool = False
    drops_replies: bool = False

    def dropped_by(self, message: Message) -> str | None:
        """The rule that leaves the post out; None where it passes.

        One of `language`, `bot`, `reply`, `tags`, `words`: the first that applies. `message` is
        an upsert before pseudonyms; words are looked for in text and content warning.
        """
        if self.languages and _primary_subtag(message["language"]) not in self.languages:
            return "language"
        if self.drops_bots and message["bot"] is True:
            return "bot"
        if self.drops_replies and message["in_reply_to_id"] is not None:
            return "reply"
        if self.tags and self.tags.isdisjoint(map(_folded, message["hashtags"])):
            return "tags"
        if self.words and not self._has_word(message):
            return "words"
        return None

    def __str__(self) -> str:
        """Which rules are set, with a fingerprint of what they say; `none` without any."""
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
    """The filters of the settings."""
    return Filters(
        languages=frozenset(map(_primary_subtag, _items(settings.filter_languages))),
        words=frozenset(map(_folded, _items(settings.filter_words))),
        tags=frozenset(_folded(tag.removeprefix("#")) for tag in _items(settings.filter_tags)),
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
    """Spaces within a word stand for any white space."""
    body = r"\s+".join(map(regex.escape, word.split()))
    before = f"(?<!{_JOINED})" if _is_joined(word[0]) else ""
    after = f"(?!{_JOINED})" if _is_joined(word[-1]) else ""
    return f"{before}{body}{after}"


def _is_joined(character: str) -> bool:
    return regex.match(f"(?V1){_JOINED}", character) is not None
