import pytest

from mastodon_assets.sentiment.evaluation.drift import (
    MIN_ROWS,
    Scored,
    histogram,
    labels_hold,
    population_stability_index,
    probabilities_hold,
    unknown_share,
    unscored_share_holds,
    words_are_known,
    words_of,
)


def _labelled(label: str, rows: int, prob_pos: float = 0.9, text: str = "good day") -> list[Scored]:
    return [Scored(label, None, prob_pos, text)] * rows


def _unscored(reason: str, rows: int) -> list[Scored]:
    return [Scored(None, reason, None, "猫")] * rows


def test_label_shares_may_move_as_far_as_the_threshold() -> None:
    before = _labelled("positive", 500) + _labelled("negative", 500)
    allowed = _labelled("positive", 645) + _labelled("negative", 355)
    assert labels_hold(before, allowed).passed
    moved = labels_hold(before, _labelled("positive", 655) + _labelled("negative", 345))
    assert not moved.passed
    assert moved.figures["label_shift"] == pytest.approx(0.155)
    assert "from negative 0.500, positive 0.500 to negative 0.345, positive 0.655" in moved.text


def test_rows_without_a_label_are_no_share_of_the_labels() -> None:
    before = _labelled("positive", 500)
    assert labels_hold(before, _labelled("positive", 500) + _unscored("no_words", 5_000)).passed


def test_a_rising_share_without_a_label_is_reported_with_its_reasons() -> None:
    before = _labelled("positive", 900) + _unscored("no_words", 100)
    more = _labelled("positive", 740) + _unscored("unsupported_language", 260)
    finding = unscored_share_holds(before, more)
    assert not finding.passed
    assert "'unsupported_language': 260" in finding.text
    assert unscored_share_holds(more, before).passed


def test_probabilities_of_another_shape_are_found() -> None:
    reference = [100] * 10
    same = [Scored("x", None, (number % 100) / 100, "") for number in range(1_000)]
    assert probabilities_hold(same, reference).passed
    assert not probabilities_hold(_labelled("positive", 1_000), reference).passed


def test_words_that_training_did_not_see_are_found() -> None:
    texts = _labelled("positive", 400, text="a good day https://unknown.example @unknown")
    assert words_are_known(texts, {"a", "good", "day"}, 0.0).passed
    finding = words_are_known(texts, {"a", "good"}, 0.05)
    assert not finding.passed
    assert finding.figures["unknown_words"] == pytest.approx(1 / 3)


def test_too_few_rows_pass_and_say_so() -> None:
    few, many = _labelled("positive", MIN_ROWS - 1), _labelled("negative", MIN_ROWS)
    for finding in (
        labels_hold(few, many),
        labels_hold(many, few),
        unscored_share_holds(few, many),
        probabilities_hold(few, [100] * 10),
        words_are_known(few, set(), 0.0),
    ):
        assert finding.passed
        assert finding.text == f"too few rows to compare: {MIN_ROWS - 1} of {MIN_ROWS}"


def test_the_index_is_zero_for_equal_shares_and_defined_for_empty_bins() -> None:
    assert population_stability_index([10, 20], [10, 20]) == 0
    assert population_stability_index([0, 100], [100, 0]) > 1


def test_the_last_bin_holds_one() -> None:
    assert histogram([0.0, 0.05, 0.1, 1.0]) == [2, 1, 0, 0, 0, 0, 0, 0, 0, 1]


def test_words_are_runs_of_letters_without_links_and_handles() -> None:
    text = "Don't @ada@one.example www.a.example/x É2b https://x.example ok_then"
    assert words_of(text) == ["don't", "é", "b", "ok", "then"]
    assert unknown_share([], set()) is None
