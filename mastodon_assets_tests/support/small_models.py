"""Training on a file of labelled texts that takes seconds instead of minutes."""

from contextlib import AbstractContextManager
from unittest.mock import patch

from mastodon_assets.sentiment import train as training
from mastodon_assets.sentiment.features.pipeline import DEMO_PARAMETERS


def small_models() -> AbstractContextManager[object]:
    """Let `train` fit a file's texts with the size and the steps of the demo's model.

    For tests of what becomes of a model, not of how good it is.
    """
    return patch.object(training, "PipelineParameters", lambda: DEMO_PARAMETERS)
