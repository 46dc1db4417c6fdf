"""Trainings that take seconds instead of minutes.

For tests of what becomes of a model, not of how good it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

from mastodon_assets.sentiment import train as training
from mastodon_assets.sentiment.features.pipeline import DEMO_PARAMETERS
from mastodon_assets.sentiment.training import stacked

_SMALL = replace(DEMO_PARAMETERS, buckets=2**13, head_buckets=2**13, max_iter=10)


@contextmanager
def small_models() -> Iterator[None]:
    """Let `train` fit a file's texts in few steps, and stack them in two folds."""
    with (
        patch.object(training, "PipelineParameters", lambda: _SMALL),
        two_folds(),
    ):
        yield


@contextmanager
def two_folds() -> Iterator[None]:
    """Stack with the fewest folds there can be: each costs a fit of the n-grams."""
    with patch.object(stacked, "_LARGEST_FOLD", 1 / 2):
        yield
