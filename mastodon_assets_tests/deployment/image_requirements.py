"""docker/requirements.txt: what the image installs, each package with the SHA-256 of its files.

What belongs here: making the list from pip's own reports, for x86-64 and arm64. Run it with Python
3.11 on x86-64 after a change of constraints.txt:
`python -m mastodon_assets_tests.deployment.image_requirements`
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping

from mastodon_assets_tests.deployment.compose import DOCKER, PROJECT

FILE = DOCKER / "requirements.txt"
HEADER = """\
# What the image installs (the extra `backup`), for Python 3.11 on x86-64 and arm64, in the versions
# of constraints.txt. Made by: python -m mastodon_assets_tests.deployment.image_requirements
"""
# They have no wheel for arm64: the first is the same file for all machines, the second is not
# installed there.
_SOURCE_ONLY, _X86_ONLY = "pyspark", "pgpq"
_ARM_TAGS = ("manylinux2014", *(f"manylinux_2_{minor}" for minor in (17, 26, 27, 28, 34, 35)))

Digests = Mapping[str, str]


def main() -> None:
    """Write the file."""
    ours = _report(f"{PROJECT}[backup]", "-c", str(PROJECT / "constraints.txt"))
    arm = [pin for pin in ours if not pin.startswith((f"{_SOURCE_ONLY}==", f"{_X86_ONLY}=="))]
    options = [f"--platform={tag}_aarch64" for tag in _ARM_TAGS]
    options += ["--only-binary=:all:", "--no-deps", "--python-version=3.11", "--implementation=cp"]
    with tempfile.TemporaryDirectory() as unused:
        theirs = _report(*arm, *options, f"--target={unused}")
    FILE.write_text(HEADER + "".join(_lines(ours, theirs)), encoding="utf-8")


def _report(*arguments: str) -> dict[str, str]:
    """Return the SHA-256 of each file that pip would install, by `name==version`."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    ended = subprocess.run(
        [*command, "--disable-pip-version-check", "--report=-", *arguments],
        stdout=subprocess.PIPE,
        check=True,
    )
    return {
        f"{each['metadata']['name'].lower()}=={each['metadata']['version']}": _digest(each)
        for each in json.loads(ended.stdout)["install"]
        if "archive_info" in each["download_info"]
    }


def _digest(installed: Mapping[str, Mapping[str, Mapping[str, Mapping[str, str]]]]) -> str:
    return installed["download_info"]["archive_info"]["hashes"]["sha256"]


def _lines(ours: Digests, theirs: Digests) -> Iterable[str]:
    for pin in sorted(ours):
        marker = " ; platform_machine == 'x86_64'" if pin.startswith(f"{_X86_ONLY}==") else ""
        digests = sorted({ours[pin], theirs.get(pin, ours[pin])})
        hashes = "".join(f" \\\n    --hash=sha256:{digest}" for digest in digests)
        yield f"{pin}{marker}{hashes}\n"


if __name__ == "__main__":
    main()
