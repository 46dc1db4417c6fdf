"""The research data next to the project, which is not part of it."""

from pathlib import Path

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"
RECORDED = SHARED_DATA / "toots"
