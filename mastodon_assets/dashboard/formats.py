"""A view as a file: CSV, JSON, SVG, PNG."""

import csv
import io
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson

from mastodon_assets.dashboard.charts.svg import framed
from mastodon_assets.dashboard.filters import Filters
from mastodon_assets.dashboard.rendering import Read
from mastodon_assets.dashboard.views.base import View
from mastodon_assets.reports.writers import harmless

SOURCE = "Public posts of the observed servers, without boosts, silenced accounts and most replies."
_WIDTH = 900
_PNG_SCALE = 2.0


def as_csv(read: Read) -> bytes:
    """Return all rows: UTF-8, header, LF, ISO times in UTC, null empty.

    Text that begins with `= + - @` gets an apostrophe, so that no spreadsheet runs it.
    """
    grid, output = read.content.grid, io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow([column.name for column in grid.columns])
    for row in grid.rows:
        writer.writerow([_text(value) for value in row])
    return output.getvalue().encode()


def _text(value: Any) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, float):
        return f"{value:.6f}"
    return harmless(value)


def as_json(view: View, filters: Filters, read: Read) -> bytes:
    """Return all rows as objects, with what limits them."""
    grid = read.content.grid
    names = [column.name for column in grid.columns]
    document = {
        "view": view.name,
        "title": view.title,
        "filters": filters_of(view, filters, read),
        "time_zone": "UTC",
        "read_at": read.at,
        "source": view.source,
        "population": SOURCE,
        "notes": list(read.notes),
        "warning": read.content.warning,
        "empty": read.content.empty,
        "rows": [dict(zip(names, row, strict=True)) for row in grid.rows],
    }
    return orjson.dumps(document, default=_plain, option=orjson.OPT_UTC_Z)


def filters_of(view: View, filters: Filters, read: Read) -> Mapping[str, Any]:
    """Return the filters that the view applied, and the times that they meant."""
    applied = view.applied(filters)
    return {
        "from": read.start if view.has_period else None,
        "to": min(read.scope.end, read.scope.now) if view.has_period else read.scope.now,
        "language": applied.language,
        "hashtag": applied.hashtag,
        "server": applied.server,
        "not_applied": view.ignored(filters),
    }


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return int(value) if value == int(value) else float(value)
    raise TypeError(type(value))


def as_svg(view: View, filters: Filters, read: Read) -> str | None:
    """Return the chart with title and notes, complete in itself; None if there is no chart."""
    if read.content.draw is None:
        return None
    chosen = view.applied(filters)
    parts = [read.scope.text] if view.has_period else []
    parts += [f"language {chosen.language}"] if chosen.language else []
    parts += [f"#{chosen.hashtag}"] if chosen.hashtag else []
    parts += [chosen.server] if chosen.server else []
    subtitle = f"{', '.join(parts)}{'; ' if parts else ''}read {_moment(read.at)}"
    notes = [*([read.content.warning] if read.content.warning else []), *read.notes, SOURCE]
    chart = read.content.draw(_WIDTH)
    return framed(chart, _WIDTH, view.title, subtitle, notes, read.content.summary)


def _moment(at: date) -> str:
    return f"{at:%d %b %Y, %H:%M} UTC"


def as_png(svg: str) -> bytes:
    """Return the picture at twice its size in pixels, on white."""
    import resvg_py

    return bytes(
        resvg_py.svg_to_bytes(
            svg_string=svg,
            background="#ffffff",
            zoom=_PNG_SCALE,
            font_dirs=_font_folders(),
            font_family="DejaVu Sans",
            sans_serif_family="DejaVu Sans",
        )
    )


def _font_folders() -> list[str]:
    """Return the folder of the fonts that matplotlib brings: a container may have no other."""
    spec = find_spec("matplotlib")
    folders = [
        Path(place) / "mpl-data/fonts/ttf"
        for place in (spec and spec.submodule_search_locations) or ()
    ]
    return [str(folder) for folder in folders if folder.is_dir()]
