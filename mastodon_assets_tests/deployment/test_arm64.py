"""What of an arm64 machine can be tested without one: the jars have native code for it."""

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyspark
import pytest

from mastodon_assets.embedded import kafka
from mastodon_assets.jvm.maven import fetch_jars
from mastodon_assets.spark.session import connector_jars

# Of consoles only.
_NOT_NEEDED = {"jline"}
_MACHINES = {
    "x86": re.compile(r"x86_64|amd64|linux64"),
    "arm": re.compile(r"aarch_?64|arm64"),
}


def native_files(jar: Path) -> Iterator[str]:
    """The Linux libraries in a jar, with the jar's name, which may name the machine."""
    with zipfile.ZipFile(jar) as archive:
        for name in archive.namelist():
            if name.endswith(".so"):
                yield f"{jar.name}/{name}"


@pytest.mark.usefixtures("own_servers")
def test_each_jar_with_code_for_x86_has_it_for_arm_too() -> None:
    kafkas = fetch_jars(f"kafka-{kafka.KAFKA_VERSION}", kafka.JARS, size="43 MB", report=print)
    jars = [
        *(Path(pyspark.__file__).parent / "jars").glob("*.jar"),
        *kafkas.glob("*.jar"),
        *connector_jars(print),
    ]
    # By name without the version: Netty has a jar per machine.
    machines: dict[str, set[str]] = {}
    for jar in jars:
        found = machines.setdefault(re.sub(r"-\d.*", "", jar.name), set())
        for file in native_files(jar):
            found |= {name for name, pattern in _MACHINES.items() if pattern.search(file)}
    assert any(machines.values())
    only_x86 = {name for name, found in machines.items() if found == {"x86"}}
    assert only_x86 <= _NOT_NEEDED
