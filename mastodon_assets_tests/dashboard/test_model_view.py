"""What the dashboard says of a model."""

from mastodon_assets.dashboard.views.state import _measured


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
