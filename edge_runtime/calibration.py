"""What a stated accuracy and a belief were worth, measured, and kept with the index.

`python -m benchmarks calibrate` compares what the runtime states with the truth and writes
`calibration.json` into the index folder. The file is no part of the index: it may come later and
change, so the manifest does not list it and it vouches for itself with its own sha256. It is bound
to the index, to the bundle and to the version of the error model, and refused with any other.
"""

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_runtime.artefact import made_by, sha256_of_json, write_atomically
from edge_runtime.errors import IndexFolderError, InputError

CALIBRATION = "calibration.json"
"""Name in the index folder."""
SCHEMA = 1
ERROR_MODEL = 1
"""Version of what the runtime states before it is calibrated. It grows whenever the tracker or the
errors it assumes change what `eph_m` comes out, for then every calibration is void."""
_AGAIN = "Make it again with: python -m benchmarks calibrate, or remove it to state what is assumed"


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How many errors lay within the radii that were stated."""

    flights: int
    """They come from."""
    answers: int
    """Errors compared."""
    independent: float
    """As many independent ones say as much: errors of neighbouring frames are alike."""
    within_68: float
    """Share within 1.515 eph, 0..1."""
    within_95: float
    """Share within 2.448 eph, 0..1."""


@dataclass(frozen=True, kw_only=True)
class BeliefStep:
    """How often answers were false with one abstain threshold."""

    ok_probability: float
    """The threshold."""
    trials: int
    """Independent stretches of flight that were answered."""
    false: int
    """Those with an answer more than 50 m off."""
    at_most: float
    """With 95 % confidence the true share of false ones is no higher (Clopper and Pearson 1934,
    Biometrika 26:404-413, one-sided)."""


@dataclass(frozen=True, kw_only=True)
class Abstain:
    """An abstain threshold and what it is known to be worth."""

    ok_probability: float
    at_most: float
    """Share of false answers that it is proven not to exceed."""
    proven: bool
    """Whether that is as low as was asked for."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Maps what is stated to what was true.

    Raises:
        InputError: numbers that make no map.
    """

    index_id: str
    bundle_id: str
    factor: float
    """Errors are this many times what the error model says."""
    floor_m: float
    """1-sigma error per axis that is there however sure the tracker is: of the map itself."""
    truth: str
    """flights, or simulated views of the imagery."""
    fitted: Coverage
    """After calibration, on the flights it was fitted to."""
    unseen: Coverage | None
    """On flights left out of the fit in turn; None where there was one flight."""
    belief: tuple[BeliefStep, ...] = ()
    """By threshold, ascending."""

    def __post_init__(self) -> None:
        """Check the map and its order."""
        if not (0.01 <= self.factor <= 100 and 0 <= self.floor_m <= 1000):
            msg = (
                f"calibration has factor {self.factor} and floor {self.floor_m} m; expected a "
                "factor from 0.01 to 100 and a floor from 0 to 1000 m"
            )
            raise InputError(msg)
        thresholds = [step.ok_probability for step in self.belief]
        if sorted(set(thresholds)) != thresholds or not all(0 <= t <= 1 for t in thresholds):
            msg = f"calibration has thresholds {thresholds}; expected them ascending within 0..1"
            raise InputError(msg)

    def eph_m(self, stated_m: float) -> float:
        """1-sigma error per axis of which 1.515 times holds 68 % and 2.448 times 95 % of errors.

        Args:
            stated_m: as the error model has it, metres.
        """
        return math.hypot(self.floor_m, self.factor * stated_m)

    def stated_m(self, eph_m: float) -> float:
        """Inverse of `eph_m`, to compare a calibrated log with the error model; 0 below the floor.

        Args:
            eph_m: calibrated, metres.
        """
        return math.sqrt(max(eph_m**2 - self.floor_m**2, 0.0)) / self.factor

    def ok_probability(self, false_fix_rate: float) -> Abstain:
        """Lowest threshold that keeps false answers at a rate, with 95 % confidence.

        Where the flights are too few to prove the rate, the threshold with the lowest proven one.

        Args:
            false_fix_rate: largest share of answered stretches of flight that may be false.

        Raises:
            InputError: not a share, or the calibration says nothing of beliefs.
        """
        if not 0 < false_fix_rate < 1:
            msg = f"the false-fix rate is {false_fix_rate}; expected a share between 0 and 1"
            raise InputError(msg)
        if not self.belief:
            msg = "this calibration has no beliefs; make it again: python -m benchmarks calibrate"
            raise InputError(msg)
        for step in self.belief:
            if step.at_most <= false_fix_rate:
                return Abstain(
                    ok_probability=step.ok_probability, at_most=step.at_most, proven=True
                )
        best = min(self.belief, key=lambda step: (step.at_most, step.ok_probability))
        return Abstain(ok_probability=best.ok_probability, at_most=best.at_most, proven=False)

    @classmethod
    def open(cls, index: Path, *, index_id: str, bundle_id: str) -> "Calibration | None":
        """Read the calibration of an index; None where it has none.

        Raises:
            IndexFolderError: altered, or of another index, bundle or error model.
        """
        path = index / CALIBRATION
        try:
            value = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            msg = f"{path} cannot be read ({error}); expected a calibration. {_AGAIN}"
            raise IndexFolderError(msg) from error
        body = _checked_body(path, value)
        for name, expected in (
            ("schema", SCHEMA),
            ("error_model", ERROR_MODEL),
            ("index_id", index_id),
            ("bundle_id", bundle_id),
        ):
            if body.get(name) != expected:
                msg = f"{path} has {name} {body.get(name)!r}, expected {expected!r}. {_AGAIN}"
                raise IndexFolderError(msg)
        try:
            return _from_body(body)
        except (KeyError, TypeError, ValueError) as error:
            msg = f"{path} is not a calibration ({error!r}). {_AGAIN}"
            raise IndexFolderError(msg) from error

    def save(self, index: Path) -> Path:
        """Write it into an index folder in one step; an older one is replaced.

        Returns:
            The file.
        """
        body = {
            "schema": SCHEMA,
            "error_model": ERROR_MODEL,
            "made_by": made_by(),
            "created_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **asdict(self),
        }
        # Digested as it will be read: tuples become lists.
        body = json.loads(json.dumps(body, allow_nan=False))
        value = {**body, "sha256": sha256_of_json(body)}
        path = index / CALIBRATION
        write_atomically(path, (json.dumps(value, indent=1) + "\n").encode())
        return path


def _checked_body(path: Path, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        msg = f"{path} holds a {type(value).__name__}; expected a calibration. {_AGAIN}"
        raise IndexFolderError(msg)
    body = {name: item for name, item in value.items() if name != "sha256"}
    found, said = sha256_of_json(body), value.get("sha256")
    if found != said:
        msg = f"{path} has digest {found[:12]}, it says {str(said)[:12]}. {_AGAIN}"
        raise IndexFolderError(msg)
    return body


def _from_body(body: dict[str, Any]) -> Calibration:
    unseen = body["unseen"]
    return Calibration(
        index_id=body["index_id"],
        bundle_id=body["bundle_id"],
        factor=float(body["factor"]),
        floor_m=float(body["floor_m"]),
        truth=body["truth"],
        fitted=Coverage(**body["fitted"]),
        unseen=None if unseen is None else Coverage(**unseen),
        belief=tuple(BeliefStep(**step) for step in body["belief"]),
    )
