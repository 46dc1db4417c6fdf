"""The folder of Dagster's runs: DAGSTER_HOME, otherwise `dagster` in the state folder."""

import os
import shutil
from importlib.resources import as_file, files
from pathlib import Path

FOLDER = "dagster"


def dagster_home(state_folder: Path) -> Path:
    """Return the absolute folder; create it, and our `dagster.yaml` in it, if missing."""
    home = _home(state_folder)
    home.mkdir(parents=True, exist_ok=True)
    configuration = home / "dagster.yaml"
    if not configuration.exists():
        with as_file(files("mastodon_assets.orchestration") / "dagster.yaml") as template:
            shutil.copyfile(template, configuration)
    return home.absolute()


def existing_dagster_home(state_folder: Path) -> Path | None:
    """Return the absolute folder if it has a `dagster.yaml`; otherwise None."""
    home = _home(state_folder)
    return home.absolute() if (home / "dagster.yaml").exists() else None


def _home(state_folder: Path) -> Path:
    given = os.environ.get("DAGSTER_HOME")
    return Path(given) if given else state_folder.absolute() / FOLDER
