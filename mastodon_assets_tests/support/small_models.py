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

SMALL_PARAMETERS = replace(DEMO_PARAMETERS, buckets=2**13, head_buckets=2**13, max_iter=10)


@contextmanager
def small_models() -> Iterator[None]:
    """Let `train` fit in few steps, and stack in two folds."""
    with (
        patch.object(training, "PipelineParameters", lambda: SMALL_PARAMETERS),
        patch.object(training, "DEMO_PARAMETERS", SMALL_PARAMETERS),
        two_folds(),
    ):
        yield


@contextmanager
def tiny_models() -> Iterator[None]:
    """The same, and only of the corpus' own texts: without the templates that every model gets."""
    with small_models(), patch.object(training, "with_templates", lambda _spark, texts: texts):
        yield


@contextmanager
def two_folds() -> Iterator[None]:
    """Stack with the fewest folds there can be: each costs a fit of the n-grams."""
    with patch.object(stacked, "_LARGEST_FOLD", 1 / 2):
        yield
