"""What a whole lineage leaves: Dagster's runs, the rows of all tables, the bytes of all files."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg
from pydantic import SecretStr

from mastodon_assets.config.settings import Settings
from mastodon_assets.definitions import build_definitions
from mastodon_assets.reports import specs
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.tables import TABLES

CHARTS = tuple(specs.CHARTS)
EXPORTS = ("viz_sentiment_daily", "viz_sentiment_dist", "viz_top_hashtags")


@contextmanager
def materializing() -> Iterator[Callable[[str], dg.ExecuteInProcessResult]]:
    """`materialize(selection)` as Dagster's own commands do it, on an instance of its own."""
    with dg.DagsterInstance.ephemeral() as instance:
        repository = build_definitions().get_repository_def()

        def materialize(selection: str) -> dg.ExecuteInProcessResult:
            keys = dg.AssetSelection.from_string(selection).resolve(repository.asset_graph)
            job = repository.get_implicit_global_asset_job_def()
            executable = keys & repository.asset_graph.executable_asset_keys
            return job.execute_in_process(
                instance=instance, asset_selection=sorted(executable), raise_on_error=False
            )

        yield materialize


# What they show changes with the clock.
_BY_THE_CLOCK = {"v_hashtag_trends", "v_activity_by_weekday"}
# Its row says which hours were compared last; each refresh compares the next ones.
_CHECK_IN_TURN = "hourly_tables_count_their_posts"


def all_rows(postgres_url: SecretStr) -> dict[str, list[str]]:
    """The rows of each table and view as text, sorted."""
    with transaction(postgres_url, snapshot=True) as connection:
        return {
            name: sorted(
                str(row)
                for row in connection.execute(f"TABLE masto.{name}".encode()).fetchall()
                if row[0] != _CHECK_IN_TURN
            )
            for name in TABLES
            if name not in _BY_THE_CLOCK
        }


def all_files(settings: Settings) -> dict[str, bytes]:
    folders = (settings.reports_dir, settings.exports_dir)
    return {
        path.name: path.read_bytes()
        for folder in folders
        for path in folder.iterdir()
        if path.is_file()
    }
