"""Drift: whether the posts that are scored now still resemble what the model was measured on.

What belongs here: four findings on `toots_sentiment`, their thresholds, and reading the rows for
them. No Spark, because they run after each refresh. The reference values are stored at training, by
`diagnostics`.

All use the newest 5,000 rows that the champion scored. Shares of labels and of unscored texts are
compared with the same number of the champion's first rows: the corpus has another origin and says
nothing about these shares. Fewer than 400 rows on a side say nothing and pass.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import Connection

NEWEST_ROWS = 5_000
MIN_ROWS = 400
# Total variation distance of the shares of positive, neutral and negative, 0 to 1.
MAX_LABEL_SHIFT = 0.15
# Rise of the share of texts without a label.
MAX_UNSCORED_RISE = 0.15
# Rise of the share of words that training did not see twice, above that of the held-out texts.
MAX_UNKNOWN_RISE = 0.15
# Population stability index: by convention .1 is a change and .25 a large one.
MAX_PSI = 0.25

_BINS = 10
_LINK_OR_HANDLE = re.compile(r"\S*(?:://|@|www\.)\S*")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")

_SCORES = """
SELECT label_str, reason, prob_pos, text FROM masto.toots_sentiment
 WHERE model_version = %s AND scored_at >= %s ORDER BY scored_at {}, id {} LIMIT %s
"""


@dataclass(frozen=True)
class Scored:
    """A row of `toots_sentiment`: a label and a probability, or the reason for none."""

    label: str | None
    reason: str | None
    prob_pos: float | None
    text: str


@dataclass(frozen=True)
class Finding:
    """The result of one comparison; `text` is one line, `figures` are numbers to plot over time."""

    passed: bool
    text: str
    figures: Mapping[str, float] = field(default_factory=dict)


def read_scores(
    connection: Connection[Any], version: str, trained_at: datetime
) -> tuple[list[Scored], list[Scored]]:
    """Read the first and the newest rows that the model scored, equally many and none in both.

    Args:
        connection: The connection.
        version: The model's version.
        trained_at: When it was trained. Rows of before, which are all those of a long history, are
            not looked through.
    """
    row = connection.execute(
        "SELECT count(*) FROM (SELECT FROM masto.toots_sentiment"
        "                       WHERE model_version = %s AND scored_at >= %s LIMIT %s) AS scored",
        (version, trained_at, 2 * NEWEST_ROWS),
    ).fetchone()
    assert row is not None
    first, newest = (
        [
            Scored(*found)
            for found in connection.execute(
                _SCORES.format(order, order).encode(), (version, trained_at, row[0] // 2)
            )
        ]
        for order in ("ASC", "DESC")
    )
    return first, newest


def labels_hold(first: Sequence[Scored], newest: Sequence[Scored]) -> Finding:
    """Compare the shares of the labels."""
    before, now = _labels(first), _labels(newest)
    if too_few := _too_few(before.total(), now.total()):
        return too_few
    shift = sum(abs(before[x] / before.total() - now[x] / now.total()) for x in before | now) / 2
    return Finding(
        shift <= MAX_LABEL_SHIFT,
        f"shares of labels moved by {shift:.3f}, allowed {MAX_LABEL_SHIFT}: from {_shares(before)}"
        f" to {_shares(now)}",
        {"label_shift": shift},
    )


def unscored_share_holds(first: Sequence[Scored], newest: Sequence[Scored]) -> Finding:
    """Compare the shares of texts without a label."""
    if too_few := _too_few(len(first), len(newest)):
        return too_few
    before, now = (
        sum(row.reason is not None for row in rows) / len(rows) for rows in (first, newest)
    )
    reasons = Counter(row.reason for row in newest if row.reason)
    return Finding(
        now - before <= MAX_UNSCORED_RISE,
        f"share of texts without a label {now:.3f}, before {before:.3f}, allowed"
        f" {before + MAX_UNSCORED_RISE:.3f}; {dict(reasons.most_common())}",
        {"unscored_share": now},
    )


def probabilities_hold(newest: Sequence[Scored], reference: Sequence[int]) -> Finding:
    """Compare the histogram of probabilities with that of the held-out texts, `reference`."""
    counts = histogram(row.prob_pos for row in newest if row.prob_pos is not None)
    if too_few := _too_few(sum(reference), sum(counts)):
        return too_few
    index = population_stability_index(reference, counts)
    return Finding(
        index <= MAX_PSI,
        f"population stability index {index:.3f}, allowed {MAX_PSI}; by tenths of probability:"
        f" {counts} now, {list(reference)} in training",
        {"population_stability_index": index},
    )


def words_are_known(
    newest: Sequence[Scored], vocabulary: Set[str], reference: float | None
) -> Finding:
    """Compare the share of unknown words with that of the held-out texts, `reference`."""
    texts = [row.text for row in newest if row.label]
    if too_few := _too_few(len(texts), len(texts)):
        return too_few
    share, allowed = unknown_share(texts, vocabulary) or 0.0, (reference or 0.0) + MAX_UNKNOWN_RISE
    return Finding(
        share <= allowed,
        f"share of words not seen twice in training {share:.3f}, allowed {allowed:.3f}",
        {"unknown_words": share},
    )


def histogram(probabilities: Iterable[float]) -> list[int]:
    """Count rows in each of ten equal bins from 0 to 1."""
    counts = Counter(min(int(value * _BINS), _BINS - 1) for value in probabilities)
    return [counts[number] for number in range(_BINS)]


def population_stability_index(expected: Sequence[int], found: Sequence[int]) -> float:
    """Sum (q - p) ln(q / p) over bins; half a row is added to each, so that none is empty."""
    p, q = (
        [(count + 0.5) / (sum(counts) + len(counts) / 2) for count in counts]
        for counts in (expected, found)
    )
    return sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))


def words_of(text: str) -> list[str]:
    """Return the words in lower case, with inner apostrophes, without links and handles."""
    return _WORD.findall(_LINK_OR_HANDLE.sub(" ", text.lower()))


def unknown_share(texts: Iterable[str], vocabulary: Set[str]) -> float | None:
    """Return the share of words that are not in the vocabulary; None without words."""
    words = Counter(word for text in texts for word in words_of(text))
    unknown = sum(count for word, count in words.items() if word not in vocabulary)
    return unknown / words.total() if words else None


def _labels(rows: Iterable[Scored]) -> Counter[str]:
    return Counter(row.label for row in rows if row.label)


def _shares(labels: Counter[str]) -> str:
    shares = ((name, count / labels.total()) for name, count in sorted(labels.items()))
    return ", ".join(f"{name} {share:.3f}" for name, share in shares)


def _too_few(*counts: int) -> Finding | None:
    if min(counts) >= MIN_ROWS:
        return None
    return Finding(True, f"too few rows to compare: {min(counts)} of {MIN_ROWS}")
