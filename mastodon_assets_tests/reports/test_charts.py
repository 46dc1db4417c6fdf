"""The charts: everything on the page, nothing false, nothing that depends on the process."""

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from functools import partial
from itertools import pairwise

import matplotlib
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from mastodon_assets.reports import answer_charts, charts, figures
from mastodon_assets.reports.figures import LABEL_COLOURS
from mastodon_assets.reports.periods import by_month, shown_days
from mastodon_assets_tests.support.report_frames import (
    REAL_MODEL,
    by_day,
    by_server,
    per_day,
    sentiment_of,
    trends,
    week,
)
from mastodon_assets_tests.support.report_rows import MONDAY, ODD_HASHTAGS

_SYNTHETIC: list[str | None] = ["f717468d3d3c48b1", "synthetic (demo only)"]


def by_reason(posts: int = 100, models: Sequence[list[str | None]] = (REAL_MODEL,)) -> pd.DataFrame:
    frame = pd.DataFrame(
        [
            ("positive", None, posts // 2),
            ("negative", None, posts // 5),
            ("unlabelled", "unsupported_language", posts),
            ("unlabelled", "not_scored", posts // 4),
            ("unlabelled", "no_model", posts // 5),
            ("unlabelled", "no_words", posts // 10),
        ],
        columns=["label_str", "reason", "n"],
    )
    return frame.assign(
        first_day=MONDAY,
        last_day=date(2027, 10, 5),
        models=pd.Series([models] * len(frame), dtype="object"),
    )


def hashtags(names: list[str], posts: int = 100) -> pd.DataFrame:
    return pd.DataFrame(
        {"hashtag": names, "n": [posts // (1 + rank) for rank in range(len(names))]}
    ).assign(all_uses=posts * 10, all_hashtags=1234, first_day=MONDAY, last_day=MONDAY)


def number_of(day: date) -> int:
    """The day on an axis of dates: matplotlib counts from 1970."""
    return (day - date(1970, 1, 1)).days


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


_THIRTY = [*ODD_HASHTAGS, *(f"tag{number}" for number in range(30 - len(ODD_HASHTAGS)))]
_FIGURES: dict[str, Callable[[], Figure]] = {
    "distribution of a few": lambda: charts.sentiment_distribution(by_reason(10)),
    "distribution of many": lambda: charts.sentiment_distribution(by_reason(10**8)),
    "hashtags": lambda: charts.top_hashtags(hashtags(_THIRTY)),
    "hashtags of many": lambda: charts.top_hashtags(hashtags(_THIRTY, 10**8)),
    "one hashtag": lambda: charts.top_hashtags(hashtags(["news"], 1)),
    "no distribution": lambda: charts.sentiment_distribution(by_reason().head(0)),
    "no hashtags": lambda: charts.top_hashtags(hashtags([])),
    "no labels by day": lambda: charts.sentiment_by_day(by_day(0)),
    "no days": lambda: charts.toots_per_day(per_day(0)),
}
for _corpus in ("W", "i", "日", "synthetic"):
    _FIGURES[f"distribution by a model of {_corpus}"] = partial(
        lambda corpus: charts.sentiment_distribution(
            by_reason(10**8, [["0123456789abcdef", corpus * 250]])
        ),
        _corpus,
    )
_FIGURES["labels with posts outside"] = lambda: charts.sentiment_by_day(
    by_day(7).assign(n_earlier=10**7, n_later=10**7)
)
_FIGURES["labels by many models"] = lambda: charts.sentiment_by_day(
    by_day(7, models=[[f"v{number}", f"synthetic {number}"] for number in range(1000)])
)
# Both sides of each number of days at which a chart changes its looks: 366 and 367 days; 62 and
# 63 months; and the ticks of two, nine and eighty years.
for _days in (1, 2, 7, 8, 9, 31, 62, 63, 92, 93, 366, 367, 731, 1861, 1862, 3512, 30_000):
    for _posts in (1, 10**7):
        _FIGURES[f"labels, {_days} days of {_posts}"] = partial(
            lambda days, posts: charts.sentiment_by_day(by_day(days, posts)), _days, _posts
        )
        _FIGURES[f"toots, {_days} days of {_posts}"] = partial(
            lambda days, posts: charts.toots_per_day(per_day(days, posts)), _days, _posts
        )
_LONG = [f"{'many.' * 40}{number}.example" for number in range(20)]
for _number in (1, 10**8):
    _FIGURES |= {
        f"trends of {_number}": partial(
            lambda n: answer_charts.hashtag_trends(trends(_THIRTY[:25], n, 14)), _number
        ),
        f"trends of {_number} without days": partial(
            lambda n: answer_charts.hashtag_trends(trends(["tea"], n, 0)), _number
        ),
        f"week of {_number}": partial(
            lambda n: answer_charts.activity_by_weekday(week(n)), _number
        ),
        f"languages of {_number}": partial(
            lambda n: answer_charts.sentiment_by_language(sentiment_of(["en", "und"], n)), _number
        ),
        f"labels of hashtags of {_number}": partial(
            lambda n: answer_charts.sentiment_by_hashtag(sentiment_of(_THIRTY[:25], n)), _number
        ),
        f"servers of {_number}": partial(
            lambda n: answer_charts.servers(by_server(_LONG, n)), _number
        ),
        f"lateness of {_number}": partial(
            lambda n: answer_charts.lateness(by_server(_LONG, n)), _number
        ),
    }
_FIGURES |= {
    "no trends": lambda: answer_charts.hashtag_trends(trends([], 1, 0)),
    "three hours of a week": lambda: answer_charts.activity_by_weekday(week(1, 3)),
    "no hours": lambda: answer_charts.activity_by_weekday(week(1, 0)),
    "no languages": lambda: answer_charts.sentiment_by_language(sentiment_of([], 1)),
    "no labels of hashtags": lambda: answer_charts.sentiment_by_hashtag(sentiment_of([], 1)),
    "no servers": lambda: answer_charts.servers(by_server([], 1)),
    "no lateness": lambda: answer_charts.lateness(by_server([], 1)),
    "deletes alone": lambda: answer_charts.servers(by_server(["one.example"], 0)),
}


@pytest.fixture(scope="module", params=_FIGURES)
def figure(request: pytest.FixtureRequest) -> Figure:
    """A chart, drawn once for all tests that look at it."""
    return _FIGURES[request.param]()


def test_nothing_runs_over_the_edge_of_the_page(figure: Figure) -> None:
    drawn = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert drawn.x0 >= 0
    assert drawn.y0 >= 0
    assert drawn.x1 <= width
    assert drawn.y1 <= height


def test_every_chart_says_what_a_public_stream_leaves_out(figure: Figure) -> None:
    assert any(
        "without boosts, silenced accounts and most replies" in text for text in texts(figure)
    )


def test_labels_of_an_axis_do_not_overlap(figure: Figure) -> None:
    (axes,) = figure.axes
    if not axes.axison:
        return
    boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
    low, high = axes.get_window_extent().intervalx
    shown = [box for box in boxes if low <= (box.x0 + box.x1) / 2 <= high]
    assert shown
    assert all(left.x1 < right.x0 for left, right in pairwise(shown))


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: charts.sentiment_distribution(by_reason().head(0)), "masto.toots_raw"),
        (lambda: charts.sentiment_by_day(by_day(0)), "masto.v_sentiment_daily"),
        (lambda: charts.toots_per_day(per_day(0)), "masto.batch_toots_per_day"),
        (lambda: charts.top_hashtags(hashtags([])), "masto.batch_hashtag_by_hour"),
    ],
)
def test_without_rows_the_picture_says_which_table_is_empty(
    draw: Callable[[], Figure], message: str
) -> None:
    assert any(f"{message} has no rows" in text for text in texts(draw()))


def test_counts_begin_at_zero() -> None:
    assert charts.toots_per_day(per_day(7)).axes[0].get_ylim()[0] == 0
    assert charts.sentiment_by_day(by_day(366)).axes[0].get_ylim()[0] == 0
    assert charts.sentiment_distribution(by_reason()).axes[0].get_xlim()[0] == 0
    assert charts.top_hashtags(hashtags(["a", "b"])).axes[0].get_xlim()[0] == 0


def test_a_label_has_the_same_colour_in_both_charts() -> None:
    (bars,) = charts.sentiment_distribution(by_reason()).axes[0].containers
    distribution = [to_hex(bar.get_facecolor()) for bar in bars]
    for days in (7, 366):
        legend = charts.sentiment_by_day(by_day(days)).legends[0]
        assert [to_hex(patch.get_facecolor()) for patch in legend.get_patches()] == distribution
        assert [text.get_text() for text in legend.get_texts()] == list(LABEL_COLOURS)


def test_the_stack_of_a_day_is_as_high_as_its_posts() -> None:
    containers = charts.sentiment_by_day(by_day(7)).axes[0].containers
    tops = [bar.get_y() + bar.get_height() for bar in containers[-1]]
    assert tops == by_day(7)["n_toosts"].tolist()


def test_the_title_names_the_range_and_the_note_the_number_of_posts() -> None:
    words = " ".join(texts(charts.toots_per_day(per_day(7, 1000))))
    assert "2026-09-29 to 2026-10-05" in words
    assert "5,500 posts." in words


def test_rows_are_counted_as_a_part_only_if_there_are_more() -> None:
    one = by_server(["one.example"], 9)
    alone = " ".join(texts(answer_charts.servers(one.assign(all_servers=1))))
    assert "Posts of 1 server that" in alone
    assert "Posts of 1 of 1,234 servers that" in " ".join(texts(answer_charts.servers(one)))
    two = sentiment_of(["tea", "rain"], 9)
    all_of_them = answer_charts.sentiment_by_hashtag(two.assign(all_names=2))
    assert "2 hashtags with labelled posts," in " ".join(texts(all_of_them))
    some = " ".join(texts(answer_charts.sentiment_by_hashtag(two)))
    assert "2 of 1,234 hashtags with most labelled posts," in some


def test_one_post_is_one_post() -> None:
    words = " ".join(texts(charts.toots_per_day(per_day(1, 1))))
    assert "1 post." in words
    assert "this one may be incomplete" in words


def test_a_year_is_drawn_by_day_and_a_day_more_by_month() -> None:
    for draw, frame in ((charts.toots_per_day, per_day), (charts.sentiment_by_day, by_day)):
        year, longer = draw(frame(366)), draw(frame(367))
        assert year.axes[0].get_ylabel() == "Posts per day"
        assert longer.axes[0].get_ylabel() == "Posts per month"
        assert longer.axes[0].get_xlabel() == "Month (UTC)"
        title, subtitle = (text.get_text() for text in longer.texts[:2])
        assert title.endswith(" month")
        assert "by month" in subtitle
        assert "2025-10-04 to 2026-10-05" in subtitle


def test_no_post_of_nine_years_is_hidden() -> None:
    words = " ".join(texts(charts.toots_per_day(per_day(3512, 10))))
    assert f"{3512 // 2 * 15:,} posts." in words
    assert "2017-02-23 to 2026-10-05" in words


@pytest.mark.parametrize(
    ("days", "labels"),
    [
        (367, ["Nov", "2026", "Mar", "May", "Jul", "Sep"]),
        (1000, ["2024", "Apr", "Jul", "Oct", "2025", "Apr", "Jul", "Oct", "2026", "Apr", "Jul"]),
        (3512, [str(year) for year in range(2018, 2027)]),
    ],
)
def test_the_label_of_a_month_is_in_its_middle(days: int, labels: list[str]) -> None:
    (axes,) = charts.toots_per_day(per_day(days)).axes
    assert [label.get_text() for label in axes.get_xticklabels()][: len(labels)] == labels
    january = labels.index("2026")
    assert axes.get_xticks()[january] == pytest.approx(number_of(date(2026, 1, 16)))


def with_outliers(days: int, outliers: dict[date, int], posts: int = 24) -> pd.DataFrame:
    """Posts on each of the `days` up to Monday and on the outliers."""
    counts = {MONDAY - timedelta(days=day): posts for day in range(days)} | outliers
    frame = pd.DataFrame(sorted(counts.items()), columns=["day", "toots_count"])
    return shown_days(frame, "toots_count")


def test_one_post_dated_1970_leaves_a_week_readable_and_is_named() -> None:
    frame = with_outliers(7, {date(1970, 1, 1): 1})
    figure = charts.toots_per_day(frame)
    assert figure.axes[0].get_ylabel() == "Posts per day"
    assert len(figure.axes[0].patches) == 7
    words = " ".join(texts(figure))
    assert "2026-09-29 to 2026-10-05" in words
    assert "168 posts." in words
    assert "Not shown: 1 post dated before 2026-09-29." in words


def test_posts_outside_are_named_on_either_side_and_the_shown_are_counted() -> None:
    frame = with_outliers(30, {date(1970, 1, 1): 2, date(1999, 1, 1): 1, date(2099, 1, 1): 3})
    words = texts(charts.toots_per_day(frame))
    assert "Not shown: 3 posts dated before 2026-09-06 and 3 posts dated after 2026-10-05." in words


@pytest.mark.parametrize(
    ("frame", "first"),
    [
        # More than one in a hundred is no outlier.
        (with_outliers(7, {date(1970, 1, 1): 9}), date(1970, 1, 1)),
        # Too few to say which is one.
        (with_outliers(1, {date(1970, 1, 1): 1}, posts=8), date(1970, 1, 1)),
        # A month is readable.
        (with_outliers(7, {date(2026, 9, 10): 1}), date(2026, 9, 10)),
        # A chart half as long again loses nothing.
        (with_outliers(100, {date(2026, 6, 1): 1}), date(2026, 6, 1)),
    ],
)
def test_no_post_is_left_out_unless_few_take_most_of_the_axis(
    frame: pd.DataFrame, first: date
) -> None:
    assert frame["day"].iloc[0] == first
    assert (frame["day"].iloc[-1] - first).days == len(frame) - 1
    assert not frame[["n_earlier", "n_later"]].any(axis=None)
    assert not any("Not shown" in text for text in texts(charts.toots_per_day(frame)))


def test_months_are_the_sums_of_their_days_and_a_month_without_posts_is_zero() -> None:
    days = [date(2024, 1, 30) + timedelta(days=offset) for offset in range(63)]
    frame = pd.DataFrame(
        {"day": days, "toots_count": [5, 7, *[0] * 29, *[1] * 31, 9], "models": [[]] * 63}
    )
    assert by_month(frame).values.tolist() == [
        [date(2024, 1, 1), 12],
        [date(2024, 2, 1), 0],
        [date(2024, 3, 1), 31],
        [date(2024, 4, 1), 9],
    ]


@pytest.mark.parametrize("days", [1861, 1862])
def test_a_month_is_as_broad_as_its_days_in_bars_and_in_steps(days: int) -> None:
    (axes,) = charts.toots_per_day(per_day(days)).axes
    first, end = MONDAY - timedelta(days=days - 1), date(2026, 11, 1)
    low, high = axes.get_xlim()
    assert low == pytest.approx(number_of(first.replace(day=1)) - 0.6)
    assert high == pytest.approx(number_of(end) - 0.4)
    if days == 1861:
        assert len(axes.patches) == 62
        assert axes.dataLim.x1 == pytest.approx(number_of(end) - 0.5 - 0.1 * 31)
    else:
        assert not axes.patches


@pytest.mark.parametrize(
    ("models", "note"),
    [
        (
            [REAL_MODEL],
            "Labels by model 0123456789abcdef, trained on tweets.csv.gz sha256:0123456789ab.",
        ),
        ([["v1", None]], "Labels by model v1, trained on a corpus that is not on record."),
        ([["v1", "a.csv"], ["v2", "a.csv"]], "Labels by 2 models, trained on a.csv."),
        ([["v1", "a.csv"], ["v2", "b.csv"]], "Labels by 2 models, trained on 2 corpora."),
        (
            [_SYNTHETIC],
            "FOR DEMONSTRATION ONLY: labels by model f717468d3d3c48b1, "
            "trained on a synthetic corpus.",
        ),
        (
            [REAL_MODEL, _SYNTHETIC],
            "FOR DEMONSTRATION ONLY: labels by 2 models, "
            "trained on 2 corpora, a synthetic one among them.",
        ),
    ],
)
def test_the_note_says_which_models_made_the_labels_and_is_loud_for_a_synthetic_corpus(
    models: Sequence[list[str | None]], note: str
) -> None:
    for figure in (
        charts.sentiment_distribution(by_reason(models=models)),
        charts.sentiment_by_day(by_day(7, models=models)),
        charts.sentiment_by_day(by_day(1000, models=models)),
    ):
        (line,) = (text for text in figure.texts if "trained on" in text.get_text())
        assert line.get_text() == note
        assert (line.get_fontweight() == "bold") == ("DEMONSTRATION" in note)


def test_without_labels_no_model_is_named() -> None:
    for figure in (
        charts.sentiment_distribution(by_reason(models=[])),
        charts.sentiment_by_day(by_day(7, models=[])),
    ):
        assert not any("trained on" in text for text in texts(figure))


def test_a_few_of_many_are_not_zero_percent() -> None:
    frame = by_reason().head(2).assign(n=[100_000, 1])
    assert any("(<0.1 %)" in text for text in texts(charts.sentiment_distribution(frame)))


def test_a_hashtag_is_text_and_never_markup() -> None:
    (axes,) = charts.top_hashtags(hashtags(["$x$", "<b>bold</b>", "$\\frac{$"])).axes
    labels = axes.get_yticklabels()
    assert [label.get_text() for label in labels] == ["#$x$", "#<b>bold</b>", "#$\\frac{$"]
    assert not any(label.get_parse_math() for label in labels)


def test_code_points_in_place_of_letters_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "installed_families", lambda: ["DejaVu Sans"])
    words = texts(charts.top_hashtags(hashtags(["日本"])))
    assert "#⟨65E5 672C⟩" in words
    assert any("no font of this machine has" in text for text in words)
    assert not any("no font" in text for text in texts(charts.top_hashtags(hashtags(["caturday"]))))


def test_drawing_changes_no_setting_of_the_process() -> None:
    before = dict(matplotlib.rcParams)
    charts.top_hashtags(hashtags(_THIRTY)).canvas.draw()
    charts.sentiment_by_day(by_day(366)).canvas.draw()
    assert dict(matplotlib.rcParams) == before
