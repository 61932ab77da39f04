"""Fit what the runtime states to what was true.

Two questions. *Radius*: by which factor and floor does the stated 1-sigma error have to change so
that 68 % of errors lie within 1.515 times it and 95 % within 2.448 times? *Belief*: how often are
answers false, by the belief they are given with?

Errors of neighbouring frames are alike: the same bias of heading and attitude, the same patch of
map. So flights, not frames, are what a fit is checked on (each left out in turn), and the number of
independent errors, which decides the margin, is reckoned from how fast errors change in flight.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.accuracy import FALSE_FIX_M, WITHIN_68, WITHIN_95
from edge_runtime.calibration import BeliefStep, Calibration, Coverage
from edge_runtime.errors import InputError

F64 = npt.NDArray[np.float64]

LEVELS = ((0.6827, WITHIN_68), (0.95, WITHIN_95))
"""(share, radius in 1-sigma per axis) that the accuracy states."""
THRESHOLDS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 0.99999)
"""Abstain thresholds whose worth is told."""
STRETCH_S = 10.0
"""Answers this long apart are taken as independent trials of being false."""
_FEWEST_ANSWERS = 50
_RADIUS_BELIEF = 0.99
"""Radii are fitted to answers believed so far: less is not given in flight."""
_FLOOR_GAIN = 0.02
"""A floor is taken only where it makes the radii better by this share: else one number will do."""


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Positions of one flight that were near enough to be right, and those that were false."""

    name: str
    t_s: F64
    """(N,) exposure times, ascending."""
    stated_m: F64
    """(N,) 1-sigma as the error model has it."""
    error_m: F64
    """(N,) distance from the truth."""
    probability: F64
    """(N,) the tracker's belief."""
    asked: float
    """The belief that an answer needed when this was flown: below it nothing is known."""

    @property
    def right(self) -> "Errors":
        """Without false ones, which are not inaccurate but elsewhere: a matter of belief."""
        keep = (self.error_m <= FALSE_FIX_M) & (self.probability >= _RADIUS_BELIEF)
        return Errors(
            name=self.name,
            t_s=self.t_s[keep],
            stated_m=self.stated_m[keep],
            error_m=self.error_m[keep],
            probability=self.probability[keep],
            asked=self.asked,
        )


@dataclass(frozen=True, kw_only=True)
class RadiusFit:
    """eph = hypot(floor, factor x stated)."""

    factor: float
    floor_m: float

    def eph_m(self, stated_m: F64) -> F64:
        """(N,) calibrated 1-sigma errors."""
        return np.asarray(np.hypot(self.floor_m, self.factor * stated_m))


def fit_radius(flights: Sequence[Errors]) -> RadiusFit:
    """Fit factor and floor so that the larger of both gaps in coverage is smallest.

    Raises:
        InputError: too few answers to say anything.
    """
    kept = [f.right for f in flights]
    stated = np.concatenate([f.stated_m for f in kept])
    error = np.concatenate([f.error_m for f in kept])
    if len(error) < _FEWEST_ANSWERS:
        msg = (
            f"{len(error)} answers with a truth; expected at least {_FEWEST_ANSWERS}. Give more "
            "flights"
        )
        raise InputError(msg)
    independent = sum(independent_errors(f) for f in kept)
    plain = RadiusFit(factor=_factor(stated, error, 0.0, independent), floor_m=0.0)
    best, best_loss = plain, _loss(plain, stated, error) * (1 - _FLOOR_GAIN)
    for floor_m in np.quantile(error, 0.5) / 1.1774 * np.arange(1, 12) / 10:
        factor = _factor(stated, error, float(floor_m), independent)
        tried = RadiusFit(factor=factor, floor_m=float(floor_m))
        if (loss := _loss(tried, stated, error)) < best_loss:
            best, best_loss = tried, loss
    return RadiusFit(factor=round(best.factor, 4), floor_m=round(best.floor_m, 3))


def coverage(flights: Sequence[Errors], fits: Sequence[RadiusFit]) -> Coverage:
    """What lies within the radii, each flight with its own fit."""
    kept = [f.right for f in flights]
    scores = np.concatenate(
        [f.error_m / fit.eph_m(f.stated_m) for f, fit in zip(kept, fits, strict=True)]
    )
    return Coverage(
        flights=len(kept),
        answers=len(scores),
        independent=round(sum(independent_errors(f) for f in kept), 1),
        within_68=round(float(np.mean(scores <= WITHIN_68)), 4),
        within_95=round(float(np.mean(scores <= WITHIN_95)), 4),
    )


def left_out_in_turn(flights: Sequence[Errors]) -> list[RadiusFit] | None:
    """For each flight the fit to all others; None where the others have too few answers."""
    answers = [len(f.right.error_m) for f in flights]
    if sum(answers) - max(answers) < _FEWEST_ANSWERS:
        return None
    return [fit_radius([*flights[:k], *flights[k + 1 :]]) for k in range(len(flights))]


def calibration(
    flights: Sequence[Errors], *, index_id: str, bundle_id: str, truth: str
) -> Calibration:
    """Fit everything.

    Args:
        flights: independent ones; with two or more, unseen coverage is measured.
        index_id: of the map they were flown on.
        bundle_id: of the encoder.
        truth: where the truth is from.

    Raises:
        InputError: too few answers.
    """
    fit = fit_radius(flights)
    fits = left_out_in_turn(flights)
    unseen = None if fits is None else coverage(flights, fits)
    return Calibration(
        index_id=index_id,
        bundle_id=bundle_id,
        factor=fit.factor,
        floor_m=fit.floor_m,
        truth=truth,
        fitted=coverage(flights, [fit] * len(flights)),
        unseen=unseen,
        belief=beliefs(flights),
    )


def independent_errors(flight: Errors) -> float:
    """How many independent errors say as much as a flight's: N over its autocorrelation time.

    The time is the sum of correlations up to the first that is not positive (Geyer 1992,
    Statistical Science 7:473-483), of errors by rank, so that single large ones do not decide.
    """
    count = len(flight.error_m)
    if count < 3:
        return float(count)
    ranks = np.argsort(np.argsort(flight.error_m / flight.stated_m)).astype(np.float64)
    ranks -= ranks.mean()
    variance = float(ranks @ ranks)
    total = 1.0
    for lag in range(1, count // 2):
        correlation = float(ranks[:-lag] @ ranks[lag:]) / variance
        if correlation <= 0:
            break
        total += 2 * correlation
    return max(count / total, 1.0)


def beliefs(flights: Sequence[Errors]) -> tuple[BeliefStep, ...]:
    """How often stretches of flight are false, by the belief that is asked for."""
    steps = []
    asked = max(flight.asked for flight in flights)
    for threshold in (t for t in THRESHOLDS if t >= asked):
        trials = false = 0
        for flight in flights:
            answered = flight.probability >= threshold
            stretch = np.floor((flight.t_s - flight.t_s[:1]) / STRETCH_S)
            wrong = answered & (flight.error_m > FALSE_FIX_M)
            trials += len(np.unique(stretch[answered]))
            false += len(np.unique(stretch[wrong]))
        if trials:
            steps.append(
                BeliefStep(
                    ok_probability=threshold,
                    trials=trials,
                    false=false,
                    at_most=round(upper_bound(false, trials), 6),
                )
            )
    return tuple(steps)


def upper_bound(count: int, n: int, *, confidence: float = 0.95) -> float:
    """One-sided Clopper-Pearson bound: the largest share that count of n do not contradict."""
    if count >= n:
        return 1.0
    low, high = count / n, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if _binomial_cdf(count, n, middle) > 1 - confidence else (low, middle)
        )
    return high


def _binomial_cdf(count: int, n: int, share: float) -> float:
    logs = [
        math.lgamma(n + 1)
        - math.lgamma(k + 1)
        - math.lgamma(n - k + 1)
        + k * math.log(share)
        + (n - k) * math.log1p(-share)
        for k in range(count + 1)
    ]
    return math.fsum(math.exp(v) for v in logs)


def _factor(stated: F64, error: F64, floor_m: float, independent: float) -> float:
    """The factor whose larger gap in coverage is smallest, for a floor.

    Coverage is asked for with the finite-sample margin of conformal prediction (Vovk et al. 2005,
    section 2.2): the ceil((n + 1) q)-th of n scores, n the independent ones.
    """
    # What factor each error needs to lie within a radius, ascending.
    ends = []
    needed = []
    for share, sigmas in LEVELS:
        spare = np.maximum((error / sigmas) ** 2 - floor_m**2, 0.0)
        factors = np.sort(np.sqrt(spare) / stated)
        asked = min(share * (1 + 1 / independent), 1.0)
        rank = min(math.ceil(asked * len(factors)), len(factors))
        ends.append(float(factors[rank - 1]))
        needed.append((asked, factors))
    tried = np.linspace(min(ends), max(ends), 101)
    gaps = [
        np.abs(np.searchsorted(factors, tried, side="right") / len(factors) - asked)
        for asked, factors in needed
    ]
    worst = np.maximum(*gaps)
    # Of equal ones the most cautious.
    return max(float(tried[np.flatnonzero(worst <= worst.min() + 1e-12)[-1]]), 0.01)


def _loss(fit: RadiusFit, stated: F64, error: F64) -> float:
    """Mean quantile (pinball) loss of both radii, metres: small where they are right and tight."""
    eph = fit.eph_m(stated)
    total = 0.0
    for share, sigmas in LEVELS:
        over = error - sigmas * eph
        total += float(np.mean(np.where(over > 0, share * over, (share - 1) * over)))
    return total
