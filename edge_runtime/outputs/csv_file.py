"""Fixes as CSV: one row a fix, cells of the position empty where it is not OK."""

import csv
import io
from pathlib import Path

from edge_runtime.fix import Fix
from edge_runtime.outputs.reported import iso_utc_of, position_of
from edge_runtime.outputs.tailed_file import TailedFile

COLUMNS = (
    "seq",
    "frame",
    "t_exposure_s",
    "time_utc",
    "status",
    "mode",
    "lat_deg",
    "lon_deg",
    "eph_m",
    "yaw_deg",
    "probability",
    "reset_counter",
    "reason",
)


class CsvFile:
    """A table with a header."""

    def __init__(self, name: str, path: Path) -> None:
        """Begin the file.

        Raises:
            OSError: it cannot be written.
        """
        self.name = name
        self._file = TailedFile(path, _row(COLUMNS), "")

    def write(self, fix: Fix) -> None:
        """Add one fix.

        Raises:
            OSError: no room or the medium is gone.
        """
        position = position_of(fix)
        self._file.append(
            _row(
                (
                    fix.seq,
                    fix.frame,
                    f"{fix.t_exposure_s:.3f}",
                    iso_utc_of(fix),
                    fix.status,
                    fix.mode,
                    position and f"{position.lat_deg:.7f}",
                    position and f"{position.lon_deg:.7f}",
                    position and f"{position.eph_m:.2f}",
                    None if fix.yaw_deg is None else f"{fix.yaw_deg:.2f}",
                    fix.probability,
                    fix.reset_counter,
                    fix.reason,
                )
            ),
            "",
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _row(cells: tuple[object, ...]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
