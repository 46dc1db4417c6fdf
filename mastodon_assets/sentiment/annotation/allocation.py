"""How many posts to draw from each stratum.

What belongs here: pure functions of counts. The draw itself: `sample`.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, sqrt

from mastodon_assets.errors import SettingsError

# Languages with a smaller share of the posts are one group.
_LEAST_SHARE = 0.02
OTHER_LANGUAGES = "other"
# One post says nothing about how posts of its stratum differ.
_LEAST_PER_STRATUM = 2
_HALVES = ("lower", "higher")


@dataclass(frozen=True, order=True)
class Stratum:
    """Posts of a language with one label of the model, in one half of its probabilities.

    `half` is 1 or 2: the posts with the lower, or with the higher probabilities of positive.
    `label` is None for posts without a label; they are all in half 1.
    """

    language: str
    label: str | None
    half: int

    @property
    def name(self) -> str:
        """The stratum in words, such as `de, negative, lower half`."""
        if self.label is None:
            return f"{self.language}, no label"
        return f"{self.language}, {self.label}, {_HALVES[self.half - 1]} half"


def group_languages(counts: Mapping[str, int]) -> dict[str, str]:
    """Return the group of each language: itself, or `other` if it has less than 2 % of the posts.

    Args:
        counts: Posts by language.
    """
    least = _LEAST_SHARE * sum(counts.values())
    return {
        language: language if count >= least else OTHER_LANGUAGES
        for language, count in counts.items()
    }


def strata_sizes(
    counts: Mapping[tuple[str, str | None], int], groups: Mapping[str, str]
) -> dict[Stratum, int]:
    """Return the posts of each stratum that has any.

    Args:
        counts: Posts by language and label.
        groups: Group by language.
    """
    grouped: Counter[tuple[str, str | None]] = Counter()
    for (language, label), count in counts.items():
        grouped[groups[language], label] += count
    sizes: dict[Stratum, int] = {}
    for (group, label), count in grouped.items():
        # The first half has the odd post, as in SQL's ntile.
        halves = (count,) if label is None else (ceil(count / 2), count // 2)
        sizes |= {Stratum(group, label, half): n for half, n in enumerate(halves, 1) if n}
    return sizes


def allocate(sizes: Mapping[Stratum, int], wanted: int) -> dict[Stratum, int]:
    """Return how many posts to draw from each stratum; all of them if there are not more.

    Draws grow with the square root of a stratum's size: rare labels and languages are seen often
    enough, frequent ones still count most. Each stratum gives at least two posts if it has them.

    Raises:
        SettingsError: That is more than `wanted`.
    """
    if sum(sizes.values()) <= wanted:
        return dict(sizes)
    least = {stratum: min(size, _LEAST_PER_STRATUM) for stratum, size in sizes.items()}
    if sum(least.values()) > wanted:
        raise SettingsError(
            f"--size {wanted} is too small: there are {len(sizes)} strata of language, label and"
            f" probability; give at least {sum(least.values())}, or fewer languages by --languages"
        )
    drawn = least
    for _ in range(wanted - sum(least.values())):
        # The stratum that is furthest below its share.
        stratum = max(
            (each for each in sizes if drawn[each] < sizes[each]),
            key=lambda each: (sqrt(sizes[each]) / (drawn[each] + 1), each.name),
        )
        drawn[stratum] += 1
    return drawn
