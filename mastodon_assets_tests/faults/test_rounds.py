"""A few rounds of the benchmark of a hundred faults."""

import random
from typing import TYPE_CHECKING

from mastodon_assets_tests.benchmarks.faults import run_rounds
from mastodon_assets_tests.support.fault_platform import Platform

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_kills_at_random_moments_change_no_row(platform: Platform, spark: "SparkSession") -> None:
    rounds = run_rounds(platform, spark, 5, random.Random(5), report=print)
    assert [each.differences for each in rounds] == [[]] * 5, rounds
