import time

import pytest
from pyspark.sql import SparkSession

from mastodon_assets.sentiment import fit
from mastodon_assets.sentiment.fit import iterations_reported, progress_line


def test_the_time_left_is_an_upper_bound_from_the_iterations_done() -> None:
    assert progress_line(25, 100, 1.2) == "iteration 25 of at most 100, at most 90 s left"
    assert progress_line(120, 100, 1.2) == "iteration 100 of at most 100, at most 0 s left"


def test_iterations_are_told_while_they_run_and_later_jobs_are_not_counted(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "_SECONDS_BETWEEN_REPORTS", 0.01)
    lines: list[str] = []
    with iterations_reported(spark, 50, lines.append):
        deadline = time.monotonic() + 60
        while not lines and time.monotonic() < deadline:
            spark.range(10).count()
    told = len(lines)
    assert told > 0
    assert "of at most 50, at most" in lines[0]
    spark.range(10).count()
    assert len(lines) == told
