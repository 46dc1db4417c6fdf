"""Sessions and the signal handlers of this process."""

import logging
import os
import signal
from typing import TYPE_CHECKING

import pytest

from mastodon_assets.config.settings import load_settings
from mastodon_assets.spark.session import NamelessUserError, prepare_environment

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_a_session_leaves_the_handler_of_ctrl_c_as_it_was(spark: "SparkSession") -> None:
    assert spark.sparkContext is not None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_reset_connection_is_not_logged_by_py4j_itself(
    spark: "SparkSession", caplog: pytest.LogCaptureFixture
) -> None:
    assert spark.sparkContext is not None
    root = logging.getLogger()
    for path in ("py4j/java_gateway.py", "mastodon_assets/stream/drain.py"):
        root.handle(logging.LogRecord("root", logging.ERROR, path, 1, path, None, None))
    assert caplog.messages == ["mastodon_assets/stream/drain.py"]


def test_a_user_without_a_name_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 2_000_000_123)
    with pytest.raises(NamelessUserError, match="the user id 2000000123 has no name") as raised:
        prepare_environment(load_settings())
    assert len(str(raised.value).splitlines()) == 1
