"""From candidate tiles to positions in metres, each with the evidence for it.

Candidates that lie close together share a window of imagery. The ground view is correlated with
every window at a coarse resolution, the best are repeated at a fine one, and local features are
asked for a second opinion where the imagery is sharp enough for them.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.correlation import GreyPatch, Peak, Warp, correlate, warped
from edge_runtime.feature_agreement import PairMatcher
from edge_runtime.geodesy import distance_m
from edge_runtime.ground_view import GroundView
from edge_runtime.imagery import ImageryStore
from edge_runtime.local_features import FeatureMatcher
from edge_runtime.match_evidence import peaks_log_evidence
from edge_runtime.matches import (
    Candidate,
    Match,
    SearchRange,
    correction,
    distinct,
    placed,
    turned_offset,
    view_centre,
)

__all__ = [
    "CONTROL_POOL",
    "FEATURE_REACH_M",
    "FINE_GSD_M",
    "MERGE_M",
    "REACH_M",
    "VIEW_MARGIN",
    "Candidate",
    "Match",
    "Refiner",
    "SearchRange",
    "turned_offset",
    "view_centre",
]

U8 = npt.NDArray[np.uint8]

FINE_GSD_M = 0.75
"""Ground resolution of the fine correlation and of local features."""
COARSE_GSD_M = 2 * FINE_GSD_M
"""Ground resolution of the search over windows, headings and scales."""
VIEW_MARGIN = 1.3
"""Views are made this much larger than what is compared, so that they can be turned."""
REACH_M = 42.0
"""How far from a candidate's centre the true place is looked for."""
MERGE_M = 30.0
"""Candidates nearer than this to a better one share its window."""
_FINE_REACH_M = 6.0
FEATURE_REACH_M = 9.0
"""Features are compared within this distance: wide enough for chance to show as scatter."""
_FINE_MATCHES = 2
"""How many of the best coarse peaks are repeated at the fine resolution."""
CONTROL_POOL = 64
"""Places that controls are taken from in turn, few enough to keep their windows in memory."""


class Refiner:
    """Refines candidates against one map. Not thread-safe; one per thread."""

    def __init__(self, imagery: ImageryStore, features: PairMatcher | None = None) -> None:
        """Take the map.

        Args:
            imagery: of the map.
            features: finds local features; SIFT by default.
        """
        self._imagery = imagery
        self._features: PairMatcher = features or FeatureMatcher()
        self._controls: OrderedDict[tuple[float, float], GreyPatch] = OrderedDict()

    def refine(
        self,
        views: Sequence[GroundView],
        candidates: Sequence[Candidate],
        search: SearchRange,
        *,
        size_m: float,
        most_windows: int,
        controls: Sequence[Candidate] = (),
        reach_m: float = REACH_M,
    ) -> list[Match]:
        """Locate the views around the candidates, coarsely.

        Args:
            views: ground views made VIEW_MARGIN times larger than `size_m` at FINE_GSD_M.
            candidates: best first.
            search: headings and heights to try around each view's own.
            size_m: side of the square that is compared.
            most_windows: at most this many windows of imagery are looked at.
            controls: places where the view cannot be, which show what chance reaches; needed where
                all candidates are close together.
            reach_m: how far from a candidate's centre the true place is looked for.

        Returns:
            At most one match per window, strongest evidence first.
        """
        matches: list[Match] = []
        elsewhere: list[Match] = []
        warps = search.warps()
        reach_px = round(reach_m / COARSE_GSD_M)
        for v, group in _grouped(candidates, most_windows).items():
            own = [c._replace(view=v) for c in controls]
            found = self._coarse(views[v], group, own, warps, size_m, reach_px)
            matches += found[: len(group)]
            elsewhere += found[len(group) :]
        matches = _with_evidence(matches, elsewhere, (2 * reach_px + 1) ** 2 * len(warps))
        matches.sort(key=lambda m: -m.log_evidence)
        return matches

    def sharpened(
        self,
        views: Sequence[GroundView],
        matches: Sequence[Match],
        *,
        size_m: float,
        features: bool = True,
    ) -> list[Match]:
        """Repeat the best coarse matches at the fine resolution and ask local features.

        Args:
            views: as they were refined.
            matches: what `refine` gave.
            size_m: side of the square that is compared.
            features: whether local features are asked for a second opinion.

        Returns:
            All matches, the strongest evidence first, one per place.
        """
        sharper = list(matches)
        for k, match in enumerate(matches[:_FINE_MATCHES]):
            sharper[k] = self._fine(views[match.view], match, size_m, features=features)
        sharper.sort(key=lambda m: -m.log_evidence)
        return distinct(sharper)

    def _coarse(
        self,
        view: GroundView,
        group: Sequence[Candidate],
        controls: Sequence[Candidate],
        warps: Sequence[Warp],
        size_m: float,
        reach_px: int,
    ) -> list[Match]:
        coarse = _halved(_grey(view.image, view.mask))
        size_px = round(size_m / COARSE_GSD_M)
        window_px = size_px + 2 * reach_px
        windows = [self._window(c.lat_deg, c.lon_deg, window_px, COARSE_GSD_M) for c in group]
        full_px = size_px + 2 * max(reach_px, round(REACH_M / COARSE_GSD_M))
        edge = (full_px - window_px) // 2
        windows += [_without_edge(self._control(c, full_px), edge) for c in controls]
        every = [*group, *controls]
        peaks = correlate(coarse, windows, warps, size_px=size_px, gsd_m=COARSE_GSD_M)
        return [
            placed(view, every[p.window], p, gsd_m=COARSE_GSD_M, sigma_m=_COARSE_SIGMA_M)
            for p in peaks
        ]

    def _control(self, place: Candidate, size_px: int) -> GreyPatch:
        """The widest window of a place that comes again every few seconds, mostly from memory.

        Always the widest and cut to size afterwards, so that what is in memory changes no pixel.
        """
        key = place.lat_deg, place.lon_deg
        kept = self._controls.get(key)
        if kept is None or len(kept.image) != size_px:
            kept = self._controls[key] = self._window(*key, size_px, COARSE_GSD_M)
            if len(self._controls) > CONTROL_POOL:
                self._controls.popitem(last=False)
        return kept

    def _fine(self, view: GroundView, match: Match, size_m: float, *, features: bool) -> Match:
        nominal = correction(view, match)
        warps = [
            Warp(yaw_deg=nominal.yaw_deg + dy, scale=nominal.scale * ds)
            for dy, ds in ((0, 1), (-2, 1), (2, 1), (0, 0.98), (0, 1.02))
        ]
        centre = view_centre(view, match)
        size_px = round(size_m / FINE_GSD_M)
        window_px = size_px + 2 * round(_FINE_REACH_M / FINE_GSD_M)
        window = self._window(*centre, window_px, FINE_GSD_M)
        patch = _grey(view.image, view.mask)
        peaks = correlate(patch, [window], warps, size_px=size_px, gsd_m=FINE_GSD_M)
        if not peaks:
            return match
        candidate = Candidate(*centre, match.view, match.similarity, match.row)
        # The fine window is too small to tell chance from agreement: z stays the coarse one.
        peak = replace(peaks[0], z=match.z)
        fine = placed(view, candidate, peak, gsd_m=FINE_GSD_M, sigma_m=_FINE_SIGMA_M)
        fine = replace(fine, log_evidence=match.log_evidence)
        return self._ask_features(view, fine, size_px) if features else fine

    def _ask_features(self, view: GroundView, match: Match, size_px: int) -> Match:
        nominal = correction(view, match)
        centre = view_centre(view, match)
        turned = warped(_grey(view.image, view.mask), nominal, size_px)
        found = self._features.match(
            turned,
            self._window(*centre, size_px, FINE_GSD_M),
            reach_px=FEATURE_REACH_M / FINE_GSD_M,
        )
        if found is None:
            return match
        peak = Peak(
            window=0,
            warp=Warp(yaw_deg=nominal.yaw_deg + found.yaw_deg, scale=nominal.scale * found.scale),
            row=found.row,
            column=found.column,
            ncc=match.ncc,
            z=match.z,
        )
        candidate = Candidate(*centre, match.view, match.similarity, match.row)
        sharper = placed(view, candidate, peak, gsd_m=FINE_GSD_M, sigma_m=_FEATURE_SIGMA_M)
        return replace(
            sharper,
            inliers=found.inliers,
            reprojection_px=found.reprojection_px,
            log_evidence=match.log_evidence + min(found.log_evidence, _MAX_FEATURE_LOG_EVIDENCE),
        )

    def _window(self, lat_deg: float, lon_deg: float, size_px: int, gsd_m: float) -> GreyPatch:
        patch = self._imagery.patch(lat_deg, lon_deg, size_m=size_px * gsd_m, size_px=size_px)
        return _grey(patch.image, patch.mask)


_FINE_SIGMA_M = 1.5
_COARSE_SIGMA_M = 2 * _FINE_SIGMA_M
_FEATURE_SIGMA_M = 1.0
_MAX_FEATURE_LOG_EVIDENCE = 10.0


def _with_evidence(matches: Sequence[Match], controls: Sequence[Match], tried: int) -> list[Match]:
    everywhere = [*matches, *controls]
    judged = peaks_log_evidence(
        [m.lat_deg for m in everywhere],
        [m.lon_deg for m in everywhere],
        [m.z for m in everywhere],
        tried=tried,
    )
    return [replace(m, log_evidence=e) for m, e in zip(matches, judged, strict=False)]


def _without_edge(patch: GreyPatch, edge_px: int) -> GreyPatch:
    middle = slice(edge_px, len(patch.image) - edge_px)
    return GreyPatch(patch.image[middle, middle], patch.mask[middle, middle])


def _grouped(candidates: Sequence[Candidate], most: int) -> dict[int, list[Candidate]]:
    """Drop candidates whose window a better one of the same view already has; group by view."""
    kept: list[Candidate] = []
    for candidate in candidates:
        if len(kept) == most:
            break
        near = (
            k.view == candidate.view
            and float(distance_m(k.lat_deg, k.lon_deg, candidate.lat_deg, candidate.lon_deg))
            < MERGE_M
            for k in kept
        )
        if not any(near):
            kept.append(candidate)
    groups: dict[int, list[Candidate]] = {}
    for candidate in kept:
        groups.setdefault(candidate.view, []).append(candidate)
    return groups


def _grey(rgb: U8, mask: U8) -> GreyPatch:
    return GreyPatch(np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8), mask)


def _halved(patch: GreyPatch) -> GreyPatch:
    """Half the resolution, area-averaged; valid only where all four pixels were."""
    size = (patch.image.shape[1] // 2, patch.image.shape[0] // 2)
    image = cv2.resize(patch.image, size, interpolation=cv2.INTER_AREA)
    mask = cv2.resize(patch.mask, size, interpolation=cv2.INTER_AREA)
    return GreyPatch(
        np.asarray(image, np.uint8), np.where(np.asarray(mask) == 255, 255, 0).astype(np.uint8)
    )
