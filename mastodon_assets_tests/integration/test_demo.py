"""The demo: once for real, in a process of its own; its refusals and its wipe without a full run.

The real run takes about a minute.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
from psycopg.conninfo import conninfo_to_dict

from mastodon_assets.config.settings import load_settings
from mastodon_assets.config.state_folder import keep_from_demos
from mastodon_assets.embedded import stack as embedded
from mastodon_assets.operations.demo import (
    DemoFolderError,
    MaterializeError,
    environment_of_demo,
    load_settings_of_demo,
    materialize_all,
    prepare_folder,
    wipe_demo,
)
from mastodon_assets.reports import specs
from mastodon_assets.warehouse.tables import TABLES

pytestmark = pytest.mark.usefixtures("own_servers")

CHARTS = {f"{name}.png" for name in specs.CHARTS}
HEADERS = {
    "viz_sentiment_daily.csv": "day,n_toosts,n_pos,n_neg,n_neu,avg_prob_pos,n_unscored",
    "viz_sentiment_dist.csv": "label_str,n",
    "viz_top_hashtags.csv": "hashtag,n",
}
# What the demo ignores, all of it wrong.
NONSENSE = {
    "KAFKA_BOOTSTRAP_SERVERS": "nowhere",
    "KAFKA_TOPIC": "a,b",
    "kafka_errors_topic": "c,d",
    "KAFKA_ACCEPT_DATA_LOSS": "perhaps",
    "DATABASE_URL": "mysql://user:password@host/db",
    "MASTODON_API_BASE_URL": "ftp://mastodon.example",
    "MASTODON_CONSENT": "never",
    "MASTO_READER_PASSWORD": "of-another-server",
    "ALERT_WEBHOOK_URL": "ftp://hooks.example",
    "ALERT_FILE": "alerts-of-real-data",
    "BACKUP_DIR": "backups-of-real-data",
    "BACKUP_EVERY_HOURS": "0",
    "MODEL_DIR": "models-of-real-data",
    "REPORTS_DIR": "charts-of-real-data",
    "EXPORTS_DIR": "files-of-real-data",
}


def say_nothing(line: str) -> None:
    pass


@dataclass
class RealDemo:
    folder: Path
    ended: "subprocess.CompletedProcess[str]"

    @property
    def home(self) -> Path:
        return self.folder / "state"

    @property
    def rows(self) -> dict[str, int]:
        found = re.findall(r"(?m)^  (\w+) +([\d,]+)$", self.ended.stdout)
        return {name: int(count.replace(",", "")) for name, count in found}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealDemo]:
    folder = tmp_path_factory.mktemp("demo")
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in NONSENSE.items()))
    try:
        yield RealDemo(folder, run_demo(folder, "--toots", "200", "--days", "2"))
    finally:
        wipe_demo(folder / "state", say_nothing)


def run_demo(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "mastodon_assets.cli.main", "demo", *arguments],
        cwd=folder,
        env={**os.environ, **NONSENSE, "MASTODON_ASSETS_HOME": "state", "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=400,
    )


def test_the_demo_ends_well_whatever_environment_and_env_file_say(real: RealDemo) -> None:
    assert real.ended.returncode == 0, real.ended.stderr[-2000:]
    assert "Traceback" not in real.ended.stderr


def test_the_demo_makes_ten_charts_and_three_files_and_names_them(real: RealDemo) -> None:
    charts = {path.name: path for path in (real.home / "reports").iterdir()}
    assert set(charts) == CHARTS
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in charts.values())
    files = {path.name: path for path in (real.home / "data").glob("*.csv")}
    lines = {name: path.read_text(encoding="utf-8").splitlines() for name, path in files.items()}
    assert {name: rows[0] for name, rows in lines.items()} == HEADERS
    assert all(len(rows) > 1 for rows in lines.values())
    printed = real.ended.stdout.splitlines()
    assert all(f"  {path}" in printed for path in (*charts.values(), *files.values()))


def test_the_demo_writes_nothing_outside_its_state_folder(real: RealDemo) -> None:
    assert {path.name for path in real.folder.iterdir()} == {".env", "state"}


def test_the_demo_fills_the_tables_and_counts_them(real: RealDemo) -> None:
    rows = real.rows
    assert set(TABLES) <= set(rows)
    assert 100 < rows["toots_raw"] <= 200
    assert rows["toots_sentiment"] == rows["toots_raw"]
    assert rows["kafka_offsets"] == 4
    assert rows["sentiment_models"] == 1
    assert rows["toots_engagement"] > 0
    made = [name for name in TABLES if name.startswith(("toot_", "user_", "batch_", "v_"))]
    # So few posts may have no trend, and no hashtag with five labels.
    few = {"v_hashtag_trends", "v_sentiment_by_hashtag"}
    assert [name for name in made if not rows[name] and name not in few] == []
    # Every post was scored.
    assert rows["toots_unscored"] == 0
    assert "trained on synthetic" in real.ended.stdout


def test_the_demo_reports_each_asset_and_how_long_the_steps_took(real: RealDemo) -> None:
    reported = re.findall(r"materialized (\w+)", real.ended.stderr)
    assert len(reported) == len(set(reported))
    assert {name.partition(".")[0] for name in (*CHARTS, *HEADERS)} <= set(reported)
    assert re.search(
        r"(?m)^  posts to Kafka +\d+\n  assets +\d+\n  in total +\d+$", real.ended.stdout
    )


def test_the_demo_leaves_nothing_running(real: RealDemo) -> None:
    assert [service.state for service in embedded.status(real.home)] == ["stopped", "stopped"]


def test_the_password_is_in_no_output_of_the_demo(real: RealDemo) -> None:
    connection = json.loads((real.home / "connection.json").read_text())
    password = str(conninfo_to_dict(connection["postgres_url"])["password"])
    log = (real.home / "demo-materialize.log").read_text(errors="replace")
    assert "messages to read" in log
    assert all(password not in text for text in (real.ended.stdout, real.ended.stderr, log))


def test_dagster_can_go_on_with_the_runs_of_the_demo(real: RealDemo) -> None:
    with dg.DagsterInstance.from_config(str(real.home / "dagster")) as instance:
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.SUCCESS]


# The last test with the real run: it wipes what that left.
def test_the_next_demo_wipes_what_the_real_one_left(real: RealDemo) -> None:
    prepare_folder(real.home, say_nothing)
    assert [path.name for path in real.home.iterdir()] == ["demo"]


def test_a_demo_refuses_a_folder_that_no_demo_made_and_leaves_it_alone(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "precious").write_text("data")
    refused = run_demo(tmp_path)
    assert refused.returncode == 2
    home = tmp_path / "state"
    assert refused.stderr == (
        f"error: MASTODON_ASSETS_HOME={home} contains something that no demo created;"
        " choose another folder for the demo\n"
    )
    assert [path.read_text() for path in home.iterdir()] == ["data"]


def test_a_demo_refuses_a_file_as_its_folder(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(DemoFolderError, match="is not a folder"):
        prepare_folder(tmp_path / "state", say_nothing)


def test_a_demo_refuses_its_folder_once_something_else_was_read_into_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "state"
    prepare_folder(home, say_nothing)
    prepare_folder(home, say_nothing)
    (home / "connection.json").write_text("{}")
    keep_from_demos(home)
    keep_from_demos(home)
    # Whoever reads a real server into the demo's tables must know it.
    (said,) = caplog.messages
    assert said.startswith(f"{home} holds the posts of a demo, and tables and charts count them")
    with pytest.raises(
        DemoFolderError, match="or remove its contents: mastodon-assets down --wipe"
    ):
        prepare_folder(home, say_nothing)
    wipe_demo(home, say_nothing)
    prepare_folder(home, say_nothing)


def test_a_wipe_takes_only_what_is_ours(tmp_path: Path) -> None:
    home = tmp_path / "state"
    prepare_folder(home, say_nothing)
    (home / "dagster").mkdir()
    (home / "dagster" / "notes.txt").write_text("no instance of ours")
    (home / "notes.txt").write_text("mine")
    wipe_demo(home, say_nothing)
    left = {path.relative_to(home).as_posix() for path in home.rglob("*")}
    assert left == {"dagster", "dagster/notes.txt", "notes.txt"}


def test_the_wipe_stops_a_stack_that_was_kept_and_a_process_of_a_killed_demo(
    tmp_path: Path,
) -> None:
    home = tmp_path / "state"
    prepare_folder(home, say_nothing)
    orphan = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)", f"--working-directory={home}"]
    )
    try:
        embedded.up(home, topics=[])
        prepare_folder(home, say_nothing)
        assert orphan.poll() is not None
        assert [service.state for service in embedded.status(home)] == ["stopped", "stopped"]
        assert [path.name for path in home.iterdir()] == ["demo"]
    finally:
        orphan.kill()
        orphan.wait()
        embedded.down(home, wipe=True)


def test_a_failing_asset_is_one_line_with_step_cause_and_log(tmp_path: Path) -> None:
    settings = load_settings_of_demo(
        mastodon_assets_home=tmp_path / "state",
        kafka_bootstrap_servers="127.0.0.1:1",
        database_url="postgresql://user:s3cr3t@127.0.0.1:1/db",
    )
    prepare_folder(settings.mastodon_assets_home, say_nothing)
    with pytest.raises(MaterializeError) as failed:
        materialize_all(settings, say_nothing)
    reported = str(failed.value)
    log = tmp_path / "state" / "demo-materialize.log"
    assert re.match(
        r"\w+: ServiceUnavailableError: no connection to PostgreSQL .*refused", reported
    )
    assert reported.endswith(f"(log: {log})")
    assert "\n" not in reported
    assert "s3cr3t" not in reported + log.read_text(errors="replace")


def test_the_settings_of_a_demo_ignore_what_names_other_services(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in NONSENSE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTODON_ASSETS_HOME", "elsewhere")
    monkeypatch.setenv("NEUTRAL_LOW", "0.3")
    settings = load_settings_of_demo()
    assert settings.mastodon_assets_home == Path("elsewhere")
    assert settings.neutral_low == 0.3
    expected = load_settings_of_demo().model_dump()
    for name, value in environment_of_demo(settings).items():
        monkeypatch.setenv(name, value)
    for name in NONSENSE.keys() - environment_of_demo(settings).keys():
        monkeypatch.delenv(name)
    expected |= {
        name: tmp_path / value for name, value in expected.items() if isinstance(value, Path)
    }
    assert load_settings().model_dump() == expected


def test_the_dagster_home_of_the_user_may_be_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings_of_demo()
    own = environment_of_demo(settings)["DAGSTER_HOME"]
    assert own == str(tmp_path / ".mastodon_assets" / "dagster")
    monkeypatch.setenv("DAGSTER_HOME", "runs")
    assert environment_of_demo(settings)["DAGSTER_HOME"] == str(tmp_path / "runs")
    assert (tmp_path / "runs" / "dagster.yaml").exists()
