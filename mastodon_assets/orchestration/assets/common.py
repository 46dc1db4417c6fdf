"""What every asset gets besides its own definition: freshness policy, code version, owners.

What belongs here: what follows from an asset's group and name. Links to other pages are here too,
because they come from the settings.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import timedelta

import dagster as dg

from mastodon_assets.sentiment.revision import MODEL_REVISION
from mastodon_assets.warehouse.views import VIEWS, view_sql

# A platform without news confirms that its assets are current: see `mastodon_stream_sensor`.
CONFIRM_AFTER = timedelta(hours=6)
REFRESHED = dg.FreshnessPolicy.time_window(
    warn_window=2 * CONFIRM_AFTER, fail_window=4 * CONFIRM_AFTER
)
# Every night, whether something is trained or not.
TRAINED = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(hours=26), fail_window=timedelta(hours=50)
)
_WITHOUT_POLICY = ("source", "engagement")


def with_common_parts(
    assets: Sequence[dg.AssetSpec | dg.AssetsDefinition],
    *,
    owners: Sequence[str] = (),
    links: Mapping[str, str] | None = None,
) -> Sequence[dg.AssetSpec | dg.AssetsDefinition]:
    """Return the assets with freshness policy, code version, owners and links.

    Args:
        assets: The assets.
        owners: Teams (`team:data`) and e-mail addresses, of all assets.
        links: Name to URL, shown in the metadata of the ingested tables.
    """

    def completed(spec: dg.AssetSpec) -> dg.AssetSpec:
        name, group = spec.key.to_user_string(), spec.group_name
        added = {title: dg.MetadataValue.url(url) for title, url in (links or {}).items()}
        return spec.replace_attributes(
            freshness_policy=_policy(group),
            code_version=_code_version(name),
            owners=list(owners),
            metadata={**spec.metadata, **(added if group == "ingest" else {})},
        )

    return dg.map_asset_specs(completed, assets)


def _policy(group: str | None) -> dg.FreshnessPolicy | None:
    if group in _WITHOUT_POLICY:
        return None
    return TRAINED if group == "model" else REFRESHED


def _code_version(name: str) -> str | None:
    """Return what changes if the asset would be another one from the same input, if that is known.

    A view is its SQL; a model has a revision that a golden test holds.
    """
    if name in VIEWS:
        return hashlib.sha256(view_sql(name).encode()).hexdigest()[:12]
    return f"revision-{MODEL_REVISION}" if name == "sentiment_pipeline_model" else None
