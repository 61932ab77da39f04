"""Which frames get pictures, where there are more frames than pictures."""

from collections.abc import Sequence

from edge_runtime.flight_page.flight_table import STATUSES, FlightTable

_SHARE_OF_THE_REST = 4
"""One picture in so many is of an ordinary frame, however many others there are: what a frame that
was not answered looks like says little without one that was."""


def rows_to_show(table: FlightTable, most: int, *, among: Sequence[int] | None = None) -> list[int]:
    """Rows to make pictures of: changes and what was not answered first, the rest evenly.

    Args:
        table: the flight.
        most: how many.
        among: rows that there are frames of, ascending; None for all.

    Returns:
        Ascending rows, at most `most`.
    """
    rows = range(len(table)) if among is None else among
    if len(rows) <= most:
        return list(rows)
    status, resets = table.column("status"), table.column("reset_counter")
    begins = set(table.first_rows)
    ok = STATUSES.index("OK")
    changes, unanswered, rest = [], [], []
    for row in rows:
        before = row - 1
        if row in begins or (status[row], resets[row]) != (status[before], resets[before]):
            changes.append(row)
        elif status[row] != ok:
            unanswered.append(row)
        else:
            rest.append(row)
    kept = min(len(rest), most // _SHARE_OF_THE_REST)
    chosen = _evenly(changes, most - kept)
    chosen += _evenly(unanswered, most - kept - len(chosen))
    chosen += _evenly(rest, most - len(chosen))
    return sorted(chosen)


def _evenly(rows: Sequence[int], most: int) -> list[int]:
    """At most so many of the rows, evenly spread, the first among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[k * len(rows) // most] for k in range(most)]
