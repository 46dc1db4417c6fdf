"""Krippendorff's alpha, held against the worked examples that he published.

K. Krippendorff: Computing Krippendorff's Alpha-Reliability, 2011 (2013.1.25).
"""

from datetime import UTC, datetime

import pytest

from mastodon_assets.sentiment.annotation.agreement import (
    Progress,
    Unit,
    disagreements,
    krippendorff_alpha,
    measure_agreement,
    progress,
    units,
)
from mastodon_assets.sentiment.annotation.labels import Label, Sample, SampledPost

_AT = datetime(2026, 11, 20, tzinfo=UTC)


def _units(*rows: str) -> list[Unit]:
    """Units of the rows of coders, one character per unit; a dot is a missing label."""
    found = (
        {f"coder {number}": row[place] for number, row in enumerate(rows) if row[place] != "."}
        for place in range(len(rows[0]))
    )
    return [unit for unit in found if len(unit) > 1]


@pytest.mark.parametrize(
    ("rows", "alpha"),
    [
        # A. Binary data, two observers, no missing data.
        (("0100000010", "1110010000"), 0.095),
        # B. Nominal data, two observers, no missing data.
        (("aabbdcccedda", "babbbccceddd"), 0.692),
        # C. Nominal data, any number of observers, missing data.
        (("123321412...", "1233224125.3", ".3332342251.", "12332441251."), 0.743),
    ],
)
def test_alpha_is_that_of_the_published_examples(rows: tuple[str, ...], alpha: float) -> None:
    assert krippendorff_alpha(_units(*rows)) == pytest.approx(alpha, abs=0.0005)


def test_perfect_agreement_is_one_and_systematic_disagreement_is_below_zero() -> None:
    assert krippendorff_alpha(_units("pnpn", "pnpn")) == 1
    alpha = krippendorff_alpha(_units("pnpn", "npnp"))
    assert alpha is not None
    assert alpha < 0


@pytest.mark.parametrize("labelled", [[], _units("pppp", "pppp")])
def test_alpha_is_undefined_without_two_different_labels(labelled: list[Unit]) -> None:
    assert krippendorff_alpha(labelled) is None
    measured = measure_agreement(labelled)
    assert (measured.alpha, measured.interval) == (None, None)
    assert measured.agreed == len(labelled)


def test_the_interval_contains_alpha_and_narrows_with_more_posts() -> None:
    few = _units("ppnnoopnopno", "ppnnoopnoopn")
    widths = []
    for labelled in (few, few * 10):
        measured = measure_agreement(labelled)
        assert measured.alpha is not None
        assert measured.interval is not None
        low, high = measured.interval
        assert low <= measured.alpha <= high <= 1
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_fewer_than_ten_posts_have_no_interval() -> None:
    assert measure_agreement(_units("ppnnoopno", "ppnnoopnn")).interval is None


def test_disagreements_are_counted_by_pair_of_labels() -> None:
    counts = disagreements(_units("pnop", "nnpp", "pnoo"))
    assert counts == {("n", "p"): 2, ("o", "p"): 4}


def test_unsure_labels_and_those_that_settle_are_no_agreement() -> None:
    posts = [SampledPost(id_, "en" if id_ < 3 else "de", _AT, False, "s", 10) for id_ in (1, 2, 3)]
    labels = {
        1: [_label(1, "ada", "positive"), _label(1, "bob", "negative")],
        2: [_label(2, "ada", "positive"), _label(2, "bob", "unsure")],
        3: [_label(3, "ada", "neutral"), _label(3, "bob", "neutral")],
    }
    labels[1].append(_label(1, "cleo", "positive", settles=True))
    sample = Sample(posts, labels)
    assert units(sample) == [
        {"ada": "positive", "bob": "negative"},
        {"ada": "neutral", "bob": "neutral"},
    ]
    assert units(sample, "de") == [{"ada": "neutral", "bob": "neutral"}]
    assert progress(sample) == [
        Progress("ada", 3, 0, 0),
        Progress("bob", 2, 1, 0),
        Progress("cleo", 1, 0, 2),
    ]


def _label(id_: int, coder: str, label: str, *, settles: bool = False) -> Label:
    return Label(id_, coder, label, settles, _AT)
