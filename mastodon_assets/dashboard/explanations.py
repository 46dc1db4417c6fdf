"""The words that decided the labels of posts, for whoever moderates.

What belongs here: which posts get words, and the model that gives them. It is loaded on first use;
a process whose posts nobody looks at never holds it.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from mastodon_assets.dashboard.posts import Post
from mastodon_assets.errors import PlatformError

if TYPE_CHECKING:
    from mastodon_assets.sentiment.scoring.plain_model import PlainModel

logger = logging.getLogger(__name__)

# Each word costs one more score. Most servers allow 500 characters.
LONGEST_TEXT = 500
MOST_WORDS = 5
_MOST_CACHED = 500
# Of a look: a post takes up to a tenth of a second, once. The others get words at a later look.
_SECONDS = 0.5
# What was stored is what Spark computed; numbers that differ would explain another label.
_TOLERANCE = 1e-6

# Words with the fall of the log odds of positive without them.
Words = tuple[tuple[str, float], ...]


class Explanations:
    """Words per post: of one model at a time, the newest post's, and cached."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._path: str | None = None
        self._model: PlainModel | None = None
        self._cache: OrderedDict[tuple[str, str, str], Words] = OrderedDict()

    def of(self, posts: Sequence[Post]) -> list[Words]:
        """Return the strongest words of each post; none if they cannot be computed without Spark.

        A look takes about half a second at most; posts that are left have their words at the next.

        Args:
            posts: Posts, the newest first.
        """
        with self._lock:
            try:
                return self._all(posts)
            except Exception:
                # Posts are shown, with or without.
                logger.exception("the words that decided could not be computed:")
                return [()] * len(posts)

    def _all(self, posts: Sequence[Post]) -> list[Words]:
        path = next((post.model_path for post in posts if post.model_path), None)
        if path is not None and path != self._path:
            self._path, self._model = path, _load(path)
        until = time.monotonic() + _SECONDS
        return [self._words(post, until) for post in posts]

    def _words(self, post: Post, until: float) -> Words:
        model = self._model
        if (
            model is None
            or post.model_version != model.version
            or post.prob_pos is None
            or len(post.text) > LONGEST_TEXT
        ):
            return ()
        key = (model.version, post.lang, post.text)
        found = self._cache.get(key)
        if found is None:
            if time.monotonic() > until:
                return ()
            probability, words = model.words(post.text, post.lang)
            is_same = probability is not None and abs(probability - post.prob_pos) < _TOLERANCE
            found = self._cache[key] = words[:MOST_WORDS] if is_same else ()
        self._cache.move_to_end(key)
        while len(self._cache) > _MOST_CACHED:
            self._cache.popitem(last=False)
        return found


def _load(path: str) -> "PlainModel | None":
    from mastodon_assets.sentiment.scoring.plain_model import PlainModel

    parts = urlsplit(path)
    if parts.scheme not in ("", "file"):
        logger.info("no words that decided: %s is not a folder of this machine", path)
        return None
    try:
        return PlainModel(Path(unquote(parts.path) if parts.scheme else path))
    except PlatformError as error:
        logger.warning("no words that decided: %s", error)
        return None
