"""Images small enough for an asset's metadata, as Markdown.

What belongs here: images as data URIs. No text from the network is in their Markdown.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The dialog in which Dagster's page shows long Markdown is 400 px wide.
_PREVIEW_WIDTH_PX = 360
# Dagster shows Markdown inline below about 1000 characters, else behind a link.
_SPARKLINE_MAX_BARS = 40
_SPARKLINE_HEIGHT = 40


def preview_markdown(figure: Figure) -> str:
    """Embed the figure in a Markdown image, as a PNG 360 px wide (10 to 30 kB)."""
    from PIL import Image

    large, small = io.BytesIO(), io.BytesIO()
    figure.savefig(large, format="png", dpi=3 * _PREVIEW_WIDTH_PX / figure.get_figwidth())
    # Letters drawn at this size are illegible; drawn larger and scaled down they can be read.
    Image.open(large).convert("RGB").reduce(3).save(small, format="png", optimize=True)
    return _image("preview", "image/png", small.getvalue())


def sparkline_markdown(values: Sequence[int]) -> str:
    """Embed at most 40 bars in a Markdown image, as an SVG; less than 900 characters.

    More than 40 values are summed into bars of equally many; the oldest bar has the remainder.

    Returns:
        The Markdown, empty if there are no values.
    """
    if not values:
        return ""
    bars = _summed(values, _SPARKLINE_MAX_BARS)
    highest = max(1, *bars)
    heights = [round(_SPARKLINE_HEIGHT * value / highest) for value in bars]
    path = "".join(f"M{4 * x + 2} 40v-{height}" for x, height in enumerate(heights) if height)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{4 * len(bars)}" height="40">'
        f'<path d="{path}" stroke="#3D5A73" stroke-width="3"/></svg>'
    )
    return _image("sparkline", "image/svg+xml", svg.encode())


def _summed(values: Sequence[int], most: int) -> list[int]:
    size = -(-len(values) // most)
    ends = range(len(values), 0, -size)
    return [sum(values[max(0, end - size) : end]) for end in reversed(ends)]


def _image(name: str, media_type: str, content: bytes) -> str:
    return f"![{name}](data:{media_type};base64,{base64.b64encode(content).decode()})"
