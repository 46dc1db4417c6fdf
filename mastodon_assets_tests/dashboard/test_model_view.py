"""What the dashboard says of a model."""

from mastodon_assets.dashboard.views.base import Figure
from mastodon_assets.dashboard.views.state import _figure, _measured, _note, _on_own_posts


def test_each_language_is_shown_with_its_interval_and_whether_it_is_served() -> None:
    facts = _measured(
        {
            "auc": 0.9,
            "macro_f1": 0.8,
            "rows": 1000,
            "intervals": {"auc": [0.89, 0.91]},
            "languages": ["de", "en"],
            "served_from": 0.45,
            "classes": {
                "macro_f1": 0.55,
                "macro_recall": 0.56,
                "intervals": {"macro_f1": [0.53, 0.57], "macro_recall": None},
                "languages": {
                    "hi": {"rows": 324, "macro_f1": 0.35, "intervals": {"macro_f1": [0.3, 0.4]}},
                    "de": {"rows": 324, "macro_f1": 0.67, "intervals": {"macro_f1": [0.62, 0.72]}},
                },
            },
        }
    )
    assert facts == [
        ["AUC (1 is perfect, 0.5 is chance)", "0.900 (0.890 to 0.910)"],
        ["measured on", "1,000 held-out texts"],
        ["macro-recall of three classes", "0.560"],
        ["macro-F1 of three classes", "0.550 (0.530 to 0.570)"],
        ["languages", "de, en"],
        ["macro-F1 of three classes, de", "0.670 (0.620 to 0.720) on 324 texts, served"],
        [
            "macro-F1 of three classes, hi",
            "0.350 (0.300 to 0.400) on 324 texts, not served (needs an interval from 0.45 up)",
        ],
    ]


def test_a_model_without_three_classes_has_no_figure_of_them() -> None:
    facts = _measured({"macro_f1": 0.8, "languages": ["en"]})
    assert facts == [["languages", "en"]]


def test_figures_on_these_posts_come_first_if_people_labelled_some() -> None:
    figures = {
        "rows": 231,
        "accuracy": 0.684,
        "macro_recall": 0.6,
        "intervals": {"accuracy": [0.61, 0.74], "macro_recall": [0.5, 0.7]},
    }
    own_posts = {**figures, "languages": {"en": {**figures, "rows": 200}}, "alpha": 0.713}
    assert _on_own_posts(own_posts) == [
        ["accuracy on these posts", "0.684 (0.610 to 0.740) on 231 posts"],
        ["macro-recall on these posts", "0.600 (0.500 to 0.700) on 231 posts"],
        ["accuracy on these posts, en", "0.684 (0.610 to 0.740) on 200 posts"],
    ]
    assert _figure({"auc": 0.9}, own_posts, "tweets") == Figure(
        "labels that are right", "68 %", "61 to 74 %, n = 231 posts"
    )
    assert "(Krippendorff's alpha of the coders 0.71)" in _note(own_posts)


def test_without_labels_by_people_the_page_says_what_is_not_known() -> None:
    assert _on_own_posts({}) == []
    assert _figure({"auc": 0.9}, {}, "tweets") == Figure("model's AUC", "0.900", "on tweets")
    assert _note({}).endswith("such as these posts, it is usually less good.")
