"""What every source of vehicle states is."""

from typing import Protocol

from edge_runtime.state import VehicleState


class StateSource(Protocol):
    """Knows the vehicle's state at an exposure."""

    live: bool
    """Whether states come while the flight goes on."""

    def at(self, frame_name: str, t_s: float | None) -> VehicleState:
        """The state at one frame's exposure, interpolated between the samples around it.

        What the samples do not say, or said too long ago, is None. Never raises in flight.

        Args:
            frame_name: for sources that name their frames.
            t_s: exposure time on the frame source's clock (see Frame.t_s); None if not known.
        """
        ...

    def events(self) -> list[str]:
        """What happened since the last call, one line each: gap, jump, clock set back, no GNSS."""
        ...

    def close(self) -> None:
        """Stop threads and close ports. Safe to call twice."""
        ...
