"""Where a made-up ground lies on Earth: UTM zone 33 north."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rasterio.warp import transform

from edge_runtime.geodesy import LatLon, enu_offset_m

F64 = npt.NDArray[np.float64]

CRS = "EPSG:32633"
"""WGS 84 / UTM zone 33 north."""
_STEP_M = 50.0


def utm_from_lat_lon(lat_deg: float, lon_deg: float) -> tuple[float, float]:
    """UTM zone 33 (east, north), metres."""
    east, north = transform("EPSG:4326", CRS, [lon_deg], [lat_deg])[:2]
    return float(east[0]), float(north[0])


@dataclass(frozen=True, kw_only=True)
class Georeference:
    """Places (x, y) metres from the north-west corner, x along grid east, y along grid south."""

    origin_east_m: float
    """UTM easting of the north-west corner."""
    origin_north_m: float
    """UTM northing of the north-west corner."""

    def lat_lon(self, xy_m: F64) -> LatLon:
        """Positions of (N, 2) points, each (N,) degrees."""
        east = self.origin_east_m + xy_m[:, 0]
        north = self.origin_north_m - xy_m[:, 1]
        lon, lat = transform(CRS, "EPSG:4326", east.tolist(), north.tolist())[:2]
        return LatLon(np.array(lat, np.float64), np.array(lon, np.float64))

    def enu_per_xy(self, xy_m: F64) -> F64:
        """(N, 2, 2) true (east, north) metres per metre of x (first column) and y (second).

        Differs from a plain flip by the grid's scale (up to 0.04 %) and its convergence.
        """
        centre = self.lat_lon(xy_m)
        columns = []
        for axis in range(2):
            step = np.zeros(2)
            step[axis] = _STEP_M
            ahead, behind = self.lat_lon(xy_m + step), self.lat_lon(xy_m - step)
            plus = enu_offset_m(centre.lat_deg, centre.lon_deg, ahead.lat_deg, ahead.lon_deg)
            minus = enu_offset_m(centre.lat_deg, centre.lon_deg, behind.lat_deg, behind.lon_deg)
            columns.append(
                np.stack([plus.east_m - minus.east_m, plus.north_m - minus.north_m], axis=1)
            )
        return np.asarray(np.stack(columns, axis=2) / (2 * _STEP_M))
