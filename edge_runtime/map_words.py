"""What is known of a map, in words on standard output."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_runtime.map_places import GroundSummary
    from edge_runtime.route_check import RouteReport

_MOST_STRETCHES = 12


def say(text: str) -> None:
    """Write one line."""
    sys.stdout.write(text + "\n")


def tell_summary(summary: "GroundSummary") -> None:
    """A map in a few lines."""
    part = "" if summary.share_of_tiles == 1 else f" ({summary.share_of_tiles:.1%} of them, evenly)"
    known = "anywhere on the map" if summary.within_m is None else f"within {summary.within_m:g} m"
    say(
        f"{summary.tiles} places{part}, {summary.draws} views of each at likeness "
        f"{summary.likeness:g}, taken for ground farther than {summary.far_m:g} m {known}:"
    )
    say(
        f"  chance {summary.chance_mean:.0%} on average; {summary.chance_p10:.0%} to "
        f"{summary.chance_p90:.0%} for the middle four fifths"
    )
    for name, share in summary.shares.items():
        say(f"  {name:<12} {share:6.1%} of the ground")
    say("Worst places, and what each looks like most:")
    for n, w in enumerate(summary.worst, 1):
        other = (
            "nothing far enough"
            if w.look_alike_m is None
            else f"{w.look_alike_lat_deg:.6f}, {w.look_alike_lon_deg:.6f}, {w.look_alike_m:.0f} m "
            f"away, similarity {w.look_alike_similarity:.2f}"
        )
        say(f"  {n}. {w.lat_deg:.6f}, {w.lon_deg:.6f}: {w.chance:.0%}; {other}")


def tell_route(report: "RouteReport") -> None:
    """A route in a few lines, and its longest stretches without a position."""
    from edge_runtime.route_check import LOST

    heights = (
        "heights not given"
        if report.height_m is None
        else f"heights {report.height_m[0]:g} to {report.height_m[1]:g} m in the file"
    )
    say(f"Route of {report.length_m / 1000:.2f} km, {heights}:")
    for ground, metres in sorted(report.metres.items(), key=lambda kv: -kv[1]):
        say(f"  {ground:<12} {metres:8.0f} m  {metres / report.length_m:6.1%}")
    lost = sorted((s for s in report.stretches if s.ground in LOST), key=lambda s: -s.length_m)
    for s in sorted(lost[:_MOST_STRETCHES], key=lambda s: s.start_m):
        say(
            f"  km {s.start_m / 1000:.3f} to {s.end_m / 1000:.3f}: {s.length_m:.0f} m {s.ground}, "
            f"{s.start_lat_deg:.6f}, {s.start_lon_deg:.6f} to "
            f"{s.end_lat_deg:.6f}, {s.end_lon_deg:.6f}"
        )
    if len(lost) > _MOST_STRETCHES:
        say(f"  and {len(lost) - _MOST_STRETCHES} shorter ones: all are in --json and --geojson")
    say(
        f"Lost on {report.lost_m:.0f} m ({report.lost_share:.0%}); the longest stretch is "
        f"{report.longest_lost_m:.0f} m, from km {(report.longest_lost_start_m or 0) / 1000:.3f}."
        if lost
        else "A position can be had all along."
    )


def route_json(report: "RouteReport") -> dict[str, Any]:
    """A route's report as plain JSON values."""
    return asdict(report) | {"lost_share": report.lost_share}
