import shutil
from pathlib import Path

import dagster as dg
import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

pytestmark = pytest.mark.usefixtures("own_servers")

_DOCKER = Path(__file__).parents[2] / "docker"


def test_dagsters_deployment_instance_keeps_its_runs_in_postgresql(
    fresh_database_url: SecretStr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    shutil.copy(_DOCKER / "dagster.yaml", tmp_path)

    @dg.asset
    def nothing() -> None: ...

    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert type(instance.run_storage).__module__.startswith("dagster_postgres")
        result = dg.materialize([nothing], instance=instance)
        assert instance.get_run_by_id(result.run_id) is not None
    with dg.DagsterInstance.from_config(str(tmp_path)) as again:
        assert again.get_run_by_id(result.run_id) is not None
