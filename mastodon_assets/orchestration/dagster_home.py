"""The folder of Dagster's runs: DAGSTER_HOME, otherwise `dagster` in the state folder."""

import hashlib
import os
import shutil
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

FOLDER = "dagster"
# Of the `dagster.yaml` of earlier versions (sha256): a copy that nobody has changed is replaced.
_EARLIER = {
    "a073df0633bb829f9d328cb11e2dc4c40b1b72f8f5e363b1de3b035319a96176",
    "c16fe7f0ddb14bdefd3560cc2b143f6018dcba5736a424667a874adf09fcb3dd",
    "3762fcd06ea7920ba352b300fd169f214b3492d2421ad59c3bd97b4badcd3c48",
    "185f1a1cde57bacfec6a73ad185a85912eaa2baabd57901010a8801a21404b4c",
}


def dagster_home(state_folder: Path) -> Path:
    """Return the absolute folder; create it, and our `dagster.yaml` in it, if missing.

    Runs and their errors may quote posts, so what is created is for its owner only.
    """
    home = _home(state_folder)
    home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.mkdir(mode=0o700, exist_ok=True)
    configuration = home / "dagster.yaml"
    if not configuration.exists() or _is_earlier(configuration):
        with as_file(files("mastodon_assets.orchestration") / "dagster.yaml") as template:
            shutil.copyfile(template, configuration)
    return home.absolute()


def _is_earlier(configuration: Path) -> bool:
    return hashlib.sha256(configuration.read_bytes()).hexdigest() in _EARLIER


def existing_dagster_home(state_folder: Path) -> Path | None:
    """Return the absolute folder if it has a `dagster.yaml`; otherwise None."""
    home = _home(state_folder)
    return home.absolute() if (home / "dagster.yaml").exists() else None


@cache
def opened_instance(home: Path) -> "dg.DagsterInstance":
    """Return the instance of a folder with a `dagster.yaml`, opened once per process."""
    import dagster as dg

    return dg.DagsterInstance.from_config(str(home))


def _home(state_folder: Path) -> Path:
    given = os.environ.get("DAGSTER_HOME")
    return Path(given) if given else state_folder.absolute() / FOLDER
