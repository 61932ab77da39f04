"""Where the drone is, over time: several hypotheses that compete until one explains everything.

Each hypothesis is a Kalman filter on position and velocity with a weight. A frame's matches
multiply weights by how much better a hypothesis explains them than chance does; what no hypothesis
explains feeds new ones, from a reserve of belief that the drone is somewhere else altogether.
Off the map nothing agrees, and the longer nothing does the more it takes to be believed again.
The tracker therefore starts from nothing, survives wrong matches, notices that it was wrong, and
starts again, by one rule. (Multiple-hypothesis tracking after Reid 1979, with a null hypothesis.)

Frames of the same ground are not independent witnesses: a place that looks right by chance looks
right in every frame of a hovering drone. So a hypothesis gains from a match only as far as the
view is new; of a known view the mean evidence counts, once.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_runtime.geodesy import distance_m, enu_offset_m, move_lat_lon

F64 = npt.NDArray[np.float64]

_H = np.array([[1.0, 0, 0, 0], [0, 1.0, 0, 0]])
_METRES_PER_DEGREE = 111_000.0
"""Of latitude, roughly: to leave far pairs out before computing exactly."""
_LONGEST_GAP_S = 3600.0
"""Longer gaps count as this: by then nothing is known of the position any more."""
_HV = np.array([[0, 0, 1.0, 0], [0, 0, 0, 1.0]])


@dataclass(frozen=True, kw_only=True)
class TrackerConfig:
    """How the tracker weighs what it is told."""

    detection_probability: float = 0.7
    """That the right place is among a frame's matches."""
    kidnap_probability_per_s: float = 1e-4
    """That within a second the drone is somewhere the track does not explain."""
    off_map_probability: float = 0.02
    """That a flight begins off the map."""
    most_off_map: float = 0.998
    """However long nothing matches, the map is not given up for more than this."""
    unknown_speed_mps: float = 10.0
    """How fast new ground comes into view where the velocity is not known."""
    acceleration_mps2: float = 2.0
    """1-sigma of what the drone may do between frames."""
    initial_speed_mps: float = 15.0
    """1-sigma of the speed of a drone nothing is known about."""
    velocity_sigma_mps: float = 1.0
    """1-sigma of velocity from telemetry."""
    view_m: float = 45.0
    """After moving this far a view is new: about half a tile."""
    proof_log_evidence: float = 8.0
    """A single match this strong confirms a track; chance reaches it about once in 100 frames."""
    proof_views: float = 2.0
    """Weaker matches confirm a track when they agree over this many views of new ground."""
    most_hypotheses: int = 40
    merge_m: float = 12.0
    """Hypotheses nearer than this (and than their own uncertainty) become one."""


class Measurement(NamedTuple):
    """A match as the tracker sees it."""

    lat_deg: float
    lon_deg: float
    sigma_m: float
    """1-sigma error per axis."""
    log_evidence: float
    """Log-likelihood ratio of the agreement being right against it being chance."""


class View(NamedTuple):
    """Ground that has already spoken for a hypothesis."""

    lat_deg: float
    """Where the last match was."""
    lon_deg: float
    log_evidence: float
    """Mean evidence of the looks at it."""
    looks: float = 1.0
    """How many looks at this view the mean is of; what is left behind counts less."""


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """One belief about where the drone is."""

    lat_deg: float
    lon_deg: float
    velocity_mps: F64
    """(2,) east, north."""
    covariance: F64
    """(4, 4) of east, north, velocity east, velocity north."""
    log_weight: float
    misses: int
    """Frames since a match last agreed."""
    since_match_s: float
    """Time since a match last agreed."""
    track_id: int
    """Hypotheses that continue each other share it."""
    view: View | None
    """What the present view has already told; None before any match."""
    withheld: float = 0.0
    """Log weight that this frame did not give because the view is known."""
    proof: float = 0.0
    """Log evidence of the strongest single match."""
    matched_m: float = 0.0
    """New ground over which matches agreed."""
    fresh: float = 1.0
    """Part of the view that was new in the newest match, 0..1."""
    told: bool = False
    """Whether it was given as a prior, so that it needs no match to be followed."""

    @property
    def sigma_m(self) -> float:
        """1-sigma position error per axis."""
        return math.sqrt((self.covariance[0, 0] + self.covariance[1, 1]) / 2)


class Estimate(NamedTuple):
    """The best hypothesis and how far it is believed."""

    best: Hypothesis
    probability: float
    confirmed: bool
    """Whether one strong match, or weaker ones over enough new ground, stand behind it.

    Belief alone does not say so: a place that looks somewhat right gains a little with every metre
    that it shares with the true one's pattern (a long border of fields), until it is believed.
    """


class Tracker:
    """Feeds on time, velocity and matches. Not thread-safe."""

    def __init__(self, area_m2: float, config: TrackerConfig | None = None) -> None:
        """Start from nothing.

        Args:
            area_m2: ground on which the drone can be: the map.
            config: how to weigh.
        """
        self.config = config or TrackerConfig()
        self._area_m2 = area_m2
        self._hypotheses: list[Hypothesis] = []
        self._log_null = math.log1p(-self.config.off_map_probability)
        self._log_off = math.log(self.config.off_map_probability)
        self._new_ground = 0.0
        self._blind_views = 0.0
        self._next_track = 1
        self._last_t_s = self._latest_t_s = -math.inf

    def start_at(self, lat_deg: float, lon_deg: float, sigma_m: float) -> None:
        """Take a position prior, with its 1-sigma error per axis."""
        told = self._new(Measurement(lat_deg, lon_deg, sigma_m, 0.0), math.log(0.95), None)
        self._hypotheses = [replace(told, view=None, told=True)]
        self._log_null = math.log(0.05 * (1 - self.config.off_map_probability))
        self._log_off = math.log(0.05 * self.config.off_map_probability)

    def predict(self, t_s: float, velocity_mps: tuple[float, float] | None = None) -> None:
        """Move every hypothesis to a time, with the measured velocity where there is one.

        A clock that stands still or steps back moves nothing. After a step back the next time
        tells which it was: from beyond the latest time seen, the interval counts from that one,
        for the step was a glitch; from before it, the clock was set back and goes on from there.
        """
        dt = self._elapsed_s(t_s)
        self._hypotheses = [self._moved(h, dt, velocity_mps) for h in self._hypotheses]
        # Some belief flows back to "somewhere else", so a wrong track can always be left.
        leak = 1.0 - (1.0 - self.config.kidnap_probability_per_s) ** min(max(dt, 0.1), 10.0)
        total = _log_sum([h.log_weight for h in self._hypotheses])
        if total > -math.inf:
            self._log_null = float(np.logaddexp(self._log_null, total + math.log(leak)))
            off = total + math.log(leak * self.config.off_map_probability)
            self._log_off = float(np.logaddexp(self._log_off, off))
        speed = self.config.unknown_speed_mps if velocity_mps is None else math.hypot(*velocity_mps)
        self._new_ground = min(speed * dt / self.config.view_m, 1.0)

    def update(
        self,
        measurements: Sequence[Measurement],
        *,
        searched_m2: float,
        velocity_mps: tuple[float, float] | None = None,
    ) -> None:
        """Weigh one frame's matches.

        Args:
            measurements: at most one per place; the right one may be missing.
            searched_m2: ground that was searched: a chance match falls anywhere on it.
            velocity_mps: measured (east, north), for tracks that begin here.
        """
        # The right match, if it is there, is any of them with the same probability.
        log_hit = math.log(self.config.detection_probability / max(len(measurements), 1))
        log_miss = math.log(1 - self.config.detection_probability)
        children: list[Hypothesis] = []
        for h in self._hypotheses:
            hits = [_corrected(h, m, searched_m2, log_hit) for m in measurements]
            missed = _missed(h, log_miss)
            counted = [_counting_misses(hit, missed) for hit in hits if hit is not None]
            children += self._tempered(h, missed, counted)
        share = math.log(min(searched_m2, self._area_m2) / self._area_m2)
        kept = self._merged(children)
        for m in measurements:
            log_weight = self._log_null + log_hit + m.log_evidence + share
            born = self._new(m, log_weight, velocity_mps)
            twin = next((k for k, h in enumerate(kept) if self._same(h, born)), None)
            if twin is None:
                kept.append(born)
            else:
                kept[twin] = _mixed(kept[twin], born)
        self._log_null += log_miss
        self._hypotheses = self._merged(kept)
        # Off the map there is nothing to match, so every new view that no place explains speaks for
        # it; of how much is new, a place that matches knows better than an assumed speed.
        new = self._new_ground
        if self._hypotheses and not self._hypotheses[0].misses:
            new = min(new, self._hypotheses[0].fresh)
        self._log_off += log_miss * (1.0 - new)
        top = self._hypotheses[0] if self._hypotheses else None
        answered = top is not None and not top.misses and self._confirmed(top)
        self._blind_views = 0.0 if answered else self._blind_views + self._new_ground
        self._normalise()

    def estimate(self) -> Estimate | None:
        """The best hypothesis, or None before any match."""
        if not self._hypotheses:
            return None
        best = self._hypotheses[0]
        return Estimate(best, math.exp(best.log_weight), self._confirmed(best))

    def hypotheses(self) -> list[Hypothesis]:
        """All of them, the most probable first."""
        return list(self._hypotheses)

    def snapshot(self) -> dict[str, Any]:
        """Everything that the next update depends on, as JSON values."""
        times = (self._last_t_s, self._latest_t_s)
        return {
            "hypotheses": [
                {
                    **asdict(h),
                    "velocity_mps": h.velocity_mps.tolist(),
                    "covariance": h.covariance.tolist(),
                }
                for h in self._hypotheses
            ],
            "log_null": self._log_null,
            "log_off": self._log_off,
            "blind_views": self._blind_views,
            "next_track": self._next_track,
            "times_s": [t if math.isfinite(t) else None for t in times],
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go on from where `snapshot` was taken.

        Raises:
            KeyError, TypeError: not a snapshot.
        """
        self._hypotheses = [
            Hypothesis(
                **{
                    **h,
                    "velocity_mps": np.asarray(h["velocity_mps"], np.float64),
                    "covariance": np.asarray(h["covariance"], np.float64),
                    "view": None if h["view"] is None else View(*h["view"]),
                }
            )
            for h in snapshot["hypotheses"]
        ]
        self._log_null = snapshot["log_null"]
        self._log_off = snapshot["log_off"]
        self._blind_views = snapshot["blind_views"]
        self._next_track = snapshot["next_track"]
        last, latest = snapshot["times_s"]
        self._last_t_s = -math.inf if last is None else last
        self._latest_t_s = -math.inf if latest is None else latest

    def _confirmed(self, h: Hypothesis) -> bool:
        # The more ground has gone by without an answer, the more chances chance has had.
        needed = self.config.proof_log_evidence + min(math.log1p(self._blind_views), _MOST_EXTRA)
        along_m = self.config.proof_views * self.config.view_m
        return h.proof >= needed or h.matched_m >= along_m

    def _elapsed_s(self, t_s: float) -> float:
        """Time since the last call, none at the first one or when the clock stepped back."""
        since = self._latest_t_s if t_s >= self._latest_t_s else self._last_t_s
        self._last_t_s, self._latest_t_s = t_s, max(t_s, self._latest_t_s)
        return min(max(t_s - since, 0.0), _LONGEST_GAP_S) if since > -math.inf else 0.0

    def _new(
        self, m: Measurement, log_weight: float, velocity_mps: tuple[float, float] | None
    ) -> Hypothesis:
        known = velocity_mps is not None
        speed = self.config.velocity_sigma_mps if known else self.config.initial_speed_mps
        self._next_track += 1
        return Hypothesis(
            lat_deg=m.lat_deg,
            lon_deg=m.lon_deg,
            velocity_mps=np.array(velocity_mps if known else (0.0, 0.0), np.float64),
            covariance=np.diag([m.sigma_m**2, m.sigma_m**2, speed**2, speed**2]),
            log_weight=log_weight,
            misses=0,
            since_match_s=0.0,
            track_id=self._next_track,
            view=View(m.lat_deg, m.lon_deg, m.log_evidence),
            proof=m.log_evidence,
        )

    def _tempered(
        self, before: Hypothesis, missed: Hypothesis, hits: list[Hypothesis]
    ) -> list[Hypothesis]:
        """A hypothesis's children, their gain counted as far as the view is new.

        Looks at a known view are repeated measurements of one agreement: their mean counts, so
        many looks at ground that agrees by chance do not add up, and neither does the best of them.
        """
        if not hits or before.view is None:
            return [replace(h, withheld=0.0) for h in (missed, *hits)]
        gain = _log_sum([h.log_weight for h in (missed, *hits)]) - missed.log_weight
        best = max(hits, key=lambda h: h.log_weight)
        assert best.view is not None
        moved_m = distance_m(
            before.view.lat_deg, before.view.lon_deg, best.view.lat_deg, best.view.lon_deg
        )
        new = min(float(moved_m) / self.config.view_m, 1.0)
        known = (1 - new) * before.view.looks
        change = (best.view.log_evidence - before.view.log_evidence) / (known + 1)
        counted = min(new * gain + (1 - new) * change, gain)
        children = []
        for h in (missed, *hits):
            view = h.view
            if h is not missed and view is not None:
                mean = before.view.log_evidence * known + view.log_evidence
                view = view._replace(log_evidence=mean / (known + 1), looks=known + 1)
                h = replace(h, matched_m=h.matched_m + new * self.config.view_m, fresh=new)
            weight = h.log_weight + counted - gain
            children.append(replace(h, log_weight=weight, view=view, withheld=gain - counted))
        return children

    def _moved(
        self, h: Hypothesis, dt: float, velocity_mps: tuple[float, float] | None
    ) -> Hypothesis:
        f = np.eye(4)
        f[0, 2] = f[1, 3] = dt
        g = np.array([[dt**2 / 2, 0], [0, dt**2 / 2], [dt, 0], [0, dt]])
        covariance = f @ h.covariance @ f.T + g @ g.T * self.config.acceleration_mps2**2
        state = np.concatenate([h.velocity_mps * dt, h.velocity_mps])
        if velocity_mps is not None:
            r = np.eye(2) * self.config.velocity_sigma_mps**2
            gain = covariance @ _HV.T @ np.linalg.inv(_HV @ covariance @ _HV.T + r)
            state = state + gain @ (np.asarray(velocity_mps) - state[2:])
            covariance = (np.eye(4) - gain @ _HV) @ covariance
        place = move_lat_lon(h.lat_deg, h.lon_deg, state[0], state[1])
        return replace(
            h,
            lat_deg=float(place.lat_deg),
            lon_deg=float(place.lon_deg),
            velocity_mps=state[2:],
            covariance=(covariance + covariance.T) / 2,
            since_match_s=h.since_match_s + dt,
        )

    def _merged(self, children: list[Hypothesis]) -> list[Hypothesis]:
        """Unite hypotheses of the same place; the most probable ones are kept."""
        children.sort(key=lambda h: -h.log_weight)
        floor = children[0].log_weight - 25.0 if children else 0.0
        kept: list[Hypothesis] = []
        for child in children:
            if child.log_weight < floor:
                break
            twin = next((k for k, other in enumerate(kept) if self._same(other, child)), None)
            if twin is not None:
                weight = float(np.logaddexp(kept[twin].log_weight, child.log_weight))
                kept[twin] = replace(kept[twin], log_weight=weight)
            elif len(kept) < self.config.most_hypotheses:
                kept.append(child)
        kept.sort(key=lambda h: -h.log_weight)
        return kept

    def _same(self, a: Hypothesis, b: Hypothesis) -> bool:
        if abs(a.lat_deg - b.lat_deg) * _METRES_PER_DEGREE > 1.1 * self.config.merge_m:
            return False
        apart = float(distance_m(a.lat_deg, a.lon_deg, b.lat_deg, b.lon_deg))
        return apart < self.config.merge_m and max(a.sigma_m, b.sigma_m) < 3 * self.config.merge_m

    def _normalise(self) -> None:
        on = _log_sum([self._log_null, *(h.log_weight for h in self._hypotheses)])
        most = on + math.log(self.config.most_off_map / (1 - self.config.most_off_map))
        self._log_off = min(self._log_off, most)
        total = float(np.logaddexp(on, self._log_off))
        self._log_null -= total
        self._log_off -= total
        self._hypotheses = [replace(h, log_weight=h.log_weight - total) for h in self._hypotheses]


def _corrected(
    h: Hypothesis, m: Measurement, searched_m2: float, log_hit: float
) -> Hypothesis | None:
    """Kalman update of position; None where the match lies outside the 4-sigma gate."""
    if abs(h.lat_deg - m.lat_deg) * _METRES_PER_DEGREE > 6.0 * (h.sigma_m * 1.5 + m.sigma_m):
        return None
    offset = enu_offset_m(h.lat_deg, h.lon_deg, m.lat_deg, m.lon_deg)
    innovation = np.array([float(offset.east_m), float(offset.north_m)])
    s = h.covariance[:2, :2] + np.eye(2) * m.sigma_m**2
    s_inverse = np.linalg.inv(s)
    mahalanobis2 = float(innovation @ s_inverse @ innovation)
    if mahalanobis2 > 16.0:
        return None
    log_density = -0.5 * mahalanobis2 - math.log(2 * math.pi * math.sqrt(np.linalg.det(s)))
    gain = h.covariance @ _H.T @ s_inverse
    step = gain @ innovation
    place = move_lat_lon(h.lat_deg, h.lon_deg, step[0], step[1])
    covariance = (np.eye(4) - gain @ _H) @ h.covariance
    return replace(
        h,
        lat_deg=float(place.lat_deg),
        lon_deg=float(place.lon_deg),
        velocity_mps=h.velocity_mps + step[2:],
        covariance=(covariance + covariance.T) / 2,
        log_weight=h.log_weight + log_hit + m.log_evidence + log_density + math.log(searched_m2),
        misses=0,
        since_match_s=0.0,
        view=View(m.lat_deg, m.lon_deg, m.log_evidence),
        proof=m.log_evidence if h.misses >= _LOST_MISSES else max(h.proof, m.log_evidence),
        matched_m=0.0 if h.misses >= _LOST_MISSES else h.matched_m,
    )


_LOST_MISSES = 3
_MOST_EXTRA = 4.0
"""Correlation gives 12 at most, so a place can always be proven."""
_CLEAR_HIT = 2.0
"""Log weight by which a match must explain a frame better than a miss does to end the misses, and
log evidence that it must have of its own."""
_USED_TO = 5.0
"""Mean log evidence of a track that is used to strong matches."""


def _missed(h: Hypothesis, log_miss: float) -> Hypothesis:
    """What becomes of a hypothesis that no match agrees with; a lost one must be confirmed anew."""
    missed = replace(h, log_weight=h.log_weight + log_miss, misses=h.misses + 1)
    return replace(missed, proof=0.0, matched_m=0.0) if missed.misses >= _LOST_MISSES else missed


def _counting_misses(hit: Hypothesis, missed: Hypothesis) -> Hypothesis:
    """A hit, its misses going on where it is hardly better an explanation than chance is.

    Right after a jump some chance match lies near the old prediction in many frames.
    """
    assert hit.view is not None
    # After a miss, and where matches have been strong, the next agreement must be one by itself,
    # and not only lie where it should.
    spoilt = missed.view is not None and missed.view.log_evidence > _USED_TO
    weak = (missed.misses > 1 or spoilt) and hit.view.log_evidence < _CLEAR_HIT
    if hit.log_weight >= missed.log_weight + _CLEAR_HIT and not weak:
        return hit
    lost = missed.misses >= _LOST_MISSES
    return replace(
        hit,
        misses=missed.misses,
        since_match_s=missed.since_match_s,
        matched_m=0.0 if lost else hit.matched_m,
    )


def _mixed(track: Hypothesis, born: Hypothesis) -> Hypothesis:
    """A track and a new beginning at the same place, as one Gaussian of the same mean and spread.

    Where the new beginning is as likely, the track's velocity is as doubtful. The same match
    explained twice is no second witness, so the weight is the better one's.
    """
    ahead = track.log_weight + track.withheld - born.log_weight
    s = 1.0 / (1.0 + math.exp(max(min(ahead, 700.0), -700.0)))
    offset = enu_offset_m(track.lat_deg, track.lon_deg, born.lat_deg, born.lon_deg)
    apart = np.array([float(offset.east_m), float(offset.north_m), 0.0, 0.0])
    apart[2:] = born.velocity_mps - track.velocity_mps
    place = move_lat_lon(track.lat_deg, track.lon_deg, s * apart[0], s * apart[1])
    spread = s * (1 - s) * np.outer(apart, apart)
    return replace(
        track,
        lat_deg=float(place.lat_deg),
        lon_deg=float(place.lon_deg),
        velocity_mps=track.velocity_mps + s * apart[2:],
        covariance=(1 - s) * track.covariance + s * born.covariance + spread,
        log_weight=max(track.log_weight, born.log_weight),
    )


def _log_sum(values: Sequence[float]) -> float:
    if not values:
        return -math.inf
    top = max(values)
    return top + math.log(sum(math.exp(v - top) for v in values)) if top > -math.inf else top
