"""Tables and numbers in Markdown texts."""

from __future__ import annotations


def markdown_table(rows: list[tuple[str, ...]], align: str) -> str:
    """Write a Markdown table whose first row is its heading; `align` has an l or r for each column."""
    rule = ["---:" if side == "r" else ":---" for side in align]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [cells[0], rule, *cells[1:]])


def bytes_text(value: float) -> str:
    """Write a size in whole bytes: 1,008 bytes."""
    return f"{value:,.0f} bytes"


def count_text(value: int) -> str:
    """Write a large count with three digits: 118 M, 22.1 k."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * limit:
            return f"{float(f'{value / limit:.3g}'):g} {unit}"
    return str(value)


def duration_text(seconds: float) -> str:
    """Write a duration in one or two units: 8.2 s, 4 min 12 s, 3 h 05 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
