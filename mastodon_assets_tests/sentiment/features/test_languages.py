"""The detector: when its answer counts."""

import pytest

from mastodon_assets.sentiment.features.languages import detect

# The detector imports urllib3, which binds a socket to find out whether there is IPv6.
pytestmark = pytest.mark.usefixtures("loopback")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("whatever you do: KEEP GOING ALMOST THERE YOU CAN DO IT!", "en"),
        ("#HappyMonday #GoodMorning #Coffee", "en"),
        ("WAS FÜR EIN SCHÖNER TAG HEUTE", "de"),
        ("今日はとても楽しかったです", "ja"),
    ],
)
def test_capitals_and_signs_of_hashtags_do_not_mislead_the_detector(
    text: str, language: str
) -> None:
    assert detect(text, is_declared=True) == language


def test_a_less_sure_answer_counts_only_if_no_language_is_declared() -> None:
    for text, language in (("quelle belle journée", "fr"), ("hidden behind a warning", "en")):
        assert detect(text, is_declared=True) is None
        assert detect(text, is_declared=False) == language


@pytest.mark.parametrize("text", ["", "happy", "Which one?", "#a #b #c #d #e #f", "!!! ... 12345"])
def test_too_little_text_gets_no_answer(text: str) -> None:
    assert detect(text, is_declared=True) is None
    assert detect(text, is_declared=False) is None
