"""A JVM without memory ends, and says in one line what to set."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mastodon_assets.spark.jvm_end import SparkEndedError, _explained, jvm_end_explained
from mastodon_assets_tests.support.ended_jvm import MESSAGE, ended_jvm


@pytest.mark.usefixtures("processes")
def test_a_jvm_without_memory_ends_and_one_line_says_what_to_set() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "mastodon_assets_tests.support.memory_hog"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-1] == (
        "error: Spark ran out of memory (its driver had 512m); nothing was written since the last"
        " commit: set SPARK_DRIVER_MEMORY to more, then run it again"
    )


@pytest.mark.usefixtures("processes")
def test_a_lost_connection_becomes_the_memory_that_the_jvm_was_started_with() -> None:
    with (
        ended_jvm() as session,
        pytest.raises(SparkEndedError, match=re.escape(MESSAGE)),
        jvm_end_explained(),
    ):
        session()


@pytest.mark.parametrize(("status", "words"), [(-9, "was killed"), (137, "was killed"), (1, "1;")])
def test_other_ends_are_named_too(status: int, words: str) -> None:
    assert words in _explained(status, "2g")
