"""The folder of Dagster's runs and its `dagster.yaml`."""

import hashlib
import stat
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


def test_only_its_owner_enters_a_new_state_folder_and_the_folder_of_runs_in_it(
    tmp_path: Path,
) -> None:
    home = dagster_home.dagster_home(tmp_path / "state")
    modes = [stat.S_IMODE(folder.stat().st_mode) for folder in (home.parent, home)]
    assert modes == [0o700, 0o700]
