"""The systemd unit that runs `mastodon-assets run` at boot.

What belongs here: the text of the unit, and installing, removing and describing it.
"""

import os
import pwd
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mastodon_assets.errors import PlatformError
from mastodon_assets.files import read_text, write_atomically
from mastodon_assets.spark.memory import memory_limit

NAME = "mastodon-assets.service"
SYSTEM_UNITS = Path("/etc/systemd/system")
_HEADER = "# Written by: mastodon-assets service install"
_UNIT = """\
{header}
[Unit]
Description=mastodon_assets: Mastodon to Kafka, tables, sentiment and charts
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=600
StartLimitBurst=5

[Service]
ExecStart={command}
WorkingDirectory={folder}
{user}Restart=on-failure
RestartSec=15
# Wrong settings: a restart does not mend them.
RestartPreventExitStatus=2
# The supervisor gets the signal and stops the servers in good order; nothing outlives it.
KillMode=mixed
KillSignal=SIGTERM
TimeoutStopSec=120
MemoryMax={memory}M
TasksMax=2048
LimitNOFILE=65536
UMask=0077
NoNewPrivileges=true
# `journalctl` shows the log and keeps it within the bounds of journald.conf.
StandardOutput=journal
StandardError=journal
SyslogIdentifier=mastodon-assets

[Install]
WantedBy={target}
"""
_MEMORY_SHARE = 0.75
_MIB = 2**20
_SECONDS = 150


class ServiceError(PlatformError):
    """The unit cannot be written, or systemd refused it; the message has what it said."""


@dataclass(frozen=True)
class Scope:
    """Whose systemd runs the unit: the user's or the system's.

    Attributes:
        is_system: Whether it is the system's; installing then needs root.
        folder: Where units are.
    """

    is_system: bool
    folder: Path

    @property
    def unit(self) -> Path:
        """The file of the unit."""
        return self.folder / NAME

    @property
    def target(self) -> str:
        """What starts the unit."""
        return "multi-user.target" if self.is_system else "default.target"

    @property
    def systemctl(self) -> list[str]:
        """The command that controls it."""
        return ["systemctl", *([] if self.is_system else ["--user"])]


def scope_of(*, system: bool) -> Scope:
    """Return the system's scope, or that of this user."""
    if system:
        return Scope(True, SYSTEM_UNITS)
    configuration = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Scope(False, Path(configuration) / "systemd" / "user")


def unit_text(scope: Scope, folder: Path, port: int, limit: int) -> str:
    """Return the unit.

    Args:
        scope: The user's or the system's.
        folder: Where `.env` and the state folder are; `run` works there.
        port: Port of the web page.
        limit: Bytes of memory of this machine; the unit gets three quarters.
    """
    command = [sys.executable, "-m", "mastodon_assets.cli.main", "run", "--port", str(port)]
    user = f"User={pwd.getpwuid(folder.stat().st_uid).pw_name}\n" if scope.is_system else ""
    return _UNIT.format(
        header=_HEADER,
        command=" ".join(map(_quoted, command)),
        folder=_escaped(str(folder)),
        user=user,
        memory=int(limit * _MEMORY_SHARE / _MIB),
        target=scope.target,
    )


def install(scope: Scope, folder: Path, port: int) -> list[str]:
    """Write the unit, enable and start it.

    Returns:
        What is left to do by hand, one sentence each.

    Raises:
        ServiceError: A file of somebody else has the name, it cannot be written, or systemd failed.
    """
    _check_ours(scope)
    try:
        scope.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(
            scope.unit, unit_text(scope, folder.absolute(), port, memory_limit()), mode=0o644
        )
    except OSError as error:
        advice = "; run it as root" if scope.is_system else ""
        raise ServiceError(f"{scope.unit} cannot be written ({error.strerror}){advice}") from error
    if not is_running():
        commands = " ".join(scope.systemctl)
        return [
            f"systemd does not run here; on the machine that is to run it: {commands}"
            f" daemon-reload, then {commands} enable --now {NAME}"
        ]
    _systemctl(scope, "daemon-reload")
    _systemctl(scope, "enable", "--now", NAME)
    if scope.is_system:
        return []
    return [f"to start it at boot, without a login: loginctl enable-linger {_user()}"]


def uninstall(scope: Scope) -> bool:
    """Stop and disable the unit, and remove its file; data stay.

    Returns:
        Whether it was installed.

    Raises:
        ServiceError: The file is somebody else's, or cannot be removed, or systemd failed.
    """
    if not scope.unit.exists():
        return False
    _check_ours(scope)
    if is_running():
        _systemctl(scope, "disable", "--now", NAME)
    try:
        scope.unit.unlink()
    except OSError as error:
        raise ServiceError(f"{scope.unit} cannot be removed ({error.strerror})") from error
    if is_running():
        _systemctl(scope, "daemon-reload")
    return True


def state(scope: Scope) -> dict[str, str]:
    """Return `unit` (its file), `enabled` and `active` as systemd says them.

    Raises:
        ServiceError: The unit is not installed.
    """
    if not scope.unit.exists():
        raise ServiceError(
            f"{scope.unit} does not exist; to install it: mastodon-assets service install"
            f"{' --system' if scope.is_system else ''}"
        )
    return {
        "unit": str(scope.unit),
        "enabled": _word(scope, "is-enabled"),
        "active": _word(scope, "is-active"),
    }


def is_running() -> bool:
    """Return whether systemd is this machine's init, as sd_booted(3) does."""
    return Path("/run/systemd/system").is_dir() and shutil.which("systemctl") is not None


def _word(scope: Scope, question: str) -> str:
    if not is_running():
        return "unknown"
    asked = subprocess.run(
        [*scope.systemctl, question, NAME], capture_output=True, text=True, timeout=_SECONDS
    )
    return asked.stdout.strip() or "unknown"


def _check_ours(scope: Scope) -> None:
    text = read_text(scope.unit)
    if text is not None and not text.startswith(_HEADER):
        raise ServiceError(
            f"{scope.unit} was not written by mastodon-assets; remove it or rename it first"
        )


def _systemctl(scope: Scope, *arguments: str) -> None:
    try:
        done = subprocess.run(
            [*scope.systemctl, *arguments], capture_output=True, text=True, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise ServiceError(
            f"systemctl {arguments[0]} has not ended after {_SECONDS} s; see: journalctl -u {NAME}"
        ) from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise ServiceError(f"systemctl {' '.join(arguments)} failed: {lines[0]}")


def _user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def _escaped(value: str) -> str:
    """Return a value in which systemd expands nothing."""
    return value.replace("%", "%%")


def _quoted(word: str) -> str:
    """Return a word of a command line as systemd reads it."""
    escaped = _escaped(word).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{escaped}"' if escaped != word or " " in word else word
