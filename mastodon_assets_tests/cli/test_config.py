"""`config show`: each setting, masked if secret, and where it comes from."""

import json
from pathlib import Path

import pytest

from mastodon_assets.config import origins
from mastodon_assets.config import settings as settings_module
from mastodon_assets.config.settings import Settings
from mastodon_assets_tests.support.commands import Commands

SECRET = "s3cr3t-of-sixteen-characters"


def shown(commands: Commands, **environment: str) -> dict[str, tuple[object, str]]:
    ended = commands("config", "show", "--json", **environment)
    assert (ended.status, ended.err) == (0, "")
    return {each["name"]: (each["value"], each["from"]) for each in json.loads(ended.out)}


def test_every_setting_is_shown_with_its_value_and_where_it_comes_from(
    commands: Commands, folder: Path
) -> None:
    (folder / ".env").write_text("KAFKA_TOPIC=from_file\nNEUTRAL_LOW=0.4\nREPORTS_DIR=\n")
    home = folder / ".mastodon_assets"
    home.mkdir()
    connection = {
        "kafka_bootstrap_servers": "127.0.0.1:9092",
        "kafka_security_protocol": "SASL_PLAINTEXT",
        "kafka_sasl_mechanism": "PLAIN",
        "kafka_sasl_username": "mastodon",
        "kafka_sasl_password": SECRET,
        "postgres_url": f"postgresql://user:{SECRET}@127.0.0.1:5432/db",
    }
    (home / "connection.json").write_text(json.dumps(connection))
    (home / "withdrawn.key").write_text(SECRET)
    settings = shown(commands, neutral_low="0.3", KAFKA_ACCEPT_DATA_LOSS="true")
    assert list(settings) == [name.upper() for name in Settings.model_fields]
    assert settings["KAFKA_TOPIC"] == ("from_file", ".env")
    assert settings["NEUTRAL_LOW"] == (0.3, "environment")
    assert settings["KAFKA_ACCEPT_DATA_LOSS"] == (True, "environment")
    assert settings["REPORTS_DIR"] == ("reports", "default")
    assert settings["KAFKA_BOOTSTRAP_SERVERS"] == ("127.0.0.1:9092", "connection.json")
    assert settings["KAFKA_SECURITY_PROTOCOL"] == ("SASL_PLAINTEXT", "connection.json")
    assert settings["KAFKA_SASL_PASSWORD"] == ("***", "connection.json")
    assert settings["DATABASE_URL"] == ("***@127.0.0.1:5432/db", "connection.json")
    assert settings["WITHDRAWN_KEY"] == ("***", "withdrawn.key")
    assert settings["MASTODON_API_BASE_URL"] == (None, "default")


def test_a_secret_may_be_a_file(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "withdrawn_key").write_text(f"{SECRET}\n")
    (secrets / "MASTODON_HANDLE_KEY").write_text(SECRET)
    (secrets / "another_programs").write_text("x")
    # As make-env leaves what nobody has filled: as if there were no file.
    (secrets / "dashboard_password").write_text("\n")
    for module in (settings_module, origins):
        monkeypatch.setattr(module, "SECRETS", secrets)
    loaded = settings_module.load_settings()
    assert loaded.withdrawn_key is not None
    assert loaded.withdrawn_key.get_secret_value() == SECRET
    assert loaded.dashboard_password is None
    settings = shown(commands, MASTODON_HANDLE_KEY="sixteen or more characters")
    assert settings["DASHBOARD_PASSWORD"] == (None, "default")
    assert settings["WITHDRAWN_KEY"] == ("***", "/run/secrets")
    assert settings["MASTODON_HANDLE_KEY"] == ("***", "environment")
    (secrets / "withdrawn_key").write_text("short")
    assert "at least 16 characters" in commands.failure(2, "config", "show")


def test_no_secret_is_shown(commands: Commands) -> None:
    secrets = [name.upper() for name in Settings.model_fields if "token" in name or "key" in name]
    environment = {
        **dict.fromkeys(secrets, SECRET),
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_USERNAME": "someone",
        "KAFKA_SASL_PASSWORD": SECRET,
        "MASTO_OWNER_PASSWORD": SECRET,
        "DATABASE_URL": f"postgresql://user:{SECRET}@db.example/d?sslpassword={SECRET}",
    }
    for arguments in (["config", "show"], ["config", "show", "--json"]):
        ended = commands(*arguments, **environment)
        assert ended.status == 0, ended.err
        assert "someone" in ended.out
        assert "***@db.example/d" in ended.out
        # The one is a path.
        assert ended.out.count(SECRET) == ("MASTODON_ACCESS_TOKENS_FILE" in secrets)


def test_one_line_per_setting_whatever_the_width(commands: Commands) -> None:
    ended = commands("config", "show", COLUMNS="40", FILTER_WORDS="word " * 50)
    assert len(ended.out.splitlines()) == 1 + len(Settings.model_fields)
