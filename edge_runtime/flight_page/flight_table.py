"""Every record of a log in columns: small in memory and in the page, whatever the log's length."""

import math
import sys
from array import array
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from edge_runtime.deadline import Effort
from edge_runtime.errors import InputError
from edge_runtime.fix import STAGES, Fix, Mode, Status

MOST_FRAMES = 200_000
"""Five and a half hours at 10 Hz: a page of 30 MB, about what a browser still takes well."""
STATUSES: tuple[Status, ...] = ("OK", "DEGRADED", "ABSTAIN", "LOST")
MODES: tuple[Mode, ...] = ("TRACK", "GLOBAL")
NO_PLACE = -(2**31)
"""In the columns of places, for a frame without one."""
_PER_DEGREE = 10_000_000
"""Places are whole numbers of 1e-7 degrees: a centimetre."""
_PLACES = ("lat_deg", "lon_deg", "look_lat_deg", "look_lon_deg")
_REALS = (
    "t_fix_s",
    "eph_m",
    "stated_eph_m",
    "yaw_deg",
    "probability",
    "similarity",
    "margin",
    "ncc",
    "reprojection_px",
)
_COUNTS = ("seq", "inliers", "windows", "dropped", "reset_counter")
_KINDS = {"d": "f64", "f": "f32", "i": "i32", "B": "u8"}


class MadeWith(NamedTuple):
    """What a frame's answer was made with; the same for whole runs."""

    bundle_id: str
    index_id: str
    engine_id: str
    backend: str
    fallback: str


class FlightTable:
    """Takes records one after another, about 120 bytes each. Rows count from 0 over all runs."""

    def __init__(self) -> None:
        self.names: list[str] = []
        """Of the frames, as their source calls them."""
        self.events: list[tuple[int, str]] = []
        """(row, what happened) as the records tell it."""
        self.first_rows: list[int] = []
        """Where each run begins, in a log that runs were appended to."""
        codes = [(name, "i") for name in (*_PLACES, *_COUNTS)]
        codes += [(name, "f") for name in (*_REALS, *(f"{stage}_ms" for stage in STAGES))]
        codes += [(name, "i") for name in ("reason", "shed", "made_with", "tile_id")]
        codes += [(name, "B") for name in ("status", "mode", "prior", "deadline_missed")]
        self._columns: dict[str, array[Any]] = {name: array(code) for name, code in codes}
        self._columns["t_exposure_s"] = array("d")
        self._words: dict[str, dict[Any, int]] = {"reason": {}, "shed": {}, "made_with": {}}

    def __len__(self) -> int:
        """Count the records."""
        return len(self.names)

    def add(self, fix: Fix) -> None:
        """Take one record.

        Raises:
            InputError: a field holds what no record of ours does, or there are too many records.
        """
        row = len(self)
        if row == MOST_FRAMES:
            msg = (
                f"the log has more than {MOST_FRAMES} records, which no browser shows well; give "
                f"a part of it, as --records 0:{MOST_FRAMES}"
            )
            raise InputError(msg)
        try:
            values = self._values(fix)
            if not all(isinstance(v, str) for v in (fix.frame, *fix.events)):
                raise TypeError("a name or an event is not text")
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            msg = (
                f"record {row} is not as skyfix run writes it ({error}); copy the log again, or "
                "leave the record out"
            )
            raise InputError(msg) from error
        if not self.first_rows or fix.seq <= self._columns["seq"][-1]:
            self.first_rows.append(row)
        for name, value in values.items():
            self._columns[name].append(value)
        self.names.append(fix.frame)
        self.events += ((row, event) for event in fix.events)

    def column(self, name: str) -> "array[Any]":
        """One column, a value per row. Not to be written to; grows with `add`."""
        return self._columns[name]

    def status(self, row: int) -> Status:
        """Of one frame."""
        return STATUSES[int(self._columns["status"][row])]

    def place(self, row: int, *, look: bool = False) -> tuple[float, float] | None:
        """Latitude and longitude, degrees, of a frame or of what it looks at; None without one."""
        lat, lon = (self._columns[name][row] for name in (_PLACES[2:] if look else _PLACES[:2]))
        return None if NO_PLACE in (lat, lon) else (lat / _PER_DEGREE, lon / _PER_DEGREE)

    def effort(self, row: int) -> Effort:
        """How much was done for a frame, as `replaying.effort_of` has it."""
        windows = self._columns["windows"][row]
        shed = list(self._words["shed"])[self._columns["shed"][row]]
        return Effort(windows, windows > 0 and "refine" not in shed)

    def runs(self) -> Iterator[range]:
        """The rows of each run."""
        for first, after in zip(self.first_rows, [*self.first_rows[1:], len(self)], strict=True):
            yield range(first, after)

    def statuses(self) -> dict[Status, int]:
        """How many frames have each status; all four, in a fixed order."""
        counts = Counter(self._columns["status"])
        return {status: counts[k] for k, status in enumerate(STATUSES)}

    def made_with(self) -> list[MadeWith]:
        """Everything that answers were made with, in the order of its first use."""
        return list(self._words["made_with"])

    def to_json(self) -> dict[str, Any]:
        """For the page: columns as little-endian bytes in base64, texts each once."""
        columns = {}
        for name, column in sorted(self._columns.items()):
            data = array(column.typecode, column)
            if sys.byteorder == "big":
                data.byteswap()
            columns[name] = [_KINDS[column.typecode], b64encode(data.tobytes()).decode()]
        return {
            "frames": len(self),
            "names": self.names,
            "columns": columns,
            "reasons": list(self._words["reason"]),
            "sheds": [list(shed) for shed in self._words["shed"]],
            "made_with": [made._asdict() for made in self._words["made_with"]],
            "events": self.events,
            "first_rows": self.first_rows,
        }

    def _values(self, fix: Fix) -> dict[str, Any]:
        made_with = MadeWith(*(str(getattr(fix, name)) for name in MadeWith._fields))
        values: dict[str, Any] = {name: _place(fix, name) for name in _PLACES}
        values |= {name: _whole(getattr(fix, name)) for name in _COUNTS}
        values |= {name: _real(getattr(fix, name)) for name in _REALS}
        values |= {f"{stage}_ms": _real(fix.latency_ms.get(stage)) for stage in STAGES}
        return values | {
            "t_exposure_s": float(fix.t_exposure_s if fix.t_exposure_s is not None else math.nan),
            "tile_id": -1 if fix.tile_id is None else _whole(fix.tile_id),
            "reason": self._word("reason", str(fix.reason)),
            "shed": self._word("shed", tuple(map(str, fix.shed))),
            "made_with": self._word("made_with", made_with),
            "status": STATUSES.index(fix.status),
            "mode": MODES.index(fix.mode),
            "prior": bool(fix.prior),
            "deadline_missed": bool(fix.deadline_missed),
        }

    def _word(self, kind: str, word: Any) -> int:
        words = self._words[kind]
        return words.setdefault(word, len(words))


def table_of(fixes: Iterable[Fix]) -> FlightTable:
    """A table of records.

    Raises:
        InputError: a record is none of ours, or there are too many.
    """
    table = FlightTable()
    for fix in fixes:
        table.add(fix)
    return table


def _real(value: float | None) -> float:
    """As a column of floats takes it: NaN for None and for what is too large for one."""
    number = math.nan if value is None else float(value)
    return number if abs(number) < 1e38 else math.nan


def _whole(value: int) -> int:
    if not -(2**31) < value < 2**31:
        raise ValueError(f"{value} is not a count")
    return int(value)


def _place(fix: Fix, name: str) -> int:
    value = getattr(fix, name)
    if value is None or not math.isfinite(value):
        return NO_PLACE
    # A longitude may lie a little beyond 180 where a flight crosses the antimeridian.
    if abs(value) > (90 if "lat" in name else 200):
        raise ValueError(f"{name} is {value}")
    return round(float(value) * _PER_DEGREE)
