"""The version of a model: what changes it, and what leaves it alone."""

import ast
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

import mastodon_assets
from mastodon_assets.config.settings import load_settings
from mastodon_assets.sentiment.features import lexicon
from mastodon_assets.sentiment.features.embedding import Embedding
from mastodon_assets.sentiment.features.lexicon import lexicon_fingerprint
from mastodon_assets.sentiment.train import TrainingPlan, code_version, plan_training
from mastodon_assets.sentiment.training.classes import Calibration
from mastodon_assets.sentiment.training.corpus import Corpus
from mastodon_assets_tests.support.golden_models import GOLDEN_FILE, golden_models

# One and two cores give the same six digits; another processor may sum in another order.
_TOLERANCE = 1e-4
_PRINT_VERSION = """
from mastodon_assets.config.settings import load_settings
from mastodon_assets.sentiment.train import plan_training
print(plan_training(load_settings(), "4.2.0", with_lexicon=True).version)
"""


@pytest.fixture
def plan() -> TrainingPlan:
    """The plan of the synthetic corpus."""
    return plan_training(load_settings(), "4.2.0", with_lexicon=True)


def test_what_a_trained_model_computes_changes_only_with_its_revision(
    spark: SparkSession, tmp_path: Path
) -> None:
    golden = json.loads(GOLDEN_FILE.read_text(encoding="utf-8"))
    advice = (
        "raise MODEL_REVISION (sentiment/revision.py) and regenerate this file:"
        f" {golden['regenerated_by']}"
    )
    assert golden["code_version"] == code_version(spark.version), (
        f"{GOLDEN_FILE} belongs to another revision or Spark; regenerate it:"
        f" {golden['regenerated_by']}"
    )
    found = golden_models(spark, tmp_path)
    assert found.keys() == golden["models"].keys(), advice
    for name, expected in golden["models"].items():
        for (text, probability, label), old in zip(found[name], expected, strict=True):
            differs = label != old[2] or abs(probability - old[1]) > _TOLERANCE
            assert text == old[0], advice
            assert not differs, (
                f"{name}: {text!r} was {old[2]} {old[1]}, is {label} {probability}; {advice}"
            )


@pytest.mark.usefixtures("processes")
def test_reworded_docstrings_renamed_modules_and_reordered_imports_change_no_version(
    plan: TrainingPlan, tmp_path: Path
) -> None:
    package = tmp_path / "mastodon_assets"
    shutil.copytree(
        Path(mastodon_assets.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    for path in (package / "sentiment").rglob("*.py"):
        source = path.read_text(encoding="utf-8").replace("features.lexicon", "features.valences")
        tree = _Rewording().visit(ast.parse(source))
        path.write_text(ast.unparse(ast.fix_missing_locations(tree)), encoding="utf-8")
    lexicon_module = package / "sentiment" / "features" / "lexicon.py"
    lexicon_module.rename(lexicon_module.with_name("valences.py"))
    printed = subprocess.run(
        [sys.executable, "-c", _PRINT_VERSION],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert printed.stdout.strip() == plan.version


def test_everything_that_a_training_depends_on_changes_the_version(plan: TrainingPlan) -> None:
    others = [
        replace(plan, corpus=Corpus("other", "other", None)),
        replace(plan, calibration=Calibration(Path("labelled.csv"), "other")),
        replace(plan, embedding=Embedding(Path("tiny"), "other", 4)),
        replace(plan, parameters=replace(plan.parameters, max_iter=31)),
        replace(plan, lexicon="other"),
        replace(plan, served_from=0.45),
        replace(plan, served_from=0.6),
        # A training through Spark Connect has no lexicon.
        replace(plan, lexicon=None),
        replace(plan, spark_version="4.3.0"),
    ]
    assert len({plan.version, *(other.version for other in others)}) == 1 + len(others)
    assert replace(plan, spark_version="4.2.1").version == plan.version


def test_another_revision_is_another_version(
    plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plan.version
    monkeypatch.setattr("mastodon_assets.sentiment.train.MODEL_REVISION", 0)
    assert plan.version != before


def test_a_lexicon_with_other_valences_has_another_fingerprint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, words = lexicon_fingerprint(), lexicon._valences()
    monkeypatch.setattr(lexicon, "_valences", lambda: words[::-1])
    assert lexicon_fingerprint() == before
    monkeypatch.setattr(lexicon, "_valences", lambda: (*words[1:], (words[0][0], 0.5)))
    assert lexicon_fingerprint() != before


class _Rewording(ast.NodeTransformer):
    """Rewords each docstring and turns round each run of imports."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and isinstance(body, list):
            if ast.get_docstring(node) is not None:
                body[0] = ast.Expr(ast.Constant("Other words."))
            _turn_imports_round(body)
        return node


def _turn_imports_round(body: list[ast.stmt]) -> None:
    places = [n for n, each in enumerate(body) if isinstance(each, ast.Import | ast.ImportFrom)]
    for place, statement in zip(places, [body[n] for n in reversed(places)], strict=True):
        body[place] = statement
