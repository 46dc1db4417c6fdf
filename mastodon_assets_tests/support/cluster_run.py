"""What the cluster's test does, in a process of its own: a JVM has one master all its life.

Everything that uses Spark, with the settings of the environment; prints what it did as JSON.
"""

import atexit
import json
import sys

from mastodon_assets.batch.refresh import refresh_batch_table
from mastodon_assets.batch.tables import BATCH_TABLES
from mastodon_assets.config.settings import load_settings
from mastodon_assets.sentiment.scoring.score import score_pending
from mastodon_assets.sentiment.train import train
from mastodon_assets.spark.session import build_session
from mastodon_assets.stream.drain import drain
from mastodon_assets_tests.support.java import QUICK_JVM
from mastodon_assets_tests.support.small_models import small_models


def _report(line: str) -> None:
    print(line, file=sys.stderr)


def main() -> None:
    settings = load_settings()
    session = build_session(settings, jvm_options=QUICK_JVM)
    # Also where it fails: a model that outlives a session of Connect waits for ever.
    atexit.register(session.stop)
    done: dict[str, object] = {}
    if "drain" in sys.argv:
        done["stored"] = drain(lambda: session, settings, report=_report).counts.stored
    if "batch" in sys.argv:
        # Spark computes the sums of all posts only for a rebuild.
        done["batch"] = {
            name: refresh_batch_table(
                lambda: session, settings.postgres_url, name, min_toots=1, rebuild=True
            ).rows_changed
            for name in BATCH_TABLES
        }
    if "train" in sys.argv:
        # Where executors look for files does not depend on the model's size.
        with small_models():
            trained = train(lambda: session, settings, _report)
            done["model"] = {"status": trained.status, "path": str(trained.path)}
            done["trained_again"] = train(lambda: session, settings, _report).trained
    if "score" in sys.argv:
        done["scored"] = score_pending(lambda: session, settings, _report).by_outcome
    print(json.dumps(done))


if __name__ == "__main__":
    main()
