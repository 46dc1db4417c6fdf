"""The checks that warn when scores drift; they block nothing."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from mastodon_assets.orchestration.resources import SettingsResource
from mastodon_assets.orchestration.retries import retried_after_outages

if TYPE_CHECKING:
    from mastodon_assets.config.settings import Settings
    from mastodon_assets.sentiment.evaluation.drift import Finding

_FACTS = {
    "label_shares_are_stable": "The labels' shares are close to those of the champion's first"
    " rows.",
    "unscored_share_is_stable": "The share of posts without a label is close to that of the"
    " champion's first rows.",
    "probabilities_are_as_trained": "The probabilities are distributed like those of the held-out"
    " texts.",
    "words_are_known": "The share of unknown words is no larger than in the held-out texts.",
}


@dg.multi_asset_check(
    name="scores_have_not_drifted",
    specs=[
        dg.AssetCheckSpec(name, asset="toots_sentiment", description=fact)
        for name, fact in _FACTS.items()
    ],
)
@retried_after_outages
def scores_have_not_drifted(settings: SettingsResource) -> Iterator[dg.AssetCheckResult]:
    """Compute all four checks in one step, because they read the same rows."""
    for name, finding in _findings(settings.load()).items():
        yield dg.AssetCheckResult(
            asset_key="toots_sentiment",
            check_name=name,
            passed=finding.passed,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"finding": finding.text, **finding.figures},
        )


def _findings(settings: "Settings") -> "dict[str, Finding]":
    from mastodon_assets.sentiment.evaluation import drift
    from mastodon_assets.sentiment.models.registry import champion
    from mastodon_assets.sentiment.models.store import read_vocabulary
    from mastodon_assets.spark.storage import storage_path
    from mastodon_assets.warehouse.database import transaction

    with transaction(settings.postgres_url, snapshot=True) as connection:
        model = champion(connection)
        if model is None:
            return dict.fromkeys(_FACTS, drift.Finding(True, "there is no champion model yet"))
        first, newest = drift.read_scores(connection, model.version, model.trained_at)
    findings = {
        "label_shares_are_stable": drift.labels_hold(first, newest),
        "unscored_share_is_stable": drift.unscored_share_holds(first, newest),
    }
    reference = model.metrics.get("reference")
    if reference is None or model.metrics.get("is_synthetic"):
        incomparable = drift.Finding(
            True,
            "the champion has no reference to compare with; train a new model"
            if reference is None
            else "the champion is for demonstration only: no post is like its synthetic texts",
        )
        return {**dict.fromkeys(_FACTS, incomparable), **findings}
    return {
        **findings,
        "probabilities_are_as_trained": drift.probabilities_hold(
            newest, reference["probabilities"]
        ),
        "words_are_known": drift.words_are_known(
            newest, read_vocabulary(storage_path(settings, model.path)), reference["unknown_words"]
        ),
    }
