"""Which rows of two files measured the same thing, run by run."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from edge_runtime.errors import InputError

Row: TypeAlias = Mapping[str, Any]
Key: TypeAlias = tuple[tuple[str, str], ...]
"""(field, value) of what was measured; never when, where, by which commit or how fast."""


class Unit(NamedTuple):
    """What pairs two rows of one key."""

    name: str
    """Of the flight, where flights are repeated."""
    run: int
    times: int
    """Rows of the same before it."""


KEY_FIELDS: dict[str, tuple[str, ...]] = {
    "measurement": (
        "protocol", "encoder", "runtime", "precision", "batch", "height_px", "width_px", "threads",
    ),
    "stage_latency": ("flight", "stage", "backend"),
    "localisation": ("searched", "score"),
    "training-speed": (
        "what", "architecture", "size_px", "pairs", "recipe", "precision", "threads",
    ),
    "end-to-end": ("contender", "source", "backend"),
    "flight": ("part",),
    "loading": ("recipe", "source_px", "encoder_px"),
    "search": (
        "contender", "task", "tiles", "dimensions", "stored_as", "queries_per_call", "vectors",
    ),
}  # fmt: skip
"""What makes rows of a kind comparable. Rows of other kinds are left out."""
UNIT_FIELDS: dict[str, tuple[str, ...]] = {"localisation": ("flight",), "flight": ("name",)}
"""What is repeated besides runs: flights are as independent as runs, frames of one are not."""
ANY_PRECISION = "any"
"""In a row of what could not run: the runtime's own choice was asked for."""
_SAME_MACHINE = ("cpu", "cores", "gpu", "power_mode")
_WHAT_RAN = ("provider", "library", "model_sha256", "fallback")
"""May well be what was changed on purpose; said where it differs, because names do not show it."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Rows of one key, pair by pair."""

    key: Key
    before: tuple[Row, ...]
    after: tuple[Row, ...]
    unpaired: int
    """Rows without a partner; not used."""
    notes: tuple[str, ...]
    """What else differs, or makes the pairs less than independent."""


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two files, matched."""

    pairs: tuple[Pairs, ...]
    gone: tuple[str, ...]
    """Measured before and not after."""
    new: tuple[str, ...]
    """Measured after and not before."""
    not_run: tuple[str, ...]
    """Measured before; after, the machine could not, with its reason."""
    left_out: tuple[str, ...]
    """Kinds of rows that have nothing to compare."""


def comparison_key(row: Row) -> Key | None:
    """What a row measured, its kind first; None for kinds that are not compared."""
    kind = str(row["kind"])
    if kind not in KEY_FIELDS:
        return None
    fields = KEY_FIELDS[kind]
    if row.get("flight") == "all" and "flight" not in fields:
        fields = (*fields, "flight")  # Several flights together are no flight among others.
    return (("kind", kind), *((name, _text(row.get(name))) for name in fields))


def label_of(key: Key) -> str:
    """A key in one line."""
    value = dict(key)
    if value["kind"] != "measurement":
        return ", ".join(text for _, text in key)
    return (
        f"{value['encoder']} {value['runtime']} {value['precision']}, batch {value['batch']}, "
        f"{value['height_px']}x{value['width_px']} px, threads {value['threads']}, "
        f"{value['protocol']}"
    )


def machine_of(row: Row) -> dict[str, str]:
    """The machine as far as speed depends on it, by field; those that the row has."""
    machine = row.get("machine")
    if isinstance(machine, Mapping):
        return {name: _text(machine.get(name)) for name in _SAME_MACHINE}
    return {name: _text(row[name]) for name in ("device", "cpu") if row.get(name)}


def pair_rows(
    before: Sequence[Row], after: Sequence[Row], *, other_machine: bool = False
) -> Paired:
    """Match rows by what they measured, by run and, where there are several, by flight.

    Rows of one run that measured the same thing twice are matched in their order.

    Args:
        before: rows of the one file.
        after: rows of the other.
        other_machine: compare rows of different machines too.

    Raises:
        InputError: nothing was measured in both, or on different machines.
    """
    old, new = _by_key(before), _by_key(after)
    common = [key for key in old if key in new]
    if not common:
        first = [label_of(next(iter(rows))) if rows else "nothing" for rows in (old, new)]
        msg = (
            f"nothing was measured in both files (before: {first[0]}; after: {first[1]}); expected "
            "rows of the same command with the same encoders, runtimes and sizes"
        )
        raise InputError(msg)
    if not other_machine:
        for key in common:
            _require_one_machine(key, [*old[key].values(), *new[key].values()])
    failed = [row for row in after if row["kind"] == "not_run"]
    gone = {key: _reason(dict(key), failed) for key in old if key not in new}
    return Paired(
        pairs=tuple(_pairs_of(key, old[key], new[key]) for key in common),
        gone=tuple(label_of(key) for key, why in gone.items() if why is None),
        new=tuple(label_of(key) for key in new if key not in old),
        not_run=tuple(f"{label_of(key)}: {why}" for key, why in gone.items() if why is not None),
        left_out=tuple(
            sorted({str(r["kind"]) for r in (*before, *after)} - {*KEY_FIELDS, "not_run"})
        ),
    )


def _by_key(rows: Sequence[Row]) -> dict[Key, dict[Unit, Row]]:
    found: dict[Key, dict[Unit, Row]] = defaultdict(dict)
    for row in rows:
        key = comparison_key(row)
        if key is None:
            continue
        name = " ".join(_text(row.get(field)) for field in UNIT_FIELDS.get(str(row["kind"]), ()))
        run = int(row.get("run") or 0)
        times = sum(unit[:2] == (name, run) for unit in found[key])
        found[key][Unit(name, run, times)] = row
    return found


def _pairs_of(key: Key, old: Mapping[Unit, Row], new: Mapping[Unit, Row]) -> Pairs:
    both = [unit for unit in old if unit in new]
    before, after = tuple(old[unit] for unit in both), tuple(new[unit] for unit in both)
    notes = []
    for field in _WHAT_RAN:
        ran = [sorted({_text(row.get(field))[:40] for row in rows}) for rows in (before, after)]
        if ran[0] != ran[1]:
            notes.append(f"{field}: before {', '.join(ran[0])}; after {', '.join(ran[1])}")
    if not _in_turn(before, after):
        notes.append("not measured in turn: what changed with time counts as a difference")
    return Pairs(
        key=key,
        before=before,
        after=after,
        unpaired=len(old) + len(new) - 2 * len(both),
        notes=tuple(notes),
    )


def _in_turn(before: Sequence[Row], after: Sequence[Row]) -> bool:
    """Whether neither file was measured wholly before the other."""
    if len(before) < 2:
        return True
    times = [[str(row["measured_utc"]) for row in rows] for rows in (before, after)]
    return not (max(times[0]) < min(times[1]) or max(times[1]) < min(times[0]))


def _require_one_machine(key: Key, rows: Sequence[Row]) -> None:
    seen: dict[str, list[str]] = {}
    for row in rows:
        for field, value in machine_of(row).items():
            values = seen.setdefault(field, [])
            if value not in values:
                values.append(value)
    for field, values in seen.items():
        if len(values) > 1:
            msg = (
                f"{label_of(key)} was measured on different machines ({field}: "
                f"{' and '.join(values)}); expected one. Measure both again on one machine, or "
                "give --other-machine"
            )
            raise InputError(msg)


def _reason(key: Mapping[str, str], failed: Sequence[Row]) -> str | None:
    """Why a key was not measured again; None where no row says."""
    for row in failed:
        same = all(
            _text(row.get(name)) == key.get(name) for name in ("encoder", "runtime", "batch")
        )
        # A runtime that does not open has not chosen a precision yet.
        if same and row["precision"] in (key["precision"], ANY_PRECISION):
            return str(row["reason"])
    return None


def _text(value: object) -> str:
    return "-" if value is None else str(value)
