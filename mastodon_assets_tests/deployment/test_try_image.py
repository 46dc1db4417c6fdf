"""docker/try-image on a machine that cannot try it; its own run shows that it works."""

import subprocess
import sys
from pathlib import Path

import pytest

from mastodon_assets_tests.deployment.compose import PROJECT

pytestmark = pytest.mark.usefixtures("own_servers")


def test_a_machine_that_cannot_try_the_image_is_distinguished_from_an_image_that_does_not_work(
    tmp_path: Path,
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "mastodon_assets_tests.deployment.try_image"],
        cwd=PROJECT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 77
    assert ended.stdout == ""
    assert ended.stderr.startswith("not tried: ")
    assert "77" in (PROJECT / ".ci" / "run").read_text(encoding="utf-8")
