"""Slices of held-out texts: kinds of texts on which a model may be better or worse than on others.

What belongs here: which kinds, and their figures. Training and benchmark use the same.
"""

from typing import Any

import pyarrow as pa
from pyarrow import compute

from mastodon_assets.sentiment.evaluation.evaluate import evaluate

# Regexes that mean the same in Java and in RE2, by the slice's name.
SLICES = {
    "negation": r"(?i)\b(?:not|no|never|nothing|cannot|\w+n't)\b",
    "up to 6 words": r"\A\s*(?:\S+\s*){0,6}\z",
    "20 words or more": r"\A\s*(?:\S+\s+){19}\S",
    # Sentiment140 has few of both, so they count together.
    "emoji and emoticons": (
        r"[\x{1F300}-\x{1FAFF}\x{2600}-\x{27BF}]|[:;=]['o-]?[()DPp]|:/(?:[^/]|\z)|<3"
    ),
    "links and mentions": r"(?i)https?://|www\.|@\w",
}
# More texts would make a training longer and the intervals hardly narrower.
_MOST_TEXTS = 50_000


def slice_figures(held_out: pa.Table) -> dict[str, dict[str, Any]]:
    """Return by the slice's name what `evaluate` gives for its texts.

    Args:
        held_out: columns text, target (0 or 1) and prob_pos, in random order; the first 50,000 are
            read.
    """
    read = held_out.slice(0, _MOST_TEXTS)
    figures = {}
    for name, regex in SLICES.items():
        own = read.filter(compute.match_substring_regex(read["text"], regex))
        figures[name] = evaluate(own["target"].to_numpy(), own["prob_pos"].to_numpy())
    return figures
