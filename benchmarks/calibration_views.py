"""Short flights that were never flown, over the imagery of an index, to calibrate without truth.

Each is a few hundred metres of flight over a random place: its ground gets another season, light
and sharpness once, then every frame is taken with a true pose and given to the localizer with the
errors of its sensors, drawn as the localizer is told that they are. So what is calibrated is the
filter's accuracy over time, not that of single matches.

What they cannot know: how far the imagery itself is off, which moves every fix alike, and ground
that is not flat. They are kinder than real flights; docs/accuracy.md says by how much.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from benchmarks.calibration_fit import Errors
from edge_runtime.backends.protocol import Backend
from edge_runtime.bundle import Bundle
from edge_runtime.camera import Camera, optical_to_ned
from edge_runtime.errors import InputError
from edge_runtime.geodesy import distance_m, move_lat_lon
from edge_runtime.localizer import Localizer
from edge_runtime.localizer_config import LocalizerConfig
from edge_runtime.satellite_index import SatelliteIndex
from edge_runtime.state import VehicleState
from train.simulated_changes import changed
from train.simulated_config import SimulationConfig
from train.simulated_light import relit
from train.simulated_sharpness import recorded, resolved
from train.simulated_views import scattered_places
from train.world.photos import map_to_image, warped

F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]

STEP_S, SPEED_MPS = 0.5, 12.0
_MOST_TILT_DEG = 8.0
_MOST_WIDTH_PX = 800
"""Larger frames are simulated at this width: the ground view is no finer."""
_COVERS = (1.1, 1.5)
"""Without heights the camera's shorter side covers so many times a tile."""


@dataclass(frozen=True, kw_only=True)
class ViewsPlan:
    """What is simulated."""

    camera: Camera
    flights: int = 30
    seconds: float = 20.0
    """Length of each."""
    height_m: tuple[float, float] | None = None
    """Lowest and highest; by default where the camera sees a little more than a tile."""
    seed: int = 0
    config: LocalizerConfig
    """Of the localizer; its sigmas are the errors that are drawn."""

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated."""
        if self.flights < 2 or self.seconds < 5:
            msg = f"{self.flights} flights of {self.seconds:g} s to simulate; expected 2 of 5 s"
            raise InputError(msg)
        if self.height_m is not None and not 0 < self.height_m[0] <= self.height_m[1] < math.inf:
            msg = f"heights are {self.height_m}; expected 0 < LOW <= HIGH in metres"
            raise InputError(msg)


@dataclass(frozen=True, kw_only=True)
class _Pose:
    """True pose of one frame, metres east and north of the flight's middle."""

    east_m: float
    north_m: float
    height_m: float
    yaw_deg: float
    pitch_deg: float
    roll_deg: float


def simulated_flights(
    plan: ViewsPlan,
    bundle: Bundle,
    index: SatelliteIndex,
    backend: Backend,
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Errors]:
    """Fly over the imagery of an index, each flight from knowing nothing.

    Args:
        plan: what to simulate.
        bundle: the encoder.
        index: its map.
        backend: that runs it.
        progress: told how many flights are done, of how many.

    Raises:
        InputError: the camera looks beyond the ground below, or the map is too small.
    """
    camera = _simulated_camera(plan.camera)
    heights = plan.height_m or _default_heights(camera, index.level.size_m)
    reach_m = _reach_m(camera, heights[1])
    length_m = SPEED_MPS * plan.seconds
    size_m = length_m + 2 * reach_m
    rng = np.random.default_rng([plan.seed, 1])
    lat, lon = scattered_places(index.imagery, size_m, plan.flights, rng)
    flown: list[Errors] = []
    for k, (place_lat, place_lon) in enumerate(zip(lat.tolist(), lon.tolist(), strict=True)):
        rng = np.random.default_rng([plan.seed, 2, k])
        ground, step_m = _ground(index, place_lat, place_lon, size_m, rng)
        localizer = Localizer(bundle, index, backend, camera, plan.config)
        answers = []
        for pose, state in _flight(plan, camera, heights, rng):
            frame = _frame(ground, step_m, camera, pose, rng)
            fix = localizer.step(frame, state, frame_name=f"{k}/{state.t_s:g}")
            if fix.status == "OK" and fix.lat_deg is not None and fix.lon_deg is not None:
                true = move_lat_lon(place_lat, place_lon, pose.east_m, pose.north_m)
                off_m = distance_m(fix.lat_deg, fix.lon_deg, true.lat_deg, true.lon_deg)
                answers.append((state.t_s, fix.eph_m, float(off_m), fix.probability))
        table = np.array(answers, np.float64).reshape(-1, 4)
        flown.append(
            Errors(
                name=f"simulated {k + 1}",
                t_s=table[:, 0],
                stated_m=table[:, 1],
                error_m=table[:, 2],
                probability=table[:, 3],
                asked=plan.config.ok_probability,
            )
        )
        progress(k + 1, len(lat))
    return flown


def _simulated_camera(camera: Camera) -> Camera:
    """The same view without distortion, which the ground view takes away, and not too large."""
    camera = replace(camera, distortion=())
    if camera.width_px > _MOST_WIDTH_PX:
        height_px = round(camera.height_px * _MOST_WIDTH_PX / camera.width_px)
        camera = camera.scaled_to(_MOST_WIDTH_PX, height_px)
    return camera


def _default_heights(camera: Camera, tile_m: float) -> tuple[float, float]:
    shorter = min(camera.height_px / camera.fy_px, camera.width_px / camera.fx_px)
    return _COVERS[0] * tile_m / shorter, _COVERS[1] * tile_m / shorter


def _reach_m(camera: Camera, height_m: float) -> float:
    """Farthest ground in view with all the tilt there may be.

    Raises:
        InputError: near or beyond the horizon.
    """
    corner = math.hypot(camera.width_px / 2 / camera.fx_px, camera.height_px / 2 / camera.fy_px)
    mounted = 0.0 if camera.stabilised else 1.5 * _MOST_TILT_DEG
    angle_deg = abs(camera.mount_pitch_deg + 90) + math.degrees(math.atan(corner)) + mounted
    if angle_deg > 75:
        msg = (
            f"the camera sees ground {angle_deg:.0f} degrees off the vertical; simulated views "
            "need one that looks down. Calibrate on flights: --flight LOG TRUTH"
        )
        raise InputError(msg)
    return height_m * math.tan(math.radians(angle_deg))


def _ground(
    index: SatelliteIndex, lat: float, lon: float, size_m: float, rng: np.random.Generator
) -> tuple[U8, float]:
    """The ground of one flight as it is on another day, (S, S, 3) RGB, and its metres per pixel."""
    step_m = index.imagery.gsd_m(lat)
    size_px = round(size_m / step_m)
    patch = index.imagery.patch(lat, lon, size_m=size_m, size_px=size_px)
    simulation = SimulationConfig()
    rgb = patch.image.astype(np.float32) / np.float32(255)
    rgb = changed(rgb, size_m / size_px, simulation, rng)
    rgb = relit(rgb, size_m / size_px, simulation, rng)
    rgb = resolved(rgb, size_m / size_px, simulation, rng)
    return np.asarray(np.round(np.clip(rgb, 0, 1) * 255), np.uint8), size_m / size_px


def _flight(
    plan: ViewsPlan, camera: Camera, heights: tuple[float, float], rng: np.random.Generator
) -> list[tuple[_Pose, VehicleState]]:
    """A gentle curve through the middle of the ground: true poses and what the sensors say.

    Of each sensor's error a part lasts, a part drifts or is noise, as the localizer takes it.
    """
    count = round(plan.seconds / STEP_S)
    config, step_m = plan.config, STEP_S * SPEED_MPS
    heading = rng.uniform(-math.pi, math.pi) + np.arange(count) * step_m * rng.normal(0, 0.003)
    east, north = np.cumsum(np.sin(heading)) * step_m, np.cumsum(np.cos(heading)) * step_m
    height_m = float(rng.uniform(*heights))
    drift = np.cumsum(rng.standard_normal(count)) / math.sqrt(count)
    yaw_error = config.yaw_sigma_deg * (
        0.6 * rng.standard_normal() + 0.6 * drift + 0.53 * rng.standard_normal(count)
    )
    height_error = config.scale_sigma * (
        0.97 * rng.standard_normal() + 0.24 * rng.standard_normal(count)
    )
    lasting, varying = (1.0, 0.25) if camera.stabilised else (0.4, 0.92)
    tilt_error = config.attitude_sigma_deg * (
        lasting * rng.standard_normal(2) + varying * rng.standard_normal((count, 2))
    )
    # What holds a stabilised camera level errs, and nothing measures it.
    tilt = np.clip(rng.normal((-3.0, 0.0), 1.5, (count, 2)), -_MOST_TILT_DEG, _MOST_TILT_DEG)
    tilt = tilt_error if camera.stabilised else tilt
    flown = []
    for k in range(count):
        pose = _Pose(
            east_m=float(east[k] - east.mean()),
            north_m=float(north[k] - north.mean()),
            height_m=height_m,
            yaw_deg=math.degrees(heading[k]),
            pitch_deg=float(tilt[k, 0]),
            roll_deg=float(tilt[k, 1]),
        )
        state = VehicleState(
            t_s=k * STEP_S,
            height_m=height_m * math.exp(float(height_error[k])),
            yaw_deg=pose.yaw_deg + float(yaw_error[k]),
            pitch_deg=None if camera.stabilised else pose.pitch_deg + float(tilt_error[k, 0]),
            roll_deg=None if camera.stabilised else pose.roll_deg + float(tilt_error[k, 1]),
        )
        flown.append((pose, state))
    return flown


def _frame(ground: U8, step_m: float, camera: Camera, pose: _Pose, rng: np.random.Generator) -> U8:
    """(H, W, 3) RGB photograph of the ground."""
    # A camera that is held level is tilted by what holds it, so here it is as if it were rigid.
    rotation = optical_to_ned(
        replace(camera, stabilised=False),
        yaw_deg=pose.yaw_deg,
        pitch_deg=pose.pitch_deg,
        roll_deg=pose.roll_deg,
    )
    half_m = len(ground) * step_m / 2
    homography = map_to_image(
        camera,
        rotation,
        pose.height_m,
        np.array([half_m + pose.east_m, half_m - pose.north_m]),
        np.diag([1.0, -1.0]),
    )
    photo = warped(ground, step_m, homography, camera)
    return recorded(photo.astype(np.float32) / np.float32(255), SimulationConfig(), rng)
