"""Settings: what is read from where, how a refusal is reported, and what stays secret."""

import json
import os
import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from mastodon_assets.config.settings import Settings, as_environment, load_settings
from mastodon_assets.errors import SettingsError

ROOT = Path(__file__).parents[2]
SECRET = "s3cr3t"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(**overrides: object) -> str:
    with pytest.raises(SettingsError) as refused:
        load_settings(**overrides)
    return str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("MASTODON_CONSENT", "foo", "'respect' or 'opt-in'"),
        ("MASTODON_API_BASE_URL", "mastodon.example", "a server's URL such as https://mastod"),
        ("MASTODON_API_BASE_URL", "ftp://mastodon.example", "a server's URL such as https://mas"),
        ("MASTODON_API_BASE_URL", "https://", "a server's URL such as https://mastodon.example"),
        ("MASTODON_API_BASE_URL", "https://a.example/@me", "a server's URL such as https://mas"),
        ("MASTODON_API_BASE_URL", "http://[::1", "a server's URL such as https://mastodon.example"),
        ("MASTODON_API_BASE_URL", "http://a:b", "a server's URL such as https://mastodon.example"),
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka", "host:port, or a comma-separated list"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:1, b:2", "host:port, or a comma-separated list"),
        ("KAFKA_BOOTSTRAP_SERVERS", "PLAINTEXT://a:1", "host:port, or a comma-separated list"),
        ("KAFKA_TOPIC", "a,b", "letters, digits, `.`, `_` and `-`, at most 249"),
        ("KAFKA_TOPIC", "a\nb", "letters, digits, `.`, `_` and `-`, at most 249"),
        ("KAFKA_ACCEPT_DATA_LOSS", "maybe", "true or false"),
        ("SPARK_DRIVER_MEMORY", "lots", "a number with k, m, g or t, such as 2g"),
        ("MAX_OFFSETS_PER_BATCH", "0", "at least 1"),
        ("NEUTRAL_LOW", "2", "at most 1"),
        ("NEUTRAL_LOW", "nan", "at most 1"),
        ("NEUTRAL_HIGH", "-0.5", "at least 0"),
        ("NEUTRAL_HIGH", "half", "a number"),
        ("ACTIVITY_MIN_TOOTS", "0", "at least 1"),
        ("ACTIVITY_MIN_TOOTS", "many", "a whole number"),
        ("ACTIVITY_MIN_TOOTS", "1.5", "a whole number"),
        ("REFRESH_MIN_SECONDS", "-1", "at least 0"),
        ("FILTER_LANGUAGES", "de;en", "a comma-separated list of languages, such as de,en"),
        ("FILTER_LANGUAGES", "de-AT", "a comma-separated list of languages, such as de,en"),
        ("FILTER_TAGS", "two words", "a comma-separated list of tags, such as news,#tea"),
        ("FILTER_BOTS", "yes", "'keep' or 'drop'"),
        ("KAFKA_KEEP_DAYS", "999999999", "at most 36500"),
        ("DAGSTER_KEEP_DAYS", "999999999", "at most 36500"),
        ("ALERT_GAP_MINUTES", "9999999999999", "at most 52560000"),
        ("UI_HOSTS", "dagster*.example", "a comma-separated list of host names, such as localh"),
    ],
)
def test_a_bad_value_is_one_line_with_variable_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(name, value)
    reported = refusal()
    shown = "***" if "@" in value else repr(value)
    assert reported.startswith(f"{name}={shown}: allowed: {allowed}")
    assert "\n" not in reported


@pytest.mark.parametrize("name", ["MASTODON_HANDLE_KEY", "WITHDRAWN_KEY"])
def test_a_short_key_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "s3cr3t")
    assert refusal() == f"{name}=***: allowed: at least 16 characters"


def test_several_bad_values_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUTRAL_LOW", "2")
    monkeypatch.setenv("MASTODON_CONSENT", "foo")
    assert refusal() == (
        "MASTODON_CONSENT='foo': allowed: 'respect' or 'opt-in';"
        " NEUTRAL_LOW='2': allowed: at most 1"
    )


def test_a_neutral_band_must_not_end_before_it_begins() -> None:
    reported = refusal(neutral_low=0.7, neutral_high=0.6)
    assert reported == "NEUTRAL_LOW=0.7: allowed: at most NEUTRAL_HIGH=0.6"
    assert load_settings(neutral_low=0.5, neutral_high=0.5).neutral_low == 0.5


def test_the_two_topics_must_differ() -> None:
    reported = refusal(kafka_topic="a", kafka_errors_topic="a")
    assert reported == "KAFKA_ERRORS_TOPIC='a': allowed: not KAFKA_TOPIC's"


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        (
            {"kafka_security_protocol": "SASL_SSL"},
            "this one only together with KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD",
        ),
        (
            {"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_sasl_username": "u"},
            "this one only together with KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD",
        ),
        (
            {"kafka_security_protocol": "SSL", "kafka_sasl_password": SECRET},
            "SASL_SSL or SASL_PLAINTEXT if KAFKA_SASL_… are set",
        ),
        ({"kafka_ssl_ca_location": "ca.pem"}, "SSL or SASL_SSL if KAFKA_SSL_CA_LOCATION is set"),
    ],
)
def test_a_login_or_a_ca_that_would_not_be_used_is_reported(
    given: dict[str, object], allowed: str
) -> None:
    protocol = given.get("kafka_security_protocol", "PLAINTEXT")
    reported = refusal(**given)
    assert reported == f"KAFKA_SECURITY_PROTOCOL={protocol!r}: allowed: {allowed}"


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://user:{SECRET}@host:5432/db",
        f"user:{SECRET}@host/db",
        f"postgresql://user:{SECRET}@host:port/db",
        f"postgresql://user:{SECRET}@host:5432",
        f"postgresql://user:{SECRET}@/db",
        f"postgresql://:{SECRET}@host/db",
        f"postgresql://user:{SECRET}@one,two/db",
        f"postgresql://user:{SECRET}@host/db?no_such_option=1",
        # Characters of a password that were not written as %…
        f"postgresql://user:x@{SECRET}@host:5432/db",
        f"postgresql://user:12/{SECRET}@host:5432/db",
        f"postgresql://user:x/{SECRET}@host:5432/db",
        f"postgresql://user:%{SECRET}@host:5432/db",
    ],
)
def test_a_bad_database_url_is_reported_without_the_password(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    reported = str(refused.value)
    assert reported.startswith(
        "DATABASE_URL=***: allowed: postgresql://user:password@host:port/databas"
    )
    assert "%40" in reported
    error: BaseException | None = refused.value
    while error is not None:
        assert SECRET not in repr(error)
        error = error.__cause__


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:p%40%2F%3A%25?@host:5432/db",
        "postgres://user@host/db",
        "postgresql://user:p@[::1]:5432/db?sslmode=require",
    ],
)
def test_a_database_url_in_libpqs_form_is_taken_as_it_is(url: str) -> None:
    assert load_settings(database_url=url).postgres_url.get_secret_value() == url


def test_a_server_url_with_a_password_is_refused_without_showing_it() -> None:
    reported = refusal(mastodon_api_base_url=f"https://me:{SECRET}@mastodon.example")
    assert reported.startswith("MASTODON_API_BASE_URL=***: allowed:")


def test_the_slash_at_the_end_of_a_server_url_does_not_count() -> None:
    loaded = load_settings(mastodon_api_base_url="https://mastodon.example/")
    assert loaded.mastodon_api_base_url == "https://mastodon.example"


def test_secrets_are_in_no_text_of_the_settings(folder: Path) -> None:
    (folder / ".mastodon_assets").mkdir()
    (folder / ".mastodon_assets" / "connection.json").write_text(
        json.dumps({"postgres_url": f"postgresql://u:{SECRET}@h/d"})
    )
    loaded = load_settings(
        mastodon_access_token=SECRET, database_url=f"postgresql://u:{SECRET}@h:1/d"
    )
    fallback = load_settings()
    assert SECRET in fallback.postgres_url.get_secret_value()
    for settings in (loaded, fallback):
        texts = (repr(settings), str(settings), str(settings.postgres_url))
        assert not any(SECRET in text for text in (*texts, settings.model_dump_json()))


def test_connections_come_from_the_state_folder_where_no_variable_names_them(folder: Path) -> None:
    home = folder / "state"
    home.mkdir()
    (home / "connection.json").write_text(
        '{"kafka_bootstrap_servers": "127.0.0.1:1", "postgres_url": "postgresql://u:p@h/d"}'
    )
    found = load_settings(mastodon_assets_home=home)
    assert found.kafka_servers == "127.0.0.1:1"
    assert not found.kafka_access.uses_sasl
    assert found.postgres_url.get_secret_value() == "postgresql://u:p@h/d"
    named = load_settings(
        mastodon_assets_home=home,
        kafka_bootstrap_servers="a:1,[::1]:2",
        database_url="postgresql://x:y@z/d",
    )
    assert named.kafka_servers == "a:1,[::1]:2"
    assert not named.kafka_access.uses_sasl
    assert named.postgres_url.get_secret_value() == "postgresql://x:y@z/d"


def test_the_embedded_broker_has_its_own_login_whatever_that_of_another_is(folder: Path) -> None:
    home = folder / "state"
    home.mkdir()
    login = {
        "kafka_bootstrap_servers": "127.0.0.1:1",
        "kafka_security_protocol": "SASL_PLAINTEXT",
        "kafka_sasl_mechanism": "PLAIN",
        "kafka_sasl_username": "mastodon",
        "kafka_sasl_password": SECRET,
    }
    (home / "connection.json").write_text(json.dumps(login))
    given = {
        "kafka_security_protocol": "SASL_SSL",
        "kafka_sasl_username": "other",
        "kafka_sasl_password": "another",
    }
    for settings in (
        load_settings(mastodon_assets_home=home),
        load_settings(mastodon_assets_home=home, **given),
    ):
        access = settings.kafka_access
        assert (access.security_protocol, access.sasl_mechanism) == ("SASL_PLAINTEXT", "PLAIN")
        assert access.sasl_username == "mastodon"
        assert access.sasl_password is not None
        assert access.sasl_password.get_secret_value() == SECRET
        assert SECRET not in repr(access)
    elsewhere = load_settings(mastodon_assets_home=home, kafka_bootstrap_servers="a:1", **given)
    assert elsewhere.kafka_access.sasl_username == "other"
    assert elsewhere.kafka_access.sasl_mechanism == "SCRAM-SHA-512"


def test_the_suppression_lists_key_comes_from_the_state_folder_if_no_variable_gives_it(
    folder: Path,
) -> None:
    home = folder / "state"
    home.mkdir()
    assert load_settings(mastodon_assets_home=home).suppression_key is None
    (home / "connection.json").write_text('{"withdrawn_key": "made by an earlier version"}')
    earlier = load_settings(mastodon_assets_home=home).suppression_key
    assert earlier is not None
    assert earlier.get_secret_value() == "made by an earlier version"
    (home / "withdrawn.key").write_text("made by mastodon-assets up\n")
    found = load_settings(mastodon_assets_home=home).suppression_key
    named = load_settings(mastodon_assets_home=home, withdrawn_key="sixteen or more!")
    assert found is not None
    assert found.get_secret_value() == "made by mastodon-assets up"
    assert named.suppression_key is not None
    assert named.suppression_key.get_secret_value() == "sixteen or more!"
    assert as_environment(named)["WITHDRAWN_KEY"] == "sixteen or more!"


def test_without_any_connection_the_error_says_how_to_get_one() -> None:
    folder = r"run: mastodon-assets up, in the folder of your data \(or set "
    with pytest.raises(SettingsError, match=f"{folder}KAFKA_BOOTSTRAP"):
        _ = load_settings().kafka_servers
    with pytest.raises(SettingsError, match=f"{folder}DATABASE_URL"):
        _ = load_settings().postgres_url


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '"postgresql://u:s3cr3t@h/d"', '{"postgres_url": "s3cr3t@h"}', "\udcff"],
)
def test_a_damaged_connection_file_is_reported_in_one_line(folder: Path, text: str) -> None:
    (folder / ".mastodon_assets").mkdir()
    path = folder / ".mastodon_assets" / "connection.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingsError) as damaged:
        _ = load_settings().postgres_url
    assert str(damaged.value) == (
        ".mastodon_assets/connection.json is damaged; run: mastodon-assets up"
    )


def test_a_file_in_the_place_of_the_state_folder_is_reported(folder: Path) -> None:
    (folder / ".mastodon_assets").touch()
    with pytest.raises(SettingsError, match=r"cannot read .*set MASTODON_ASSETS_HOME"):
        _ = load_settings().kafka_servers


def test_the_environment_wins_over_the_env_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".env").write_text("KAFKA_TOPIC=from_file\nNEUTRAL_LOW=0.2\nOTHERS_VARIABLE=1\n")
    monkeypatch.setenv("KAFKA_TOPIC", "from_environment")
    loaded = load_settings()
    assert (loaded.kafka_topic, loaded.neutral_low) == ("from_environment", 0.2)


def test_an_empty_variable_counts_as_not_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".env").write_text("KAFKA_TOPIC=\nDATABASE_URL=\n")
    monkeypatch.setenv("NEUTRAL_LOW", "")
    loaded = load_settings()
    assert (loaded.kafka_topic, loaded.neutral_low) == ("mastodon_stream", 0.45)
    assert loaded.database_url is None


def test_an_env_file_in_another_encoding_is_reported(folder: Path) -> None:
    (folder / ".env").write_bytes("KAFKA_TOPIC=ü".encode("latin-1"))
    assert refusal().startswith(".env is not UTF-8")


def test_a_tilde_in_a_path_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    loaded = load_settings(sentiment_corpus="~/corpus.csv", model_dir="~no_such_user/x")
    assert loaded.sentiment_corpus == Path("/home/someone/corpus.csv")
    assert loaded.model_dir == Path("~no_such_user/x")


def test_as_environment_gives_another_process_the_same_settings(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = load_settings(
        mastodon_api_base_url="https://mastodon.example",
        mastodon_access_token=SECRET,
        mastodon_consent="opt-in",
        kafka_accept_data_loss=True,
        kafka_bootstrap_servers="a:1",
        database_url="postgresql://u:p%40@h/d",
        sentiment_corpus="/corpus.csv",
        neutral_low=0.1,
        activity_min_toots=9,
    )
    for name, value in as_environment(given).items():
        monkeypatch.setenv(name, value)
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    expected = given.model_dump()
    for name in ("mastodon_assets_home", "model_dir", "reports_dir", "exports_dir"):
        expected[name] = folder / expected[name]
    assert load_settings().model_dump() == expected


def test_as_environment_leaves_out_what_has_no_value() -> None:
    assert "DATABASE_URL" not in as_environment(load_settings())


def test_the_example_file_names_every_setting_once_with_its_default(folder: Path) -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    named = {
        match[1]: match[2] for line in lines if (match := re.match(r"#([A-Z_]+)=(.*)\Z", line))
    }
    assert sorted(named) == sorted(name.upper() for name in Settings.model_fields)
    assert all(line.startswith("#") for line in lines if line)
    for name, field in Settings.model_fields.items():
        if field.default is not None:
            shown = Settings.model_validate({name: named[name.upper()]})
            assert getattr(shown, name) == field.default


def test_the_example_file_is_a_valid_env_file(folder: Path) -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    (folder / ".env").write_text(re.sub(r"(?m)^#(?=[A-Z_]+=)", "", text), encoding="utf-8")
    loaded = load_settings()
    assert loaded.mastodon_api_base_url == "https://mastodon.example"
    assert isinstance(loaded.database_url, SecretStr)
    assert not os.environ.get("DATABASE_URL")
