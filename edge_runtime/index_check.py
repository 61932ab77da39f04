"""What an index holds and whether it is fit to fly: everything the folder itself can say."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edge_runtime.bundle import Bundle
from edge_runtime.errors import IndexFolderError
from edge_runtime.index_format import MARK_FEATURELESS, MARK_PARTIAL
from edge_runtime.map_coverage import Coverage, coverage, resolution_shares
from edge_runtime.satellite_index import SatelliteIndex

Verdict = Literal["good", "note", "bad"]
"""`note` is for the pilot to know; `bad` is not to be flown."""

UNKNOWN = "unknown"
OLD_YEARS = 3.0
"""Imagery older than this is worth a note: roads and buildings have changed."""
HOLE_NOTE_SHARE = 0.01
"""A hole of this share of the outline is worth a note."""
LOW_RECALL = 0.99
"""Least share of the true nearest tiles that a search should return (docs/search.md)."""
_GONE_BLURRED_PX = 150
"""Pixels of imagery across a tile below which most encoders are given a blurred picture."""


@dataclass(frozen=True, kw_only=True)
class IndexFinding:
    """One thing that was looked at."""

    verdict: Verdict
    what: str
    detail: str
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class IndexCheck:
    """What was found."""

    findings: tuple[IndexFinding, ...]
    values: dict[str, Any]
    """The same for programs: plain JSON values, units in the names."""

    @property
    def fit_to_fly(self) -> bool:
        """Whether nothing is `bad`."""
        return all(f.verdict != "bad" for f in self.findings)


def check_index(root: Path, bundle: Bundle | None = None) -> IndexCheck:
    """Verify every byte of an index and measure what it holds.

    Args:
        root: the folder.
        bundle: the encoder that will fly.

    Raises:
        IndexFolderError: missing, altered or inconsistent, so nothing in it can be believed.
    """
    index = SatelliteIndex.open(root, verify=True)
    try:
        return _check(index, bundle)
    finally:
        index.close()


def _check(index: SatelliteIndex, bundle: Bundle | None) -> IndexCheck:
    first = index.level
    ground = coverage(index.tiles[first.first_row : first.row_range.stop], first)
    size_mb = {
        name: (index.root / name).stat().st_size / 1e6 for name in sorted(index.manifest.files)
    }
    total_mb = sum(size_mb.values())
    bounds = index.imagery.bounds
    gsd_m = index.imagery.gsd_m((bounds.south_deg + bounds.north_deg) / 2)
    per_km2 = total_mb / (ground.covered_m2 / 1e6)
    files = IndexFinding(
        verdict="good",
        what="files",
        detail=f"{len(size_mb)} files as they were written, index {index.id}, made by "
        f"{index.manifest.made_by} at {index.manifest.created_utc}",
    )
    size = IndexFinding(
        verdict="good",
        what="size",
        detail=f"{total_mb:.1f} MB, {per_km2:.1f} MB/km2: "
        + ", ".join(f"{name} {mb:.1f}" for name, mb in size_mb.items()),
    )
    marks, mark_shares = _marks(index)
    findings = (
        files,
        *_encoder(index, bundle),
        *_coverage(ground),
        *_resolution(index, gsd_m),
        *_sources(index),
        *_levels(index),
        _search(index),
        marks,
        size,
    )
    values: dict[str, Any] = {
        "id": index.id,
        "encoder": str(index.manifest.meta.get("architecture", UNKNOWN)),
        "tiles": len(index),
        "covered_m2": round(ground.covered_m2),
        "outline_m2": round(ground.outline_m2),
        "covered_share": round(ground.share, 6),
        "holes": [
            {
                "area_m2": round(h.area_m2),
                "share": round(h.area_m2 / ground.outline_m2, 6),
                "lat_deg": h.lat_deg,
                "lon_deg": h.lon_deg,
            }
            for h in ground.holes
        ],
        "gsd_m": round(gsd_m, 4),
        "resolution": [
            {"gsd_m": gsd, "share": round(share, 6)} for gsd, share in _resolution_shares(index)
        ],
        "south_deg": bounds.south_deg,
        "west_deg": bounds.west_deg,
        "north_deg": bounds.north_deg,
        "east_deg": bounds.east_deg,
        "levels": index.manifest.meta["levels"],
        "sources": index.manifest.meta.get("sources", []),
        "search": index.manifest.meta.get("search"),
        "mark_shares": mark_shares,
        "size_mb": {name: round(mb, 3) for name, mb in size_mb.items()},
        "total_mb": round(total_mb, 3),
        "mb_per_km2": round(per_km2, 3),
    }
    return IndexCheck(findings=findings, values=values)


def _encoder(index: SatelliteIndex, bundle: Bundle | None) -> tuple[IndexFinding, ...]:
    name = str(index.manifest.meta.get("architecture", UNKNOWN))
    size = index.embeddings.shape[1]
    if bundle is None:
        return (
            IndexFinding(
                verdict="note",
                what="encoder",
                detail=f"{name}, {size} numbers an embedding; not compared with a bundle",
                remedy="give the encoder that will fly with --bundle",
            ),
        )
    try:
        index.check_bound_to(bundle)
    except IndexFolderError as error:
        seen, _, remedy = str(error).partition(". ")
        return (IndexFinding(verdict="bad", what="encoder", detail=seen, remedy=remedy),)
    detail = f"{name}, {size} numbers an embedding: made by bundle {bundle.id}'s encoder"
    return (IndexFinding(verdict="good", what="encoder", detail=detail),)


def _coverage(ground: Coverage) -> tuple[IndexFinding, ...]:
    detail = (
        f"{_area(ground.covered_m2)} covered, {ground.share:.1%} of its outline "
        f"(seen in squares of {ground.cell_m:.3g} m)"
    )
    if not ground.holes:
        return (IndexFinding(verdict="good", what="coverage", detail=f"{detail}, no holes"),)
    largest = ground.holes[0]
    share = largest.area_m2 / ground.outline_m2
    many = f"{len(ground.holes)}{' or more' if len(ground.holes) >= 20 else ''}"
    finding = IndexFinding(
        verdict="note" if share >= HOLE_NOTE_SHARE else "good",
        what="coverage",
        detail=f"{detail}; {many} holes, the largest {_area(largest.area_m2)} ({share:.1%}) "
        f"around {largest.lat_deg:.6f}, {largest.lon_deg:.6f}",
        remedy="add imagery there, or plan routes around it: skyfix index route"
        if share >= HOLE_NOTE_SHARE
        else "",
    )
    return (finding,)


def _resolution(index: SatelliteIndex, gsd_m: float) -> tuple[IndexFinding, ...]:
    across = index.level.size_m / gsd_m
    sources = [s for s in index.manifest.meta.get("sources", []) if "gsd_m" in s]
    coarsest = max((float(s["gsd_m"]) for s in sources), default=gsd_m)
    detail = f"{gsd_m:.3f} m/px, {across:.0f} px across a tile of {index.level.size_m:g} m"
    if len(sources) > 1:
        detail += "; sources " + ", ".join(f"{s['name']} {s['gsd_m']:g} m/px" for s in sources)
    shares = _resolution_shares(index)
    if len(shares) > 1:
        detail += "; " + ", ".join(f"{gsd:g} m/px on {share:.0%}" for gsd, share in shares)
    blurred = index.level.size_m / coarsest < _GONE_BLURRED_PX
    return (
        IndexFinding(
            verdict="note" if blurred else "good",
            what="resolution",
            detail=detail,
            remedy=f"where a tile has fewer than {_GONE_BLURRED_PX} px it is a blurred picture: "
            "give larger tiles with --tile-m, or finer imagery"
            if blurred
            else "",
        ),
    )


def _resolution_shares(index: SatelliteIndex) -> tuple[tuple[float, float], ...]:
    sources = index.manifest.meta.get("sources", [])
    return resolution_shares(index.tiles[: index.level.rows], sources)


def _sources(index: SatelliteIndex) -> tuple[IndexFinding, ...]:
    sources = index.manifest.meta.get("sources", [])
    if not sources:
        return (
            IndexFinding(
                verdict="note",
                what="imagery",
                detail="nothing is recorded of where it comes from",
                remedy="make the index again from the imagery: python -m export index",
            ),
        )
    findings = []
    for source in sources:
        said = source | source.get("provenance", {})
        known = {
            name: str(said.get(name) or UNKNOWN) for name in ("captured", "attribution", "licence")
        }
        age = _age_years(known["captured"])
        remedies = []
        if age is not None and age > OLD_YEARS:
            remedies.append("look for newer imagery: roads and buildings will have changed")
        missing = [name for name, value in known.items() if value == UNKNOWN]
        if missing:
            remedies.append(f"find out {', '.join(missing)} before relying on it or passing it on")
        old = "" if age is None else f" ({age:.1f} years ago)"
        findings.append(
            IndexFinding(
                verdict="note" if remedies else "good",
                what="imagery",
                detail=f"{source.get('name', UNKNOWN)}: captured {known['captured']}{old}, "
                f"by {known['attribution']}, licence {known['licence']}",
                remedy="; ".join(remedies),
            )
        )
    return tuple(findings)


def _age_years(captured: str) -> float | None:
    """Years since a date's end, as 2023, 2023-06, 2023-06-30 or the last of a span; else None."""
    captured = captured.rpartition("/")[2]
    for form, months in (("%Y-%m-%d", 0), ("%Y-%m", 1), ("%Y", 12)):
        try:
            then = time.strptime(captured[:10] if form == "%Y-%m-%d" else captured, form)
        except ValueError:
            continue
        year = then.tm_year + (then.tm_yday / 365.25) + months / 12
        now = time.gmtime()
        return max(0.0, now.tm_year + now.tm_yday / 365.25 - year)
    return None


def _levels(index: SatelliteIndex) -> tuple[IndexFinding, ...]:
    return tuple(
        IndexFinding(
            verdict="good",
            what="tiles",
            detail=f"level {n}: {level.rows // len(level.headings_deg)} tiles of "
            f"{level.size_m:g} m every {level.stride_m:g} m, {len(level.headings_deg)} "
            f"heading{'s' if len(level.headings_deg) > 1 else ''}",
        )
        for n, level in enumerate(index.levels)
    )


def _search(index: SatelliteIndex) -> IndexFinding:
    plan = index.plan
    how = f"{plan.kind} over {plan.dtype}"
    if plan.recall_at_10 is None:
        return IndexFinding(
            verdict="note",
            what="search",
            detail=f"{how}; its recall was never measured",
            remedy="make the index again to have it measured: python -m export index",
        )
    low = plan.recall_at_10 < LOW_RECALL
    return IndexFinding(
        verdict="note" if low else "good",
        what="search",
        detail=f"{how}: recall@10 {plan.recall_at_10:.2%} of {plan.queries} queries",
        remedy="true tiles will be missed; make the index again with finer vectors or a higher "
        "--min-recall"
        if low
        else "",
    )


def _marks(index: SatelliteIndex) -> tuple[IndexFinding, dict[str, float]]:
    marks = np.asarray(index.tiles["marks"])
    bare, partial = (float(np.mean(marks & bit > 0)) for bit in (MARK_FEATURELESS, MARK_PARTIAL))
    finding = IndexFinding(
        verdict="note" if bare > 0.1 else "good",
        what="marks",
        detail=f"{bare:.1%} of tiles featureless, {partial:.1%} without imagery in part",
        remedy="no position can be had over featureless ground: skyfix index route says for how "
        "long"
        if bare > 0.1
        else "",
    )
    return finding, {"featureless": round(bare, 6), "partial": round(partial, 6)}


def _area(area_m2: float) -> str:
    return f"{area_m2 / 1e6:.2f} km2" if area_m2 >= 1e5 else f"{area_m2:.0f} m2"
