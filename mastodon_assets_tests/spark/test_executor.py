"""The command of an executor in a pod, and the driver's view of a Kubernetes master."""

import zipfile
from pathlib import Path

import pyspark
import pytest

from mastodon_assets.config.settings import load_settings
from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.spark.executor import NoExecutorPodError, command
from mastodon_assets.spark.session import build_session, shares_our_disk, spark_config
from mastodon_assets_tests.support.ports import free_port

_JARS = Path(pyspark.__file__).parent / "jars"
# As Spark 4.2 gives them to a pod.
_VARIABLES = {
    "SPARK_APPLICATION_ID": "spark-1",
    "SPARK_CLASSPATH": "/more.jar",
    "SPARK_CONF_DIR": "/opt/spark/conf",
    "SPARK_DRIVER_URL": "spark://CoarseGrainedScheduler@10.0.0.1:7200",
    "SPARK_EXECUTOR_CORES": "1",
    "SPARK_EXECUTOR_ID": "2",
    "SPARK_EXECUTOR_MEMORY": "640m",
    "SPARK_EXECUTOR_POD_IP": "10.0.0.2",
    "SPARK_EXECUTOR_POD_NAME": "mastodon-exec-2",
    "SPARK_JAVA_OPT_0": "-XX:+ExitOnOutOfMemoryError",
    "SPARK_JAVA_OPT_10": "-Dlast=1",
    "SPARK_JAVA_OPT_2": "-Dspark.driver.port=7200",
    "SPARK_RESOURCE_PROFILE_ID": "0",
}


def test_a_pod_runs_the_executor_that_the_driver_describes() -> None:
    java = Path("/java/bin/java")
    started = command(_VARIABLES, java, _JARS)
    main_class = "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend"
    assert started[: started.index(main_class)] == [
        "/java/bin/java",
        *("-XX:+ExitOnOutOfMemoryError", "-Dspark.driver.port=7200", "-Dlast=1"),
        *("-Xms640m", "-Xmx640m"),
        *("-cp", f"/opt/spark/conf:/more.jar:{_JARS}/*"),
    ]
    assert " ".join(started[started.index(main_class) + 1 :]) == (
        "--driver-url spark://CoarseGrainedScheduler@10.0.0.1:7200 --executor-id 2 --cores 1"
        " --app-id spark-1 --hostname 10.0.0.2 --resourceProfileId 0 --podName mastodon-exec-2"
    )
    jar = next(_JARS.glob("spark-kubernetes_*.jar"))
    assert f"{main_class.replace('.', '/')}.class" in zipfile.ZipFile(jar).namelist()


def test_without_sparks_variables_the_error_names_them() -> None:
    variables = {**_VARIABLES}
    del variables["SPARK_DRIVER_URL"]
    with pytest.raises(NoExecutorPodError, match=r"^SPARK_DRIVER_URL: not set"):
        command(variables, Path("java"), _JARS)


def test_a_kubernetes_master_is_a_cluster() -> None:
    settings = load_settings(spark_master="k8s://https://kubernetes.default.svc:443")
    assert not shares_our_disk(settings)
    assert spark_config(settings)["spark.master"] == settings.spark_master


@pytest.mark.usefixtures("loopback")
@pytest.mark.parametrize("address", ["127.0.0.1:{}", "https://127.0.0.1:{}", "http://127.0.0.1:{}"])
def test_a_kubernetes_master_that_does_not_answer_is_one_line(address: str) -> None:
    master = f"k8s://{address.format(free_port())}"
    with pytest.raises(ServiceUnavailableError, match=f"^no Kubernetes answers at {master}; check"):
        build_session(load_settings(spark_master=master))
