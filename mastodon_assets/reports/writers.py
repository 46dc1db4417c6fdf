"""The files of charts and tables: complete or absent, and the same bytes for the same data.

What belongs here: how a file is written. `charts` and `queries` make its content.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from mastodon_assets.errors import PlatformError
from mastodon_assets.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# A spreadsheet takes a cell that starts with one of these for a formula (OWASP, "CSV Injection").
_FORMULA_STARTS = ("=", "+", "-", "@")
_SPACES_FOR_CONTROLS = dict.fromkeys(range(32), " ")


class ReportFileError(PlatformError):
    """A chart or CSV file could not be written; an existing one is unchanged."""


def write_chart(figure: Figure, path: Path) -> None:
    """Write `figure` to `path` as a PNG that holds no time and no version.

    Raises:
        ReportFileError: The file could not be written.
    """
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=figure.dpi, metadata={"Software": None})
    _replace(path, picture.getvalue())


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write `frame` to `path`: UTF-8, header, LF, ISO dates, six decimals, null empty.

    Text that begins with `= + - @` gets an apostrophe, so that no spreadsheet runs it as a
    formula. Control characters (line ends, tabs) become spaces. Mastodon's own hashtags have
    neither. The rows keep their order.

    Raises:
        ReportFileError: The file could not be written.
    """
    text = frame.map(harmless).to_csv(index=False, lineterminator="\n", float_format="%.6f")
    _replace(path, text.encode())


def harmless(cell: object) -> object:
    """Return a cell from which no spreadsheet makes a formula; what is no text stays."""
    if not isinstance(cell, str):
        return cell
    text = cell.translate(_SPACES_FOR_CONTROLS)
    return f"'{text}" if text.lstrip().startswith(_FORMULA_STARTS) else text


def _replace(path: Path, content: bytes) -> None:
    """Replace `path` in one step; whom the umask lets read files may read it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content, mode=None)
    except OSError as error:
        raise ReportFileError(
            f"cannot write {path} ({error.strerror}); check the folder's permissions and space, "
            "or set REPORTS_DIR and EXPORTS_DIR to another one"
        ) from error
