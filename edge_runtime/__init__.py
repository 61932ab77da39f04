"""skyfix's flight runtime: drone frames in, honest positions out.

    from edge_runtime import Camera, Localizer, VehicleState

Names load on first use, so importing the package costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_runtime.camera import Camera
    from edge_runtime.errors import SkyfixError
    from edge_runtime.fix import Fix
    from edge_runtime.localizer import Localizer
    from edge_runtime.localizer_config import LocalizerConfig
    from edge_runtime.state import VehicleState

__all__ = ["Camera", "Fix", "Localizer", "LocalizerConfig", "SkyfixError", "VehicleState"]

_HOMES = {
    "Camera": "edge_runtime.camera",
    "Fix": "edge_runtime.fix",
    "Localizer": "edge_runtime.localizer",
    "LocalizerConfig": "edge_runtime.localizer_config",
    "SkyfixError": "edge_runtime.errors",
    "VehicleState": "edge_runtime.state",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        msg = f"module 'edge_runtime' has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
