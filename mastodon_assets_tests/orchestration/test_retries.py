"""Which failures of a step are repeated, in real runs."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from mastodon_assets.definitions import build_definitions
from mastodon_assets.errors import PlatformError, ServiceUnavailableError
from mastodon_assets.orchestration import retries
from mastodon_assets.orchestration.retries import retried_after_outages

_attempts: list[Exception] = []


class _Config(dg.Config):
    is_outage: bool = True
    failures: int = 1


def _work(config: _Config) -> None:
    if len(_attempts) < config.failures:
        kind = ServiceUnavailableError if config.is_outage else PlatformError
        _attempts.append(kind("it is away"))
        raise _attempts[-1]


@dg.asset
@retried_after_outages
def one(context: dg.AssetExecutionContext, config: _Config) -> dg.MaterializeResult:  # type: ignore[type-arg]
    _work(config)
    return dg.MaterializeResult(metadata={"attempt": context.retry_number})


@dg.multi_asset(specs=[dg.AssetSpec("two")])
@retried_after_outages
def several(config: _Config) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
    _work(config)
    yield dg.MaterializeResult("two")


@dg.asset
def checked() -> None:
    pass


@dg.asset_check(asset=checked, blocking=True)
@retried_after_outages
def check(config: _Config) -> dg.AssetCheckResult:
    _work(config)
    return dg.AssetCheckResult(passed=True)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "SECONDS_TO_WAIT", 0)
    _attempts.clear()


def _run(asset: dg.AssetsDefinition, **config: Any) -> dg.ExecuteInProcessResult:
    run_config = dg.RunConfig({asset.op.name: _Config(**config)})
    return dg.materialize([asset], run_config=run_config)


@pytest.mark.parametrize("asset", [one, several])
def test_a_step_is_repeated_after_an_outage(asset: dg.AssetsDefinition) -> None:
    assert _run(asset, failures=retries.MAX_RETRIES).success
    assert len(_attempts) == retries.MAX_RETRIES


@pytest.mark.parametrize("asset", [one, several])
def test_an_outage_that_lasts_fails_with_its_own_error(asset: dg.AssetsDefinition) -> None:
    with pytest.raises(ServiceUnavailableError, match="it is away"):
        _run(asset, failures=99)
    assert len(_attempts) == retries.MAX_RETRIES + 1


@pytest.mark.parametrize("asset", [one, several])
def test_what_would_fail_again_is_not_repeated(asset: dg.AssetsDefinition) -> None:
    with pytest.raises(PlatformError, match="it is away"):
        _run(asset, is_outage=False, failures=99)
    assert len(_attempts) == 1


def test_a_check_is_repeated_after_an_outage() -> None:
    run_config = dg.RunConfig({check.op.name: _Config(failures=2)})
    assert dg.materialize([checked, check], run_config=run_config).success
    assert len(_attempts) == 2


def test_every_asset_and_check_that_asks_a_service_is_repeated_after_an_outage() -> None:
    definitions = build_definitions()
    steps: list[Any] = [
        each.op
        for each in (*(definitions.assets or ()), *(definitions.asset_checks or ()))
        if isinstance(each, dg.AssetsDefinition)
    ]
    assert len(steps) > 30
    # What `retried_after_outages` returns has the function that it wraps.
    once = [op.name for op in steps if not hasattr(op.compute_fn.decorated_fn, "__wrapped__")]
    # It reads a file.
    assert once == ["sentiment_corpus"]
