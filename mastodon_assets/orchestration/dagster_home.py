"""Where Dagster keeps its runs: DAGSTER_HOME, else a folder in the state folder."""

import os
import shutil
from importlib.resources import as_file, files
from pathlib import Path

FOLDER = "dagster"


def dagster_home(state_folder: Path) -> Path:
    """The absolute folder, made if needed, with our `dagster.yaml` if it has none."""
    home = _home(state_folder)
    home.mkdir(parents=True, exist_ok=True)
    configuration = home / "dagster.yaml"
    if not configuration.exists():
        with as_file(files("mastodon_assets.orchestration") / "dagster.yaml") as template:
            shutil.copyfile(template, configuration)
    return home.absolute()


def existing_dagster_home(state_folder: Path) -> Path | None:
    """The absolute folder where Dagster has been set up; None where it has not."""
    home = _home(state_folder)
    return home.absolute() if (home / "dagster.yaml").exists() else None


def _home(state_folder: Path) -> Path:
    given = os.environ.get("DAGSTER_HOME")
    return Path(given) if given else state_folder.absolute() / FOLDER
