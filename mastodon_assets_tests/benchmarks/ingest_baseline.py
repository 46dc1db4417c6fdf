"""The usual way, for comparison only: Mastodon.py's own `stream_public`, with our handler.

What is compared is the reading of the stream: what a post becomes, and Kafka's acknowledgement of
it, are the same code. It ends after `--max` posts, by closing its connection.
"""

import argparse
from datetime import UTC, datetime
from typing import Any

from mastodon import Mastodon, StreamListener

from mastodon_assets.config.settings import load_settings
from mastodon_assets.ingest.handler import EventHandler
from mastodon_assets.ingest.policy.admission import admission_policy
from mastodon_assets.kafka.publisher import publishing
from mastodon_assets.warehouse.suppression_list import watched_suppression_list


class _Done(Exception):
    """All posts were taken."""


class _Listener(StreamListener):
    def __init__(self, intake: EventHandler, posts: int) -> None:
        self._handler = intake
        self._posts = posts

    def on_update(self, status: Any) -> None:
        self._handler.handle_listed(status, datetime.now(UTC))
        if self._handler.summary.received >= self._posts:
            raise _Done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max", type=int, required=True)
    posts = parser.parse_args().max
    settings = load_settings()
    assert settings.mastodon_access_token is not None
    api = Mastodon(
        api_base_url=settings.mastodon_api_base_url,
        access_token=settings.mastodon_access_token.get_secret_value(),
        version_check_mode="none",
    )
    with publishing(settings) as publisher:
        intake = EventHandler(
            publisher,
            instance="firehose.example",
            policy=admission_policy(settings),
            suppression_list=watched_suppression_list(settings),
        )
        try:
            api.stream_public(_Listener(intake, posts))
        except _Done:
            publisher.flush(60)


if __name__ == "__main__":
    main()
