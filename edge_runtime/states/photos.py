"""States of photographs by their own EXIF and XMP, so a folder of them needs no telemetry."""

from pathlib import Path

from edge_runtime.errors import InputError
from edge_runtime.state import VehicleState
from edge_runtime.states.exif import PhotoFacts, read_exif
from edge_runtime.states.occurrences import Occurrences
from edge_runtime.states.sample import FIELDS
from edge_runtime.states.timeline import LIMITS, check_options

SUFFIXES = (".jpg", ".jpeg")


class PhotoStates:
    """What each photograph of a folder says of itself. A `StateSource`."""

    live = False

    def __init__(self, folder: Path, *, ignore: frozenset[str] = frozenset()) -> None:
        """Look at the first photographs of a folder.

        Args:
            folder: with JPEG files.
            ignore: fields of VehicleState to leave out.

        Raises:
            InputError: no JPEG in it, none that says anything of use, a field to ignore that there
                is not.
        """
        check_options(max_gap_s=1.0, ignore=ignore, heading="telemetry")
        self._folder = folder
        self._ignore = ignore | (
            {"height_above_takeoff_m"} if "height_m" in ignore else frozenset[str]()
        )
        self._said = Occurrences()
        self._last_t_s = 0.0
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
        if not paths:
            msg = f"{folder} has no JPEG photographs to read EXIF from; give other telemetry"
            raise InputError(msg)
        self.names = frozenset(p.name for p in paths)
        # All of them would take long in a large folder, and the first may be a test shot.
        self._seen = [f for p in paths[:20] if (f := self._read(p)) is not None]
        if not any(self.knows(field) for field in FIELDS):
            msg = (
                f"photographs in {folder} say no height and no attitude (looked at "
                f"{len(paths[:20])}); give telemetry beside them"
            )
            raise InputError(msg)

    def knows(self, field: str) -> bool:
        """Whether the first photographs say something about this field of VehicleState."""
        return any(self._value(field, facts) is not None for facts in self._seen)

    def at(self, frame_name: str, t_s: float | None) -> VehicleState:
        """The state that a photograph says, stamped with its exposure."""
        facts = self._read(self._folder / frame_name)
        stamp_s = t_s if facts is None or facts.taken_unix_s is None else facts.taken_unix_s
        self._last_t_s = self._last_t_s if stamp_s is None else stamp_s
        if facts is None:
            return VehicleState(t_s=self._last_t_s)
        values = {field: self._value(field, facts) for field in FIELDS}
        return VehicleState(t_s=self._last_t_s, **values)

    def events(self) -> list[str]:
        """What happened since the last call, one line each."""
        return self._said.taken()

    def close(self) -> None:
        """Nothing to close: each photograph is read when it is asked for."""

    def _value(self, field: str, facts: PhotoFacts) -> float | None:
        value: float | None = getattr(facts, field, None)
        if field in self._ignore or value is None:
            return None
        low, high = LIMITS[field]
        if low <= value <= high:
            return value
        self._said.began(field, f"telemetry: a photograph says {field} {value}; not used")
        return None

    def _read(self, path: Path) -> PhotoFacts | None:
        try:
            return read_exif(path)
        except InputError as error:
            self._said.began("unreadable", f"telemetry: {error}")
            return None
