"""The text of deleted posts, without a database."""

import pytest

from mastodon_assets.dashboard.views.servers import deleted_text


@pytest.mark.parametrize(
    ("posts", "deleted", "shown"), [(0, 0, "0 %"), (98, 2, "2.0 %"), (50, 50, "50 %")]
)
def test_the_share_deleted_is_of_all_that_was_read(posts: int, deleted: int, shown: str) -> None:
    assert deleted_text(posts, deleted) == shown


def test_more_deletes_than_posts_are_no_share_because_most_are_of_earlier_posts() -> None:
    assert deleted_text(2, 38) == "38"
    assert deleted_text(0, 1_200) == "1,200"
