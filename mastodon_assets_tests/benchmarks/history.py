"""How much a day of refreshes leaves in Dagster's history: `python -m …benchmarks.history`.

Runs `refresh_job` in processes of their own, as the daemon starts them, on the embedded stack of
MASTODON_ASSETS_HOME, and applies retention after each. What a refresh adds once the kept number is
reached is projected to a day with a refresh per minute.
"""

import argparse
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from mastodon_assets.config.settings import load_settings
from mastodon_assets.definitions import build_definitions
from mastodon_assets.orchestration.dagster_home import dagster_home
from mastodon_assets.orchestration.retention import remove_old_runs

_MINUTES_OF_A_DAY = 1440
_REFRESH = ["job", "execute", "-m", "mastodon_assets.definitions", "-j", "refresh_job"]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Print bytes per refresh, before and after retention."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--refreshes", type=int, default=40)
    count = parser.parse_args().refreshes
    settings = load_settings()
    home = dagster_home(settings.mastodon_assets_home)
    environment = {**os.environ, "DAGSTER_HOME": str(home)}
    assets = build_definitions().get_repository_def().asset_graph.get_all_asset_keys()
    sizes = [_size(home)]
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for _ in range(count):
            command = [sys.executable, "-m", "dagster", *_REFRESH]
            subprocess.run(command, env=environment, check=True, capture_output=True)
            before = _size(home)
            while remove_old_runs(instance, settings, assets, datetime.now(UTC)):
                pass
            sizes.append(_size(home))
            sys.stdout.write(f"{before:,} bytes, after retention {sizes[-1]:,}\n")
    kept = settings.dagster_keep_refreshes
    growth = (sizes[-1] - sizes[kept]) / (count - kept) if count > kept else None
    document = {
        "refreshes": count,
        "bytes": sizes[-1],
        "bytes_per_refresh_beyond_the_kept": growth,
        "bytes_after_a_day": None
        if growth is None
        else sizes[kept] + growth * (_MINUTES_OF_A_DAY - kept),
    }
    sys.stdout.write(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
