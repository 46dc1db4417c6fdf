"""Sessions and the signal handlers of this process."""

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_a_session_leaves_the_handler_of_ctrl_c_as_it_was(spark: "SparkSession") -> None:
    assert spark.sparkContext is not None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
