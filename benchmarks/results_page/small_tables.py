"""Rows of the other commands as small tables: the columns that are worth reading, or all."""

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

from benchmarks.results_page.doubts import FEWEST_CALLS, busy_machine
from benchmarks.results_page.tables import Doubts, folded, html_table
from benchmarks.results_page.written import DASH, percent, significant
from benchmarks.rows import Provenance

Row = dict[str, Any]
_MOST_COLUMNS = 14
_WIDEST = 40
"""Letters of a cell; the whole text is shown when it is pointed at."""


class _Kind(NamedTuple):
    title: str
    caption: str
    columns: tuple[str, ...]


_KINDS = {
    "end-to-end": _Kind(
        "Beside a plain loop",
        "The same photographs, from file to answer. Shares are of all frames.",
        (
            "contender", "source", "frames", "frames_per_s", "p50_ms", "p90_ms", "p99_ms", "max_ms",
            "as_fast_as_plain", "quality.answered", "quality.success", "quality.false",
            "quality.median_error_m", "load_before",
        ),
    ),
    "start-up": _Kind(
        "Start-up",
        "From starting the process; median and slowest start.",
        (
            "backend", "cache", "runs", "import_s", "first_record_s", "first_record_max_s",
            "first_ok_s", "first_ok_max_s", "frames_to_ok", "load",
        ),
    ),
    "soak": _Kind(
        "Long runs",
        "One process for the whole time; memory after settling and at the end.",
        (
            "source", "backend", "seconds", "records_per_s", "rss_first_mib", "rss_last_mib",
            "rss_peak_mib", "anonymous_last_mib", "threads", "files", "exit_status",
        ),
    ),
    "search": _Kind(
        "Search",
        "Queries in, rows out. Recall counts the true ten nearest.",
        (
            "contender", "task", "tiles", "dimensions", "queries_per_call", "p50_ms", "p99_ms",
            "cpu_p99_ms", "recall_at_10", "files_mib", "own_mib", "build_s", "stored_as", "cpu",
        ),
    ),
    "accuracy": _Kind(
        "Accuracy of flights",
        "Shares are over all attempts: an abstention is no success.",
        (
            "flight", "score", "frames", "median_error_m", "p95_error_m", "success.5", "success.20",
            "success.50", "answered", "abstained", "lost", "false_fixes", "first_ok_s",
            "within_68", "within_95", "backend",
        ),
    ),
    "flight": _Kind(
        "Flights of a made-up world",
        "Frames of each flight, and what became of them.",
        (
            "part", "name", "frames", "ok", "abstained", "degraded", "lost", "success", "false",
            "median_error_m", "p95_error_m", "first_right_s", "p50_ms", "p95_ms",
        ),
    ),
    "localisation": _Kind(
        "Localisation",
        "Over all attempts, and by whether what was known before limited the search.",
        (
            "flight", "searched", "score", "frames", "accuracy.median_error_m",
            "accuracy.p95_error_m", "accuracy.success.5", "accuracy.success.20",
            "accuracy.success.50", "accuracy.answered", "accuracy.abstained",
            "accuracy.false_fixes", "time.p50_ms", "time.p99_ms", "time.max_ms", "device", "note",
        ),
    ),
    "comparison": _Kind(
        "Before and after",
        "Medians over pairs of runs, with the 95 % interval of the change.",
        (
            "what", "metric", "pairs", "before", "after", "change", "low", "high", "tolerance",
            "p_value", "verdict",
        ),
    ),
    "stage_latency": _Kind(
        "Stages of a frame",
        "Of flights' logs; percentiles of stages do not add up.",
        (
            "flight", "stage", "time.n", "time.p50_ms", "time.p90_ms", "time.p99_ms",
            "time.max_ms", "deadline_missed",
        ),
    ),
}  # fmt: skip
_PROVENANCE = frozenset((*Provenance.__dataclass_fields__, "kind"))


def small_table(kind: str, rows: Sequence[Row]) -> str:
    """A heading and a table of all rows of one kind; every kind has one, known or not."""
    known = _KINDS.get(kind)
    paths = list(known.columns) if known else _paths(rows)
    agreed = {p: _text(_at(rows[0], p)) for p in paths if _agree(rows, p)} if len(rows) > 1 else {}
    empty = {p for p in paths if all(_at(row, p) is None for row in rows)}
    kept = [p for p in paths if p not in agreed and p not in empty] or paths[:1]
    if not known:
        kept = kept[:_MOST_COLUMNS]
    said = Doubts(kind.replace("_", "-"))
    lines = [_line(row, kept, said) for row in rows]
    head = "".join(
        f'<th scope="col"{" class=what" if _is_text(rows, p) else ""}>{escape(_name(p))}</th>'
        for p in kept
    )
    common = ", ".join(f"{_name(p)} {text}" for p, text in agreed.items() if p not in empty)
    caption = escape(known.caption if known else "")
    caption += f" All rows: {escape(common)}." if common else ""
    title = known.title if known else kind.replace("_", " ").replace("-", " ").capitalize()
    table = html_table(head, lines, caption.strip()) + said.html()
    return folded(table, title, len(rows))


def _line(row: Row, paths: Sequence[str], said: Doubts) -> str:
    marks = "".join(said.mark(d) for d in _doubts(row))
    first_number = next((p for p in paths if isinstance(_at(row, p), float)), None)
    cells = []
    for path in paths:
        value = _at(row, path)
        key = "" if value is None else escape(str(_key(value)), quote=True)
        css = ' class="what"' if isinstance(value, str) else ""
        mark = marks if path == first_number else ""
        text = _text(value)
        title = f' title="{escape(text, quote=True)}"' if len(text) > _WIDEST else ""
        cells.append(f'<td{css}{title} data-v="{key}">{escape(_cut(text))}{mark}</td>')
    return "".join(cells)


def _doubts(row: Row) -> list[str]:
    found = []
    loads = [row[name] for name in ("load", "load_before", "load_after") if name in row]
    if loads and "cores" in row and (busy := busy_machine(max(loads), row["cores"])):
        found.append(busy)
    calls = row.get("calls", row.get("timed_calls", row.get("frames")))
    if "p99_ms" in row and isinstance(calls, int) and calls < FEWEST_CALLS:
        found.append(f"Only {calls} calls were timed")
    if row.get("fallback"):
        found.append(f"Something else ran than was asked for: {row['fallback']}")
    return found


def _paths(rows: Sequence[Row]) -> list[str]:
    """Fields of an unknown kind that fit into a cell."""
    names = dict.fromkeys(name for row in rows for name in row if name not in _PROVENANCE)
    return [
        name
        for name in names
        if any(_fits(row.get(name)) for row in rows) and not name.endswith("_sha256")
    ]


def _fits(value: Any) -> bool:
    return isinstance(value, str | int | float) or _is_rate(value)


def _at(row: Row, path: str) -> Any:
    value: Any = row
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return None if value in ("", [], {}) else value


def _agree(rows: Sequence[Row], path: str) -> bool:
    first = _at(rows[0], path)
    return not isinstance(first, float) and all(_at(row, path) == first for row in rows)


def _is_rate(value: Any) -> bool:
    return isinstance(value, dict) and {"count", "n", "share"} <= set(value)


def _is_text(rows: Sequence[Row], path: str) -> bool:
    return any(isinstance(_at(row, path), str) for row in rows)


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}\N{HORIZONTAL ELLIPSIS}"


def _key(value: Any) -> Any:
    if _is_rate(value):
        return "" if value["share"] is None else value["share"]
    return value[0] if isinstance(value, list) else value


def _text(value: Any) -> str:
    if value is None:
        return DASH
    if _is_rate(value):
        return percent(value["share"])
    if isinstance(value, list) and len(value) == 3:
        return "{} ({}\N{EN DASH}{})".format(*(significant(v) for v in value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return significant(value) if isinstance(value, float) else str(value)


def _name(path: str) -> str:
    """A field's name as words, its unit kept."""
    words = path
    for group in ("quality.", "accuracy.", "time."):
        words = words.removeprefix(group)
    words = words.replace("success.", "within ").replace("_per_s", "/s")
    if words.startswith("within ") and words[7:].isdigit():
        words += " m"
    return words.replace("recall_at_10", "recall@10").replace("_", " ")
