""".ci/scan-secrets: a secret in the history is found, also after it was removed."""

import random
import string
import subprocess
from pathlib import Path

import pytest

from mastodon_assets_tests.deployment.compose import PROJECT
from mastodon_assets_tests.support.programs import with_programs

_ALPHANUMERIC = string.ascii_letters + string.digits


def _git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=ada", "-c", "user.email=ada@one.example"]
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


@pytest.mark.usefixtures("processes")
def test_a_token_that_was_committed_and_removed_is_found(tmp_path: Path) -> None:
    _git(tmp_path, "init", "-q")
    notes = tmp_path / "notes.txt"
    for text in ("password=devpw", f"token={_made_up_token()}", "nothing"):
        notes.write_text(text, encoding="utf-8")
        _git(tmp_path, "add", "notes.txt")
        _git(tmp_path, "commit", "-q", "-m", "change")
        scanned = subprocess.run(
            [PROJECT / ".ci" / "scan-secrets", tmp_path],
            capture_output=True,
            text=True,
            env=with_programs(),
        )
        assert bool(scanned.returncode) == (text != "password=devpw"), scanned.stderr
    assert "notes.txt" in scanned.stdout
    assert _made_up_token() not in scanned.stdout


def _made_up_token() -> str:
    chosen = random.Random(5).choices(_ALPHANUMERIC, k=36)
    return "ghp_" + "".join(chosen)
