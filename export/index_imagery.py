"""How the imagery of an index is made: its options, and what tells two makings apart."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_runtime.mbtiles_writing import ImageFormat
from edge_runtime.satellite_imagery import write_mbtiles
from export.index_folder import WriteImagery

_PROVENANCE = {"captured": "--captured", "attribution": "--attribution", "licence": "--licence"}


@dataclass(frozen=True, kw_only=True)
class ImageryOptions:
    """As `write_mbtiles` takes them."""

    quality: int | None = None
    """Of the tiles' compression; None is 90, and keeps tiles that are compressed already."""
    image_format: ImageFormat = "jpeg"
    crop: Path | None = None
    """GeoJSON polygons; what lies outside is left out."""
    crs: str | None = None
    """Of rasters that do not say it themselves."""
    corners: tuple[float, ...] | None = None
    """Of the one picture given: upper left lat, lon, lower right lat, lon."""
    tms: bool | None = None
    """Rows of tile folders are counted from the south; None finds out."""
    captured: str | None = None
    attribution: str | None = None
    licence: str | None = None

    def writer(self, sources: Sequence[Path]) -> WriteImagery:
        """What makes the imagery of these sources."""
        return lambda out, progress: write_mbtiles(sources, out, **vars(self), progress=progress)

    def asked(self, sources: Sequence[Path]) -> dict[str, Any]:
        """These options and the sources' state on disk as JSON values."""
        crops = [] if self.crop is None else [self.crop]
        return {
            "sources": fingerprint(sources),
            "options": asdict(self) | {"crop": fingerprint(crops)},
        }


def fingerprint(sources: Sequence[Path]) -> dict[str, str]:
    """What tells whether files changed between two runs: names, sizes and times.

    Reading a country of imagery again to hash it would take as long as using it.

    Args:
        sources: files, or folders with everything in them.

    Returns:
        A digest for each source, by its path.
    """
    found: dict[str, str] = {}
    for source in sources:
        digest = hashlib.sha256()
        files = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
        for file in files:
            try:
                stat = file.stat()
            except OSError:
                continue  # Whoever reads it says what is wrong with it.
            digest.update(f"{file.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        found[str(source)] = digest.hexdigest()[:16]
    return found


def what_is_unknown(sources: Sequence[dict[str, Any]]) -> str | None:
    """A line that asks for what no source says of its age and origin; None when all is known.

    Args:
        sources: as the manifest records them.
    """
    unknown = [
        name for name in _PROVENANCE if any(source.get(name) == "unknown" for source in sources)
    ]
    if not unknown:
        return None
    return (
        f"Not known of the imagery, and recorded as such: {', '.join(unknown)}. Stop, and begin "
        f"again with --restart and {', '.join(_PROVENANCE[name] for name in unknown)}, to record it"
    )
