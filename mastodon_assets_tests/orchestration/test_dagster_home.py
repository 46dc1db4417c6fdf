"""The folder of Dagster's runs and its `dagster.yaml`."""

import hashlib
from importlib.resources import files
from pathlib import Path

import pytest

from mastodon_assets.orchestration import dagster_home

_TEMPLATE = (files("mastodon_assets.orchestration") / "dagster.yaml").read_text()


def test_a_configuration_of_an_earlier_version_is_replaced_unless_somebody_changed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = dagster_home.dagster_home(tmp_path) / "dagster.yaml"
    assert configuration.read_text() == _TEMPLATE
    configuration.write_text("# of an earlier version\n")
    dagster_home.dagster_home(tmp_path)
    assert configuration.read_text() == "# of an earlier version\n"
    earlier = hashlib.sha256(configuration.read_bytes()).hexdigest()
    monkeypatch.setattr(dagster_home, "_EARLIER", {earlier})
    dagster_home.dagster_home(tmp_path)
    assert configuration.read_text() == _TEMPLATE
