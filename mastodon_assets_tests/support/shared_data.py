"""The research data beside the project, which is no part of it."""

from pathlib import Path

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"
RECORDED = SHARED_DATA / "toots"
