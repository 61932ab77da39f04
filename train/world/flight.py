"""Where the drone is, and what it believes: true poses and the errors of its sensors."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from edge_runtime.camera import Camera, ground_to_image, optical_to_ned
from edge_runtime.geodesy import wrap_degrees
from train.world.config import MAX_FLIGHT_TILT_DEG, MAX_PHOTO_TILT_DEG, WorldConfig
from train.world.georeference import Georeference

F64 = npt.NDArray[np.float64]

GRAVITY_MPS2 = 9.80665
_LEG_STEP_M = 70.0
_CORNER_SIGMA_M = 24.0


@dataclass(frozen=True, kw_only=True)
class Poses:
    """True poses, or measured ones (then the position is not measured). Arrays of length N."""

    t_s: F64
    """(N,) time."""
    xy_m: F64
    """(N, 2) true position on the ground's map, x east, y south."""
    height_m: F64
    """(N,) above ground."""
    yaw_deg: F64
    """(N,) heading of the airframe, clockwise from true north, [-180, 180)."""
    pitch_deg: F64
    """(N,) of the airframe, nose up."""
    roll_deg: F64
    """(N,) of the airframe, right side down."""
    velocity_mps: F64
    """(N, 2) over ground, east and north."""


def footprint_m(camera: Camera, ned_from_optical: F64, height_m: float) -> F64:
    """(4, 2) ground under the image's corners, east and north metres from below the camera."""
    w, h = camera.width_px - 0.5, camera.height_px - 0.5
    corners = np.array([[-0.5, -0.5, 1], [w, -0.5, 1], [w, h, 1], [-0.5, h, 1]])
    ground = corners @ np.linalg.inv(ground_to_image(camera, ned_from_optical, height_m)).T
    return np.asarray(ground[:, :2] / ground[:, 2:])


def _clipped_normal(rng: np.random.Generator, sigma: float, limit: float, count: int) -> F64:
    return np.asarray(np.clip(rng.normal(0, sigma, count), -limit, limit))


def _wander(rng: np.random.Generator, count: int, *, step_s: float, memory_s: float) -> F64:
    """(count,) slowly drifting value of unit standard deviation (first-order Markov)."""
    keep = np.exp(-step_s / memory_s)
    kick = rng.standard_normal(count) * np.sqrt(1 - keep * keep)
    value = np.empty(count)
    last = rng.standard_normal()
    for k in range(count):
        last = keep * last + kick[k]
        value[k] = last
    return value


def random_poses(config: WorldConfig, rng: np.random.Generator) -> Poses:
    """Poses of the training photos: anywhere the whole photo is on the map."""
    count = config.train_photos
    camera = config.camera()
    height = rng.uniform(config.min_height_m, config.max_height_m, count)
    yaw = rng.uniform(-180, 180, count)
    pitch = np.clip(rng.normal(-1.5, 2.2, count), -MAX_PHOTO_TILT_DEG, MAX_PHOTO_TILT_DEG)
    roll = _clipped_normal(rng, 2.5, MAX_PHOTO_TILT_DEG, count)
    where = rng.uniform(0, 1, (count, 2))
    xy = np.empty((count, 2))
    for k in range(count):
        rotation = optical_to_ned(camera, yaw_deg=yaw[k], pitch_deg=pitch[k], roll_deg=roll[k])
        seen = footprint_m(camera, rotation, height[k]) * np.array([1.0, -1.0])
        # 0.5 % more than seen covers the difference between grid and true directions.
        low, high = -1.005 * seen.min(axis=0), config.train_size_m - 1.005 * seen.max(axis=0)
        xy[k] = low + where[k] * np.maximum(high - low, 0)
    heading = np.radians(yaw + rng.normal(0, 8, count))
    speed = rng.uniform(0.3, 1.2, count) * config.speed_mps
    return Poses(
        t_s=np.arange(count) / config.frame_rate_hz,
        xy_m=xy,
        height_m=height,
        yaw_deg=yaw,
        pitch_deg=pitch,
        roll_deg=roll,
        velocity_mps=np.stack([speed * np.sin(heading), speed * np.cos(heading)], axis=1),
    )


def _waypoints(low_m: float, high_m: float, length_m: float, rng: np.random.Generator) -> F64:
    """(W, 2) waypoints in a square, turns of mostly 60 degrees, at least `length_m` of legs."""
    side_m = high_m - low_m
    points = [rng.uniform(low_m, high_m, 2)]
    heading = float(rng.uniform(-np.pi, np.pi))
    flown_m = 0.0
    while flown_m < length_m:
        candidates = rng.uniform(low_m, high_m, (120, 2))
        step = candidates - points[-1]
        leg = np.hypot(step[:, 0], step[:, 1])
        turn = np.abs((np.arctan2(step[:, 1], step[:, 0]) - heading + np.pi) % (2 * np.pi) - np.pi)
        # Prefer legs of a good length with a clear turn, but never straight back.
        wanted = min(220.0, 0.5 * side_m)
        outwards = np.abs(candidates - (low_m + high_m) / 2).max(axis=1) / (side_m / 2)
        cost = np.abs(leg - wanted) / wanted + np.abs(turn - 1.1) * 0.5 + 0.6 * outwards**2
        cost += 6.0 * np.maximum(turn - 1.8, 0) + 3.0 * np.maximum(0.7 - leg / wanted, 0)
        best = int(np.argmin(cost))
        heading = float(np.arctan2(step[best, 1], step[best, 0]))
        flown_m += float(leg[best])
        points.append(candidates[best])
    return np.array(points)


def smooth_path(waypoints_m: F64, step_m: float, count: int) -> F64:
    """(count, 2) points at equal steps along a cubic B-spline, inside the waypoints' hull.

    Args:
        waypoints_m: (W, 2) corners of the path.
        step_m: distance between points along the path.
        count: how many points.
    """
    control = [waypoints_m[0], waypoints_m[0]]
    for a, b in pairwise(waypoints_m):
        pieces = max(1, round(float(np.hypot(*(b - a))) / _LEG_STEP_M))
        control += [a + (b - a) * (k + 1) / pieces for k in range(pieces)]
    p = np.array([*control, waypoints_m[-1], waypoints_m[-1]])
    u = np.linspace(0, 1, 64, endpoint=False)[:, None, None]
    basis = (
        (1 - u) ** 3 / 6,
        (3 * u**3 - 6 * u**2 + 4) / 6,
        (-3 * u**3 + 3 * u**2 + 3 * u + 1) / 6,
        u**3 / 6,
    )
    n = len(p) - 3
    curve = sum(b * p[None, k : k + n] for k, b in enumerate(basis))
    curve = np.asarray(curve).transpose(1, 0, 2).reshape(-1, 2)
    even = _resampled(curve, np.arange(0.0, _length_m(curve), 1.0))
    # A weighted mean of points inside a convex hull stays inside it.
    rounded = gaussian_filter1d(even, _CORNER_SIGMA_M, axis=0, mode="nearest")
    # Both ends bunch up under the filter: leave them out.
    rounded = rounded[int(3 * _CORNER_SIGMA_M) : -int(3 * _CORNER_SIGMA_M)]
    return _resampled(rounded, np.arange(count, dtype=np.float64) * step_m)


def _length_m(line_m: F64) -> float:
    return float(np.hypot(*np.diff(line_m, axis=0).T).sum())


def _resampled(line_m: F64, at_m: F64) -> F64:
    """Points of a line at distances along it."""
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line_m, axis=0).T))])
    return np.stack([np.interp(at_m, along, line_m[:, k]) for k in range(2)], axis=1)


def flight_poses(config: WorldConfig, place: Georeference, rng: np.random.Generator) -> Poses:
    """A flight over the held-out ground along curved legs, whole frames on the map."""
    count = config.frames_per_flight
    step_s = 1 / config.frame_rate_hz
    margin_m = config.reach_m(MAX_FLIGHT_TILT_DEG) * 1.005
    length_m = config.speed_mps * step_s * (count + 4) * 1.3 + 400
    far_m = config.held_out_size_m - margin_m
    # Two points more at each end, so that differences are central everywhere.
    paths = [
        smooth_path(
            _waypoints(margin_m, far_m, length_m, rng), config.speed_mps * step_s, count + 4
        )
        for _ in range(8)
    ]
    path = min(paths, key=lambda line: float(np.hypot(*np.diff(line, 2, axis=0).T).max()))
    jacobian = place.enu_per_xy(path)
    velocity = np.einsum("nij,nj->ni", jacobian, np.gradient(path, step_s, axis=0))
    track = np.unwrap(np.arctan2(velocity[:, 0], velocity[:, 1]))
    turn_radps = np.gradient(track, step_s)
    bank = np.degrees(np.arctan(config.speed_mps * turn_radps / GRAVITY_MPS2))
    keep = slice(2, 2 + count)
    path, velocity, track, bank = path[keep], velocity[keep], track[keep], bank[keep]

    wind_from, wind_mps = rng.uniform(0, 2 * np.pi), rng.uniform(0, 4)
    crosswind = wind_mps * np.sin(wind_from - track)
    crab = np.degrees(np.arcsin(np.clip(crosswind / config.speed_mps, -0.5, 0.5)))
    yaw = np.degrees(track) + crab + 0.8 * _wander(rng, count, step_s=step_s, memory_s=3)
    roll = bank + 0.9 * _wander(rng, count, step_s=step_s, memory_s=1.5)
    pitch = rng.normal(-3.5, 0.7) + 1.1 * _wander(rng, count, step_s=step_s, memory_s=2)
    limit = MAX_FLIGHT_TILT_DEG
    span_m = config.max_height_m - config.min_height_m
    height = rng.uniform(config.min_height_m, config.max_height_m) + 0.06 * span_m * _wander(
        rng, count, step_s=step_s, memory_s=15
    )
    return Poses(
        t_s=np.arange(count, dtype=np.float64) * step_s,
        xy_m=path,
        height_m=np.clip(height, config.min_height_m, config.max_height_m),
        yaw_deg=wrap_degrees(yaw),
        pitch_deg=np.clip(pitch, -limit, limit),
        roll_deg=np.clip(roll, -limit, limit),
        velocity_mps=velocity,
    )


def measured(
    poses: Poses, config: WorldConfig, rng: np.random.Generator, *, one_flight: bool
) -> Poses:
    """What the sensors say of true poses.

    Args:
        poses: the truth; the position is passed through and must not be written as measured.
        config: the sensors' errors.
        rng: the only source of randomness.
        one_flight: biases hold for all rows and errors drift; else each row is its own flight.
    """
    count = len(poses.t_s)
    step_s = 1 / config.frame_rate_hz

    def bias() -> F64:
        return np.asarray(
            np.full(count, rng.standard_normal()) if one_flight else rng.standard_normal(count)
        )

    def drift() -> F64:
        if one_flight:
            return _wander(rng, count, step_s=step_s, memory_s=25)
        return np.asarray(rng.standard_normal(count))

    def noise() -> F64:
        return np.asarray(rng.standard_normal(count))

    # Shares 0.6, 0.6, 0.53 of the sigma: their squares add up to 1.
    yaw = poses.yaw_deg + config.yaw_sigma_deg * (0.6 * bias() + 0.6 * drift() + 0.53 * noise())
    tilt = config.tilt_sigma_deg
    height = poses.height_m * (1 + config.height_sigma * bias() + 0.003 * drift() + 0.003 * noise())
    scale = 1 + 0.02 * bias()
    velocity = poses.velocity_mps * scale[:, None]
    velocity = velocity + config.velocity_sigma_mps * rng.standard_normal((count, 2))
    return Poses(
        t_s=poses.t_s,
        xy_m=poses.xy_m,
        height_m=height,
        yaw_deg=wrap_degrees(yaw),
        pitch_deg=poses.pitch_deg + tilt * noise() + 0.4 * tilt * bias(),
        roll_deg=poses.roll_deg + tilt * noise() + 0.4 * tilt * bias(),
        velocity_mps=velocity,
    )
