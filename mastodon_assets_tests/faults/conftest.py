"""One platform for all tests that kill its parts."""

from collections.abc import Iterator

import pytest

from mastodon_assets_tests.support.fault_platform import Platform, platform_in


@pytest.fixture(scope="package")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform_in(tmp_path_factory.mktemp("platform")) as made:
        yield made
