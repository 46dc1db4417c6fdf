from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mastodon_assets.config.settings import load_settings
from mastodon_assets.ingest.policy.filters import Filters, filters_from
from mastodon_assets.ingest.policy.normalize import to_upsert
from mastodon_assets_tests.support.documents import account, status

RECEIVED = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def filters(**values: str) -> Filters:
    return filters_from(load_settings(_env_file=None, **values))


def dropped_by(rules: Filters, **changes: Any) -> str | None:
    document = status(**changes)
    message = to_upsert(document, instance="two.example", received_at=RECEIVED, origin="stream")
    return rules.dropped_by(message)


def has_word(word: str, text: str) -> bool:
    return dropped_by(filters(filter_words=word), content=text) is None


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("ai", "AI"),
        ("ai", "What AI can do"),
        ("ai", "ai, and more"),
        ("ai", "no AI!"),
        ("ai", "#AI"),
        ("ai", "j'ai dit"),
        ("ai", "AI's promises"),
        ("ai", "gen-ai"),
        ("ai", "ＡＩ"),
        ("ai", "AIとは何か"),
        ("ai", "生成AI"),
        ("AI", "an ai"),
        ("Straße", "STRASSE"),
        ("machine learning", "on Machine\n Learning"),
        ("café", "cafe\u0301"),
        ("c++", "C++ and C"),
        ("寿司", "今日寿司食べた"),
        ("ラーメン", "とんこつラーメンです"),
        ("ภาษา", "ฉันรักภาษาไทย"),
        ("हिन्दी", "मैं हिन्दी बोलता हूँ"),
        ("😀", "hello😀you"),
    ],
)
def test_a_word_is_found_in_any_case_and_width_between_boundaries(word: str, text: str) -> None:
    assert has_word(word, text)


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("ai", "said"),
        ("ai", "aid"),
        ("ai", "Thai"),
        ("ai", "ai_2"),
        ("ai", "ai2"),
        ("ai", "aı"),
        ("ai", "ai\u0301"),
        ("ai", "хai"),
        ("ai", ""),
        ("cafe", "cafe\u0301"),
        ("हिन्द", "मैं हिन्दी बोलता हूँ"),
        ("machine learning", "machines learning"),
        ("寿司", "寿 司"),
    ],
)
def test_a_word_is_not_found_within_another(word: str, text: str) -> None:
    assert not has_word(word, text)


LETTERS = st.sampled_from("abzABZ019_äßøÉŁДжΩسन")
WORDS = st.text(LETTERS, min_size=1, max_size=6)
SEPARATORS = st.sampled_from(
    [" ", "\n", ", ", ". ", "!", "-", "'", "(", "#", "…", "の", "是", " ไทย "]
)


@given(WORDS, WORDS, WORDS, SEPARATORS, SEPARATORS)
def test_what_is_between_separators_is_found(
    word: str, before: str, after: str, left: str, right: str
) -> None:
    rules = filters(filter_words=word)
    assert rules.dropped_by(_message(f"{before}{left}{word}{right}{after}")) is None


@given(WORDS, st.text(LETTERS, max_size=3), st.text(LETTERS, max_size=3))
def test_what_is_joined_to_letters_digits_or_underscores_is_not(
    word: str, before: str, after: str
) -> None:
    rules, text = filters(filter_words=word), f"{before}{word}{after}"
    is_whole = filters(filter_words=text).words == rules.words
    assert (rules.dropped_by(_message(text)) is None) == is_whole


@given(st.text(max_size=20), st.text(max_size=50))
def test_no_word_and_no_text_is_a_failure(word: str, text: str) -> None:
    rules = filters(filter_words=word)
    assert rules.dropped_by(_message(text)) in (None, "words")
    assert rules.words or rules.dropped_by(_message(text)) is None


def _message(text: str) -> dict[str, Any]:
    return {"content": text, "spoiler_text": None}


@pytest.mark.parametrize(
    ("language", "rule"),
    [
        ("de", None),
        ("DE", None),
        ("de-AT", None),
        ("de_CH", None),
        ("pt-BR", None),
        ("en", "language"),
        ("den", "language"),
        (None, "language"),
        ("", "language"),
        (5, "language"),
    ],
)
def test_languages_are_compared_by_their_first_part(language: object, rule: str | None) -> None:
    assert dropped_by(filters(filter_languages="de, PT"), language=language) == rule


def test_und_lets_posts_through_that_declare_no_language() -> None:
    assert dropped_by(filters(filter_languages="de,und"), language=None) is None


@pytest.mark.parametrize(
    ("tags", "rule"),
    [
        (["Tea"], None),
        (["news", "TEA"], None),
        (["ＴＥＡ"], None),
        (["teatime"], "tags"),
        ([], "tags"),
    ],
)
def test_tags_are_compared_whole_and_in_any_case(tags: list[str], rule: str | None) -> None:
    assert dropped_by(filters(filter_tags="#tea,coffee"), tags=tags) == rule


def test_bots_and_replies_are_dropped_where_said() -> None:
    bots, replies = filters(filter_bots="drop"), filters(filter_replies="drop")

    assert dropped_by(bots, account=account(bot=True)) == "bot"
    assert dropped_by(bots) is None
    assert dropped_by(replies, in_reply_to_id="5") == "reply"
    assert dropped_by(replies) is None


def test_a_word_may_be_in_the_content_warning() -> None:
    assert dropped_by(filters(filter_words="tea"), spoiler_text="On tea") is None


def test_without_filters_everything_passes() -> None:
    assert dropped_by(filters(), language=None, in_reply_to_id="5") is None
    assert str(filters()) == "none"


def test_the_fingerprint_says_which_rules_and_not_which_words() -> None:
    one, other = filters(filter_words="tea", filter_bots="drop"), filters(filter_words="rum")

    assert str(one).endswith(" (words, bots)")
    assert "tea" not in str(one)
    assert str(other) != str(filters(filter_words="gin"))
    assert str(other) == str(filters(filter_words=" RUM,rum"))
