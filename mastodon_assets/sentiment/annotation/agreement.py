"""How far coders agree: Krippendorff's alpha with its interval, overall and per language.

What belongs here: pure functions of labels. Labels that settle a disagreement were given to
disputed posts only, so they are left out.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mastodon_assets.sentiment.annotation.labels import UNSURE, Sample, given

# The labels of one post, by coder.
Unit = dict[str, str]

_RESAMPLES = 200
_SEED = 1
# An interval of fewer posts says nothing.
_FEWEST_POSTS = 10


@dataclass(frozen=True)
class Agreement:
    """Agreement on posts that at least two coders labelled.

    `alpha` is None if it is undefined: without two different labels. `interval` is None for fewer
    than ten posts.
    """

    posts: int
    agreed: int
    alpha: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Progress:
    """What a coder has labelled so far, of all drawn posts."""

    coder: str
    labelled: int
    unsure: int
    waiting: int


def units(sample: Sample, language: str | None = None) -> list[Unit]:
    """Return the posts that at least two coders labelled, of one language or of all."""
    found = (
        {label.coder: label.label for label in given(sample.labels_of(post))}
        for post in sample.posts
        if language is None or post.language == language
    )
    return [unit for unit in found if len(unit) > 1]


def measure_agreement(labelled: Sequence[Unit]) -> Agreement:
    """Return alpha for nominal labels, with a 95 % bootstrap interval over posts."""
    agreed = sum(len(set(unit.values())) == 1 for unit in labelled)
    alpha, interval = krippendorff_alpha(labelled), None
    if alpha is not None and len(labelled) >= _FEWEST_POSTS:
        resampled = [value for value in _resampled_alphas(labelled) if value is not None]
        low, high = np.percentile(resampled, (2.5, 97.5))
        interval = (float(low), float(high))
    return Agreement(len(labelled), agreed, alpha, interval)


def krippendorff_alpha(labelled: Sequence[Unit]) -> float | None:
    """Return Krippendorff's alpha for nominal labels; None if it is undefined.

    1 is perfect agreement, 0 is agreement by chance.

    Args:
        labelled: The labels of each post by coder, at least two per post.
    """
    from nltk.metrics.agreement import AnnotationTask

    # Chance agreement is then certain, and alpha is 0 divided by 0.
    if len({label for unit in labelled for label in unit.values()}) < 2:
        return None
    triples = [
        (coder, place, label)
        for place, unit in enumerate(labelled)
        for coder, label in unit.items()
    ]
    return float(AnnotationTask(triples).alpha())


def disagreements(labelled: Sequence[Unit]) -> Counter[tuple[str, str]]:
    """Count pairs of coders with different labels, by the two labels in alphabetical order."""
    counts: Counter[tuple[str, str]] = Counter()
    for unit in labelled:
        for one, other in combinations(sorted(unit.values()), 2):
            if one != other:
                counts[one, other] += 1
    return counts


def progress(sample: Sample) -> list[Progress]:
    """Return the progress of each coder who has labelled anything, by name."""
    labelled: Counter[str] = Counter()
    unsure: Counter[str] = Counter()
    for post in sample.posts:
        for label in sample.labels_of(post):
            (unsure if label.label == UNSURE else labelled)[label.coder] += 1
    return [
        Progress(
            coder,
            labelled[coder],
            unsure[coder],
            len(sample.posts) - labelled[coder] - unsure[coder],
        )
        for coder in sorted({*labelled, *unsure})
    ]


def _resampled_alphas(labelled: Sequence[Unit]) -> Iterator[float | None]:
    generator = np.random.default_rng(_SEED)
    for _ in range(_RESAMPLES):
        places = generator.integers(len(labelled), size=len(labelled))
        yield krippendorff_alpha([labelled[place] for place in places])
