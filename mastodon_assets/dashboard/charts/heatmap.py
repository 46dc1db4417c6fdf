"""A map of a week: one cell per weekday and hour."""

from collections.abc import Mapping

from mastodon_assets.dashboard.charts.svg import COLOURS, element, picture, text

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LEFT, _TOP = 36.0, 4.0
# A cell without posts stays visible as a cell.
_LEAST_OPACITY = 0.06


def week_map(width: int, means: Mapping[tuple[int, int], float], summary: str) -> str:
    """Draw the mean number of posts per weekday (1 to 7, Monday first) and hour (0 to 23).

    Cells without an observed hour are left out.
    """
    step = (width - _LEFT) / 24
    height = max(18.0, min(step, 26.0))
    highest = max(means.values(), default=0) or 1
    parts = []
    for number, day in enumerate(DAYS):
        y = _TOP + number * height
        parts.append(text(_LEFT - 8, y + height / 2 + 4, day, anchor="end", colour="muted"))
        for hour in range(24):
            mean = means.get((number + 1, hour))
            if mean is not None:
                parts.append(_cell(_LEFT + hour * step, y, step, height, mean, highest, day, hour))
    bottom = _TOP + 7 * height
    for hour in range(0, 24, 3 if step > 16 else 6):
        label = f"{hour:02d}"
        parts.append(text(_LEFT + hour * step, bottom + 16, label, colour="muted"))
    parts += _scale(width, bottom + 28, highest)
    return picture(width, bottom + 46, parts, summary)


def _cell(
    x: float,
    y: float,
    width: float,
    height: float,
    mean: float,
    highest: float,
    day: str,
    hour: int,
) -> str:
    opacity = _LEAST_OPACITY + (1 - _LEAST_OPACITY) * mean / highest
    return element(
        "rect",
        f"<title>{day} {hour:02d}:00: {mean:,.1f} posts per hour</title>",
        x=x + 0.5,
        y=y + 0.5,
        width=width - 1,
        height=height - 1,
        rx=2,
        fill=COLOURS["count"],
        class_="f-count",
        fill_opacity=f"{opacity:.2f}",
    )


def _scale(width: int, y: float, highest: float) -> list[str]:
    """Explain the shades from none to the highest mean."""
    parts = [text(_LEFT, y + 12, "0", colour="muted")]
    steps = 6
    for number in range(steps):
        opacity = _LEAST_OPACITY + (1 - _LEAST_OPACITY) * number / (steps - 1)
        parts.append(
            element(
                "rect",
                x=_LEFT + 14 + number * 18,
                y=y + 2,
                width=17,
                height=12,
                rx=2,
                fill=COLOURS["count"],
                class_="f-count",
                fill_opacity=f"{opacity:.2f}",
            )
        )
    label = f"{highest:,.1f} posts per hour" if highest < 100 else f"{highest:,.0f} posts per hour"
    parts.append(text(min(_LEFT + 128, width), y + 12, label, colour="muted"))
    return parts
