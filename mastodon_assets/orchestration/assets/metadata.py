"""The catalogue entry, columns and row count of a table asset, from the table catalog."""

from collections.abc import Mapping
from typing import Any, LiteralString

import dagster as dg

from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.rows import count_rows
from mastodon_assets.warehouse.tables import SCHEMA, TOOTS_RAW, TOOTS_SENTIMENT, Table

# Kept up to date by the transactions that write the tables. Counting reads the whole history.
_COUNTED: Mapping[str, LiteralString] = {
    TOOTS_RAW.name: "SELECT coalesce(sum(toots_count), 0)::bigint FROM masto.sentiment_totals",
    TOOTS_SENTIMENT.name: "SELECT coalesce(sum(toots_count), 0)::bigint"
    " FROM masto.sentiment_totals WHERE outcome <> 'not_scored'",
}


def describe(
    table: Table, *, source: str, reads: str, writes: str, metadata: str, raises: str
) -> str:
    """Write the catalogue entry of a table as Markdown."""
    lines = [
        table.comment,
        "",
        f"**Source**: {source}",
        "",
        f"**Rows**: one per {', '.join(f'`{name}`' for name in table.key)}",
        "",
        "| column | type | null | meaning |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{column.name}` | {column.type} | {'yes' if column.nullable else 'no'}"
        f" | {column.comment} |"
        for column in table.columns
    ]
    parts = {"Reads": reads, "Writes": writes, "Metadata": metadata, "Raises": raises}
    for title, text in parts.items():
        lines += ["", f"**{title}**: {text}"]
    return "\n".join(lines)


def table_metadata(table: Table) -> dict[str, Any]:
    """Return the definition metadata: the web page's table of columns and storage line."""
    columns = [
        dg.TableColumn(
            name=column.name,
            type=column.type,
            description=column.comment,
            constraints=dg.TableColumnConstraints(
                nullable=column.nullable, unique=table.key == (column.name,)
            ),
        )
        for column in table.columns
    ]
    return {
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "dagster/table_name": f"{SCHEMA}.{table.name}",
    }


def row_count(postgres_url: Any, table: Table) -> dict[str, Any]:
    """Return the run metadata with the table's present number of rows."""
    with transaction(postgres_url, snapshot=True) as connection:
        counted = _COUNTED.get(table.name)
        if counted is None:
            return {"dagster/row_count": count_rows(connection, table)}
        row = connection.execute(counted).fetchone()
        assert row is not None
        return {"dagster/row_count": row[0]}
