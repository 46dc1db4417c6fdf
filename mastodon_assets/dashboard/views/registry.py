"""All views, in the order of the page."""

from collections.abc import Mapping

from mastodon_assets.dashboard.views import activity, hashtags, sentiment, servers, state
from mastodon_assets.dashboard.views.base import View

VIEWS: Mapping[str, View] = {
    view.name: view
    for view in (
        activity.MINUTES,
        activity.POSTS,
        sentiment.BY_DAY,
        hashtags.TRENDS,
        activity.WEEK,
        activity.LANGUAGES,
        sentiment.LANGUAGE_SENTIMENT,
        sentiment.HASHTAG_SENTIMENT,
        servers.SERVERS,
        servers.LATENESS,
        sentiment.UNLABELLED,
        state.SOURCES,
        state.MODEL,
    )
}
