"""The interface of an encoder, which every source of vectors implements."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mastodon_assets.errors import PlatformError


class EmbeddingError(PlatformError):
    """An encoder's files or packages are missing, or the model needs another encoder."""


class Encoder(Protocol):
    """An encoder of texts, loaded into this process.

    Attributes:
        fingerprint: SHA-256 that identifies the weights and the tokenizer.
        width: length of a vector.
    """

    fingerprint: str
    width: int

    def vectors(self, texts: list[str]) -> NDArray[np.float32]:
        """Return one vector of length 1 per text, zeros without a token; shape (texts, width).

        A text's vector does not depend on the other texts.
        """
