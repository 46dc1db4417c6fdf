"""`roles` and `migrate` as an administrator meets them."""

import os
import subprocess
import sys

from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from mastodon_assets.embedded.stack import Connection as StackConnection
from mastodon_assets_tests.support.databases import new_database

PASSWORD = "planted%41secret"


def run(command: str, url: SecretStr, **environment: str) -> subprocess.CompletedProcess[str]:
    environment |= {"DATABASE_URL": url.get_secret_value()}
    return subprocess.run(
        [sys.executable, "-m", "mastodon_assets.cli.main", command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_roles_are_made_by_one_command_and_log_in_with_the_passwords_given(
    stack: StackConnection,
) -> None:
    with new_database(stack) as admin:
        made = run("roles", admin, MASTO_OWNER_PASSWORD="o", MASTO_WRITER_PASSWORD=PASSWORD)
        assert (made.returncode, made.stderr) == (0, "")
        assert PASSWORD not in made.stdout
        parts = conninfo_to_dict(admin.get_secret_value())
        place = f"{parts['host']}:{parts['port']}/{parts['dbname']}"
        owner = SecretStr(f"postgresql://masto_owner:o@{place}")
        writer = SecretStr(f"postgresql://masto_writer:planted%2541secret@{place}")
        assert run("migrate", owner).returncode == 0
        assert run("migrate", writer).returncode == 0
        refused = run("roles", writer)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: roles cannot be created (")
    assert len(refused.stderr.splitlines()) == 1
