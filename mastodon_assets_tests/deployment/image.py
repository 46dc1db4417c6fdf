"""The image of docker/Dockerfile, built and used by Buildah where there is no container engine.

What belongs here: building, and running a command in the image. What is run is decided by
`compose.py`, in which order by `try_image.py`.

Buildah's chroot isolation needs no more than root: no namespaces, no overlay file system. The image
`debian:bookworm-slim` is made by debootstrap from Debian's archive.
"""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mastodon_assets_tests.deployment.compose import PROJECT

IMAGE = "mastodon_assets"
_BASE = "debian:bookworm-slim"
# Where a machine keeps certificates of its own, such as those of a company's proxy.
_OWN_CERTIFICATES = Path("/usr/local/share/ca-certificates")
# What Debian's slim images leave out.
_NOT_SLIM = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale")
_NOT_SLIM_FILES = ("var/cache/apt", "var/lib/apt/lists", "var/log")
_ENVIRONMENT = "/run/environment"


@dataclass(frozen=True)
class Buildah:
    """Buildah with images and containers in `folder`, apart from the machine's."""

    folder: Path

    def command(self, *arguments: str) -> list[str]:
        return [
            *("buildah", "--root", str(self.folder / "storage")),
            *("--runroot", str(self.folder / "run"), "--storage-driver", "vfs"),
            *arguments,
        ]

    def ask(self, *arguments: str) -> str:
        """What it prints. Raises: subprocess.CalledProcessError."""
        return subprocess.run(
            self.command(*arguments), check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()


def make_base(buildah: Buildah, log: Path) -> None:
    """Make `debian:bookworm-slim`, unless it is there."""
    if buildah.ask("images", "--quiet", "--filter", f"reference={_BASE}"):
        return
    root = buildah.folder / "base"
    with log.open("ab") as output:
        subprocess.run(
            ["debootstrap", "--variant=minbase", "bookworm", str(root)],
            check=True,
            stdout=output,
            stderr=output,
        )
        for name in (*_NOT_SLIM, *_NOT_SLIM_FILES):
            shutil.rmtree(root / name)
            (root / name).mkdir()
        container = buildah.ask("from", "scratch")
        subprocess.run(
            buildah.command("copy", "--quiet", container, str(root), "/"), check=True, stdout=output
        )
        subprocess.run(
            buildah.command("commit", "--quiet", "--rm", container, _BASE),
            check=True,
            stdout=output,
        )
    shutil.rmtree(root)


def build(buildah: Buildah, planted: Mapping[str, str], log: Path) -> None:
    """Build the image from the files under version control and those of `planted`, by path.

    `planted` is what lies about in a working copy and must not get into the image.
    """
    context = buildah.folder / "context"
    shutil.rmtree(context, ignore_errors=True)
    for name in _tracked_files():
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(PROJECT / name, context / name)
    for name, text in planted.items():
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text(text, encoding="utf-8")
    certificates = (
        ["--volume", f"{_OWN_CERTIFICATES}:{_OWN_CERTIFICATES}:ro"]
        if _OWN_CERTIFICATES.is_dir()
        else []
    )
    revision = _git("rev-parse", "HEAD").strip()
    with log.open("ab") as output:
        subprocess.run(
            buildah.command(
                *("bud", "--isolation", "chroot", "--network", "host", "--pull-never"),
                *certificates,
                *("--build-arg", f"REVISION={revision}"),
                *("--tag", IMAGE, "--file", str(context / "docker/Dockerfile"), str(context)),
            ),
            check=True,
            stdout=output,
            stderr=output,
        )
    shutil.rmtree(context)


def labels(buildah: Buildah) -> dict[str, str]:
    """The labels of the image."""
    document = json.loads(buildah.ask("inspect", "--type", "image", IMAGE))
    found: dict[str, str] = document["OCIv1"]["config"]["Labels"]
    return found


@dataclass
class Container:
    """A working copy of the image, and commands of services run in it."""

    buildah: Buildah
    name: str = field(init=False)
    root: Path = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.buildah.ask("from", "--pull-never", IMAGE)
        self.root = Path(self.buildah.ask("mount", self.name))

    def size_bytes(self) -> int:
        """The bytes of all files, which is what container engines show as the image's size."""
        counted = subprocess.run(
            ["du", "--summarize", "--bytes", self.root],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
        return int(counted.split()[0])

    def remove(self) -> None:
        self.buildah.ask("rm", self.name)

    def command(
        self,
        arguments: Sequence[str],
        environment: Path,
        mounts: Mapping[Path, str],
        *,
        hostname: str,
    ) -> list[str]:
        """The command that runs `arguments` with the variables of the file `environment`.

        They come from a file, as arguments of processes are for all to read.
        """
        # Of its own: at the end of each command Buildah removes a file in the shared `/run`, which
        # another command may be about to mount over (seen in one of 300 commands, five at a time).
        own_run = environment.parent / "run"
        own_run.mkdir(exist_ok=True)
        mounted = {own_run: "/run", **mounts, environment: _ENVIRONMENT}
        options = [f"--volume={host}:{inside}" for host, inside in mounted.items()]
        script = f'set -a && . {_ENVIRONMENT} && set +a && exec "$@"'
        return self.buildah.command(
            *("run", "--isolation", "chroot", "--no-hosts", "--cap-drop", "all"),
            f"--hostname={hostname}",
            *options,
            *("--", self.name, "sh", "-c", script, "sh"),
            *arguments,
        )


def write_environment(path: Path, variables: Mapping[str, str], owner: int) -> None:
    """Write a file for `Container.command`, readable by `owner` alone."""
    text = "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    os.chown(path, owner, owner)


def _tracked_files() -> list[str]:
    listed = _git("ls-files", "-z")
    return [name for name in listed.split("\0") if name and (PROJECT / name).is_file()]


def _git(*arguments: str) -> str:
    # Whoever the checkout belongs to: this only reads.
    command = ["git", "-c", f"safe.directory={PROJECT}", *arguments]
    return subprocess.run(
        command, cwd=PROJECT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
