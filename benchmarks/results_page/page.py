"""Results as one HTML page that needs nothing but itself."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.machine import Machine
from benchmarks.results_page import charts, tables
from benchmarks.results_page.doubts import doubts
from benchmarks.results_page.small_tables import small_table
from benchmarks.results_page.sources import Measured, Results, machine_name
from benchmarks.results_page.style import POLICY, SCRIPT, STYLE
from benchmarks.results_page.timeline import TimedFlight, flight_figures
from benchmarks.results_page.written import DASH, plural, significant

_ORDER = (
    "search", "comparison", "localisation", "accuracy", "end-to-end", "start-up", "soak",
    "stage_latency",
)  # fmt: skip


def page(
    results: Results, flights: Sequence[TimedFlight] = (), *, title: str, command_line: str = ""
) -> str:
    """The whole page.

    Args:
        results: rows.
        flights: drawn over time.
        title: headline.
        command_line: how the page was made.
    """
    parts = [
        _header(results, flights, title),
        _measurements(results),
        _gaps(results),
        *_others(results),
        _flights(flights),
        _provenance(results, command_line),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{_join(parts)}\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def doubtful(measured: Iterable[Measured]) -> list[Measured]:
    """Measurements that a reader should not take at their word."""
    return [m for m in measured if doubts(m.row)]


def _header(results: Results, flights: Sequence[TimedFlight], title: str) -> str:
    rows = sum(f.rows for f in results.files)
    where = f" on {'; '.join(results.machines)}" if results.machines else ""
    lead = f"{plural(rows, 'row')} of {plural(len(results.files), 'file')}{where}."
    if flights:
        lead += f" {plural(len(flights), 'flight')} over time."
    lead += " Numbers to doubt are marked, with the reason under their table."
    heading = f"<header><h1>{escape(title)}</h1><p>{escape(lead)}</p></header>"
    return f"{heading}<main>{_tiles(results)}"


def _tiles(results: Results) -> str:
    measured = results.measured
    if not measured:
        return ""
    fastest = min(measured, key=lambda m: m.row.time.p50_ms)
    encoders = len({m.row.encoder for m in measured})
    runtimes = len({m.row.runtime for m in measured})
    found = [
        (
            "Measurements",
            str(len(measured)),
            f"{plural(encoders, 'encoder')}, {plural(runtimes, 'runtime')}",
        ),
        (
            "Fastest",
            f"{significant(fastest.row.time.p50_ms)} ms",
            f"{fastest.row.encoder}, {fastest.row.runtime} {fastest.row.precision}, "
            f"batch {fastest.row.batch}",
        ),
    ]
    limited = [m for m in measured if m.row.limit is not None and m.row.limit.ratio <= 1]
    if limited:
        nearest = max(limited, key=lambda m: m.row.limit.ratio if m.row.limit else 0)
        ratio = nearest.row.limit.ratio if nearest.row.limit else 0
        found.append(
            (
                "Nearest its limit",
                f"{100 * ratio:.0f} %",
                f"{nearest.row.encoder}, {nearest.row.runtime} {nearest.row.precision}",
            )
        )
    doubted = len(doubtful(measured))
    gaps = plural(len(results.not_run), "measurement")
    found.append(("To doubt", str(doubted), f"rows; {gaps} not possible here"))
    cells = "".join(
        f'<div class="tile"><dt>{escape(name)}</dt><dd><b>{escape(value)}</b>'
        f"<span>{escape(note)}</span></dd></div>"
        for name, value, note in found
    )
    return f'<dl class="tiles">{cells}</dl>'


def _measurements(results: Results) -> str:
    measured = results.measured
    if not measured:
        return ""
    skipped = list(
        dict.fromkeys(
            m.row.energy.skipped for m in measured if m.row.energy.joules_per_call is None
        )
    )
    energy = "".join(
        f"<p><small>Energy was not measured: {escape(reason.rstrip('.'))}.</small></p>"
        for reason in skipped
        if reason
    )
    quality = charts.qualities(measured)
    shown = (
        f"<section><h2>Quality over time</h2><p>Up and to the left is better. Batch 1.</p>{quality}"
        "</section>"
        if quality
        else ""
    )
    return (
        f"<section><h2>Measurements</h2>{tables.measurements(measured)}{energy}"
        f"{tables.steadiness(measured)}{tables.stages(measured)}</section>{shown}"
        "<section><h2>Times of all calls</h2><p>Every call, the slow ones included: the scale "
        "stretches the tail. Dots are the slowest calls, diamonds the very first ones, arrows "
        "those that are far beyond. Median, slowest and first in ms.</p>"
        f"{charts.distributions(measured)}</section>"
    )


def _gaps(results: Results) -> str:
    if not results.not_run:
        return ""
    return f"<section><h2>What was not measured</h2>{tables.not_run(results.not_run)}</section>"


def _others(results: Results) -> list[str]:
    kinds = [k for k in _ORDER if k in results.others]
    kinds += sorted(set(results.others) - set(_ORDER))
    parts = []
    if "search" in kinds:
        rows = results.others["search"]
        parts.append(
            f"<section><h2>Search: recall over time</h2>{charts.searches(rows)}"
            f"{small_table('search', rows)}</section>"
        )
        kinds.remove("search")
    rest = "".join(small_table(kind, results.others[kind]) for kind in kinds)
    heading = "Flights and everything around them"
    return [*parts, f"<section><h2>{heading}</h2>{rest}</section>" if rest else ""]


def _flights(flights: Sequence[TimedFlight]) -> str:
    if not flights:
        return ""
    return f"<section><h2>Flights over time</h2>{''.join(map(flight_figures, flights))}</section>"


def _provenance(results: Results, command_line: str) -> str:
    rows = [m.row for m in results.measured]
    everything: list[dict[str, Any]] = [r for found in results.others.values() for r in found]
    commits = [r.git_commit for r in (*rows, *results.not_run)]
    commits += [r.get("git_commit") for r in everything]
    times = [r.measured_utc for r in (*rows, *results.not_run)]
    times += [str(r.get("measured_utc")) for r in everything]
    named = list(dict.fromkeys(c or "no checkout" for c in commits))
    entries = [
        ("Measured", f"{min(times)} to {max(times)}" if times else DASH),
        ("Commits", ", ".join(named) + _modified(named)),
        *(("Machine", text) for text in _machines([m.row.machine for m in results.measured])),
    ]
    listed = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in entries)
    files = "".join(
        f"<div><dt>{escape(_short(f.path))}</dt><dd>{plural(f.rows, 'row')}"
        + (f"<pre><code>{escape(f.command)}</code></pre>" if f.command else "")
        + "</dd></div>"
        for f in results.files
    )
    own = f"<pre><code>{escape(command_line)}</code></pre>" if command_line else ""
    return (
        f"</main><footer><h2>Where this comes from</h2><dl>{listed}{files}</dl>"
        f"{'<p>This page:</p>' + own if own else ''}</footer>"
    )


def _short(path: Path) -> str:
    """A file and its folder: enough to tell files of one name apart."""
    return "/".join(path.parts[-2:])


def _modified(commits: Sequence[str]) -> str:
    return " (+: the checkout had changes)" if any(c.endswith("+") for c in commits) else ""


def _machines(machines: Sequence[Machine]) -> list[str]:
    """Each machine once, with the states it was seen in."""
    groups: dict[str, list[Machine]] = {}
    for machine in machines:
        groups.setdefault(machine_name(machine), []).append(machine)
    found = []
    for name, seen in groups.items():
        first = seen[0]
        parts = [name, f"{first.memory_mib / 1024:.0f} GiB", first.system, f"Python {first.python}"]
        if first.gpu_driver:
            parts.append(f"driver {first.gpu_driver}")
        if first.power_mode:
            parts.append(f"power mode {first.power_mode}")
        parts.append(_range("load before", [m.load_1min for m in seen], ""))
        others = [m.others_cores for m in seen if m.others_cores is not None]
        if others:
            parts.append(_range("other programs used", others, "cores"))
        for of in ("clocks_mhz", "temperatures_c"):
            unit = "MHz" if of == "clocks_mhz" else "\N{DEGREE SIGN}C"
            for sensor in dict.fromkeys(s for m in seen for s in getattr(m, of)):
                values = [getattr(m, of)[sensor] for m in seen if sensor in getattr(m, of)]
                parts.append(_range(sensor, values, unit))
        libraries: dict[str, list[str]] = {}
        for m in seen:
            for library, version in m.libraries.items():
                if version not in libraries.setdefault(library, []):
                    libraries[library].append(version)
        parts.append(", ".join(f"{k} {'/'.join(v)}" for k, v in libraries.items()))
        found.append("; ".join(p for p in parts if p))
    return found


def _range(name: str, values: Sequence[float], unit: str) -> str:
    low, high = min(values), max(values)
    text = f"{low:.4g}" if low == high else f"{low:.4g}{DASH}{high:.4g}"
    return f"{name} {text} {unit}".strip()


def _join(parts: Iterable[str]) -> str:
    return "\n".join(part for part in parts if part)
