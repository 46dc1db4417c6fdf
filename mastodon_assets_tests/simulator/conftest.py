"""The recorded data for the simulator's tests."""

from pathlib import Path

import pytest

from mastodon_assets_tests.support.shared_data import RECORDED


@pytest.fixture(scope="session")
def recorded() -> Path:
    """The folder of recorded statuses and streams, which is not part of the project."""
    if not RECORDED.is_dir():
        pytest.skip(f"needs the recorded toots in {RECORDED}")
    return RECORDED
