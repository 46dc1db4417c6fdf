"""Read two simulated servers that federate, while one blocks the other.

    python -m mastodon_assets_tests.benchmarks.federation --posts 600 --rate 10

Each server posts live, and lists the other's local posts as two GoToSocials did: by ids of its own,
times cut to the second. In the middle one blocks the other's domain and deletes all its posts; then
the other deletes five of its own, of which the first hears nothing. Both are read into Kafka and
the tables at the same time. *Missing* are posts that a server lists at the end and consent allows,
and that are not in the tables; *kept wrongly* are posts in the tables that no server lists.
"""

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mastodon_assets.config.settings import load_settings
from mastodon_assets.embedded import stack as embedded
from mastodon_assets.kafka.topics import create_topics
from mastodon_assets_tests.support.databases import new_database
from mastodon_assets_tests.support.federated import measure_federation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posts", type=int, default=600)
    parser.add_argument("--rate", type=float, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "state"
        stack = embedded.up(home, topics=["mastodon_errors"])
        try:
            create_topics(stack.kafka_access, ["federation"])
            with new_database(stack) as url:
                settings = load_settings(
                    **stack.kafka_settings,
                    kafka_topic="federation",
                    database_url=url,
                    mastodon_assets_home=home,
                )
                found = measure_federation(settings, posts=arguments.posts, rate=arguments.rate)
        finally:
            embedded.down(home, wipe=True)
    counts = asdict(found)
    table = Table(*(name.replace("_", " ") for name in counts))
    table.add_row(*(f"{each:,}" for each in counts.values()))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
