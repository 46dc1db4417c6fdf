"""How the tests' JVMs start: their lives are short, so they compile fast code less eagerly.

What belongs here: options of Java that change how fast it works, and nothing of what it does.
"""

_FEW_COMPILATIONS = "-XX:TieredStopAtLevel=1"
# For JVMs whose collector nothing else chooses: a second choice is an error.
QUICK_JVM = f"{_FEW_COMPILATIONS} -XX:+UseSerialGC"
# What Spark's own scripts read: for each driver, for what composes its command, for cluster and
# server processes.
QUICK_STARTS = {
    "SPARK_SUBMIT_OPTS": _FEW_COMPILATIONS,
    "SPARK_LAUNCHER_OPTS": QUICK_JVM,
    "SPARK_DAEMON_JAVA_OPTS": _FEW_COMPILATIONS,
}
