"""An executor in a pod of Kubernetes: `python -m mastodon_assets.spark.executor`.

With SPARK_MASTER=k8s://… the driver creates pods of our image and describes in variables what they
run. Spark's own image has a script that reads them; PySpark does not. What belongs here: the
command.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from mastodon_assets.errors import PlatformError
from mastodon_assets.jvm.java import java_home
from mastodon_assets.jvm.maven import cache_dir

_OPTION = "SPARK_JAVA_OPT_"
_MAIN_CLASS = "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend"
# Option of the main class by variable.
_ARGUMENTS = {
    "SPARK_DRIVER_URL": "--driver-url",
    "SPARK_EXECUTOR_ID": "--executor-id",
    "SPARK_EXECUTOR_CORES": "--cores",
    "SPARK_APPLICATION_ID": "--app-id",
    "SPARK_EXECUTOR_POD_IP": "--hostname",
    "SPARK_RESOURCE_PROFILE_ID": "--resourceProfileId",
    "SPARK_EXECUTOR_POD_NAME": "--podName",
}


class NoExecutorPodError(PlatformError):
    """The variables that Spark's driver gives to a pod are missing."""


def command(variables: Mapping[str, str], java: Path, jars: Path) -> list[str]:
    """Return the command line of the executor.

    Args:
        variables: The environment that Spark's driver gave to the pod.
        java: The program.
        jars: The folder of Spark's jars.

    Raises:
        NoExecutorPodError: A variable is missing.
    """
    missing = sorted({*_ARGUMENTS, "SPARK_EXECUTOR_MEMORY"} - variables.keys())
    if missing:
        raise NoExecutorPodError(
            f"{', '.join(missing)}: not set; this command is for pods that Spark creates, set"
            " SPARK_MASTER=k8s://… for the stream or Dagster instead"
        )
    numbered = {int(name[len(_OPTION) :]): name for name in variables if name.startswith(_OPTION)}
    class_path = [variables.get(name) for name in ("SPARK_CONF_DIR", "SPARK_CLASSPATH")]
    return [
        str(java),
        *(variables[numbered[number]] for number in sorted(numbered)),
        *(f"-Xm{end}{variables['SPARK_EXECUTOR_MEMORY']}" for end in "sx"),
        *("-cp", os.pathsep.join([*filter(None, class_path), f"{jars}/*"])),
        _MAIN_CLASS,
        *(text for name, option in _ARGUMENTS.items() for text in (option, variables[name])),
    ]


def main() -> None:
    """Become the executor."""
    import pyspark

    home = java_home(cache_dir())
    jars = Path(pyspark.__file__).parent / "jars"
    arguments = command(os.environ, home / "bin" / "java", jars)
    os.execv(arguments[0], arguments)  # noqa: S606 - a command of our own, without a shell


if __name__ == "__main__":
    main()
