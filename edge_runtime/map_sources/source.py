"""What a map source is: layers of imagery, each of one resolution, and where they come from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from edge_runtime.imagery import Bounds
from edge_runtime.map_sources.crop_area import CropArea

U8 = npt.NDArray[np.uint8]

UNKNOWN = "unknown"
"""What is recorded where a source does not say and nobody was asked."""
Kind = Literal["raster", "rasters", "corner table", "tile folder", "MBTiles", "PMTiles"]


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """When and where from. What is not known says so."""

    captured: str = UNKNOWN
    """Date or span of dates, as ISO 8601 where the source had one: 2024-05-06, 2023-04/2023-09."""
    attribution: str = UNKNOWN
    """Who is to be named."""
    licence: str = UNKNOWN

    def unknown(self) -> list[str]:
        """The names of what is not known."""
        return [name for name, value in vars(self).items() if value == UNKNOWN]

    def or_else(self, other: "Provenance") -> "Provenance":
        """Filled up from another where this one does not know."""
        return replace(self, **{name: getattr(other, name) for name in self.unknown()})


class CutTile(NamedTuple):
    """A map tile that a layer covers at least partly."""

    x: int
    """Column of the XYZ scheme at the layer's zoom."""
    y: int
    rgba: U8
    """(256, 256, 4); alpha 0 where there is no imagery."""
    data: bytes | None
    """The compressed image where `rgba` is exactly its content."""


class Layer(Protocol):
    """Imagery of one resolution, cut at the zoom that keeps it."""

    @property
    def zoom(self) -> int:
        """Of the tiles it is cut into."""
        ...

    @property
    def gsd_m(self) -> float:
        """Ground metres per pixel. Of two layers the one with less is drawn over the other."""
        ...

    @property
    def tiles(self) -> int:
        """How many tiles it is looked for in."""
        ...

    def cut(self, area: CropArea | None, done: Callable[[int], None]) -> Iterator[CutTile]:
        """Yield the tiles that it covers, in a fixed order, holding a few of them in memory.

        Args:
            area: tiles wholly outside may be left out.
            done: told how many of `tiles` were looked at since it was last told.

        Raises:
            ImageryError: the source is damaged.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ImagerySource:
    """One map source, as found."""

    path: Path
    kind: Kind
    crs: str
    gsd_m: float
    """Ground metres per pixel of its finest layer, at its centre."""
    bounds: Bounds
    provenance: Provenance = field(default_factory=Provenance)
    stretch: tuple[tuple[float, float], ...] = ()
    """By band, the values that became black and white; empty where values were kept."""
    layers: tuple[Layer, ...] = field(default=(), repr=False)

    def to_json(self) -> dict[str, object]:
        """For manifests and metadata: what was drawn, when and where it is from."""
        box = self.bounds
        return {
            "name": self.path.name,
            "kind": self.kind,
            "crs": self.crs,
            "gsd_m": round(self.gsd_m, 4),
            "bounds": [round(v, 7) for v in (box.west_deg, box.south_deg, box.east_deg)]
            + [round(box.north_deg, 7)],
            **vars(self.provenance),
            **({"stretch": [list(pair) for pair in self.stretch]} if self.stretch else {}),
        }


def beside(box: Bounds, other: Bounds) -> Bounds:
    """The box, turned around the world to where it is nearest the other."""
    apart = (other.west_deg + other.east_deg - box.west_deg - box.east_deg) / 2
    turn = 360.0 * round(apart / 360.0)
    return box._replace(west_deg=box.west_deg + turn, east_deg=box.east_deg + turn)


def union(boxes: Sequence[Bounds]) -> Bounds:
    """The box around boxes; across the antimeridian where that is shorter."""
    whole = boxes[0]
    for box in boxes[1:]:
        near = beside(box, whole)
        whole = Bounds(
            min(whole.south_deg, near.south_deg),
            min(whole.west_deg, near.west_deg),
            max(whole.north_deg, near.north_deg),
            max(whole.east_deg, near.east_deg),
        )
    if whole.west_deg < -180.0:
        turned = (whole.west_deg + 360.0, whole.east_deg + 360.0)
        whole = whole._replace(west_deg=turned[0], east_deg=turned[1])
    return whole
