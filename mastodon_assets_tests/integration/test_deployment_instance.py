import shutil
from pathlib import Path

import dagster as dg
import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from mastodon_assets.config import settings
from mastodon_assets.errors import SettingsError

pytestmark = pytest.mark.usefixtures("own_servers")

_DOCKER = Path(__file__).parents[2] / "docker"


@pytest.mark.parametrize("password_from", ["variable", "file"])
def test_dagsters_deployment_instance_keeps_its_runs_in_postgresql(
    password_from: str,
    fresh_database_url: SecretStr,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = conninfo_to_dict(fresh_database_url.get_secret_value())
    for name, part in {
        "HOST": "host",
        "PORT": "port",
        "USER": "user",
        "PASSWORD": "password",
        "DB": "dbname",
    }.items():
        monkeypatch.setenv(f"DAGSTER_POSTGRES_{name}", str(parts[part]))
    if password_from == "file":
        monkeypatch.delenv("DAGSTER_POSTGRES_PASSWORD")
        monkeypatch.setattr(settings, "SECRETS", tmp_path)
        (tmp_path / "dagster_postgres_password").write_text(f"{parts['password']}\n")
    shutil.copy(_DOCKER / "dagster.yaml", tmp_path)

    @dg.asset
    def nothing() -> None: ...

    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert type(instance.run_storage).__module__.startswith("dagster_postgres")
        result = dg.materialize([nothing], instance=instance)
        assert instance.get_run_by_id(result.run_id) is not None
        # Passed to processes as an argument, for all to read.
        assert str(parts["password"]) not in dg.serialize_value(instance.get_ref())
    with dg.DagsterInstance.from_config(str(tmp_path)) as again:
        assert again.get_run_by_id(result.run_id) is not None


def test_without_a_password_the_error_names_variable_and_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOST", "USER", "DB"):
        monkeypatch.setenv(f"DAGSTER_POSTGRES_{name}", "one")
    monkeypatch.setenv("DAGSTER_POSTGRES_PORT", "1")
    monkeypatch.setattr(settings, "SECRETS", tmp_path)
    shutil.copy(_DOCKER / "dagster.yaml", tmp_path)
    with pytest.raises(SettingsError, match="DAGSTER_POSTGRES_PASSWORD, or write it to") as raised:
        dg.DagsterInstance.from_config(str(tmp_path))
    assert str(tmp_path / "dagster_postgres_password") in str(raised.value)
