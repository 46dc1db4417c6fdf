import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mastodon_assets.cli.app import app
from mastodon_assets.operations import service
from mastodon_assets.operations.service import Scope, ServiceError, unit_text

GIB = 2**30


@pytest.fixture
def scope(tmp_path: Path) -> Scope:
    return Scope(False, tmp_path / "units")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / 'a "folder" of 100 %'
    made.mkdir()
    return made


def test_the_unit_runs_in_its_folder_within_limits_and_starts_at_boot(folder: Path) -> None:
    user = unit_text(Scope(False, Path()), folder, 3000, 8 * GIB)
    system = unit_text(Scope(True, Path()), folder, 3001, 8 * GIB)

    assert "WorkingDirectory=" + str(folder).replace("%", "%%") in user
    assert "MemoryMax=6144M" in user
    assert "WantedBy=default.target" in user
    assert "User=" not in user
    assert "run --port 3001" in system
    assert f"User={folder.owner()}\n" in system
    assert "WantedBy=multi-user.target" in system


@pytest.mark.parametrize("is_system", [False, True])
def test_systemd_accepts_the_unit(
    is_system: bool, folder: Path, tmp_path: Path, processes: None
) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / service.NAME
    unit.write_text(unit_text(Scope(is_system, tmp_path), folder, 3000, 8 * GIB))

    checked = subprocess.run(
        ["systemd-analyze", "verify", *([] if is_system else ["--user"]), str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path)},
    )

    of_unit = [line for line in checked.stderr.splitlines() if service.NAME in line]
    assert (checked.returncode, of_unit) == (0, [])


def test_without_systemd_the_unit_is_written_and_the_rest_is_said(
    scope: Scope, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "is_running", lambda: False)

    (note,) = service.install(scope, folder, 3000)

    assert "systemctl --user enable --now mastodon-assets.service" in note
    assert service.state(scope) == {
        "unit": str(scope.unit),
        "enabled": "unknown",
        "active": "unknown",
    }
    assert service.uninstall(scope)
    assert not service.uninstall(scope)
    with pytest.raises(ServiceError, match="to install it: mastodon-assets service install"):
        service.state(scope)


def test_with_systemd_the_unit_is_enabled_and_disabled(
    scope: Scope, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(service, "is_running", lambda: True)
    monkeypatch.setattr(service, "_systemctl", lambda scope, *arguments: asked.append(arguments))

    (note,) = service.install(scope, folder, 3000)
    service.uninstall(scope)

    assert "loginctl enable-linger" in note
    assert asked == [
        ("daemon-reload",),
        ("enable", "--now", service.NAME),
        ("disable", "--now", service.NAME),
        ("daemon-reload",),
    ]


def test_a_unit_of_somebody_else_is_neither_replaced_nor_removed(
    scope: Scope, folder: Path
) -> None:
    scope.folder.mkdir()
    scope.unit.write_text("[Unit]\n")

    for change in (lambda: service.install(scope, folder, 3000), lambda: service.uninstall(scope)):
        with pytest.raises(ServiceError, match="was not written by mastodon-assets"):
            change()

    assert scope.unit.read_text() == "[Unit]\n"


def test_the_commands_say_where_the_unit_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(service, "is_running", lambda: False)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["service", *arguments], standalone_mode=False)
        if result.exception is not None:
            raise result.exception
        return result.stdout

    assert "mastodon-assets.service written" in run("install", str(tmp_path))
    assert "journalctl --user -u mastodon-assets.service" in run("status")
    assert "removed" in run("uninstall")
