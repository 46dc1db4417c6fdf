"""Deletes of many posts of one other domain at once: the server has probably blocked it.

What belongs here: counting. A server that blocks a domain, or suspends an account of it, sends a
delete per post, though the posts still exist at their home (249 within two seconds at a
GoToSocial).
"""

from collections import OrderedDict, deque
from datetime import datetime, timedelta

from mastodon_assets.contract.identity import uri_host

_FEWEST, _WITHIN = 50, timedelta(minutes=1)
_UNTIL_REPORTED_AGAIN = timedelta(hours=1)
_REMEMBERED_POSTS = 100_000


class DomainDeletes:
    """The homes of published posts, and the latest deletes by home."""

    def __init__(self, instance: str) -> None:
        self._own = {instance}
        self._homes: OrderedDict[str, str] = OrderedDict()
        self._deleted_at: dict[str, deque[datetime]] = {}
        self._reported_at: dict[str, datetime] = {}

    def note_post(self, status_id: str, uri: object, *, is_local: bool) -> None:
        """Remember the home of a post; that of local accounts is the server itself."""
        home = uri_host(uri)
        if home is None:
            return
        if is_local:
            self._own.add(home)
            return
        self._homes[status_id] = home
        if len(self._homes) > _REMEMBERED_POSTS:
            self._homes.popitem(last=False)

    def note_delete(self, status_id: str, at: datetime) -> str | None:
        """Count a delete; return the domain if it is probably blocked, at most once per hour."""
        home = self._homes.pop(status_id, None)
        if home is None or home in self._own:
            return None
        times = self._deleted_at.setdefault(home, deque(maxlen=_FEWEST))
        times.append(at)
        if len(times) < _FEWEST or times[-1] - times[0] > _WITHIN:
            return None
        last = self._reported_at.get(home)
        if last is not None and at - last < _UNTIL_REPORTED_AGAIN:
            return None
        self._reported_at[home] = at
        return home
