"""Photos from true poses: perspective, lens and sensor."""

import csv
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.camera import Camera, ground_to_image, optical_to_ned
from edge_runtime.geodesy import move_lat_lon
from train.world.flight import Poses
from train.world.georeference import Georeference

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]

_GRAIN_PX = 1536


def true_rotation(camera: Camera, poses: Poses, k: int) -> F64:
    """(3, 3) optical axes to north-east-down of pose k."""
    return optical_to_ned(
        camera,
        yaw_deg=float(poses.yaw_deg[k]),
        pitch_deg=float(poses.pitch_deg[k]),
        roll_deg=float(poses.roll_deg[k]),
    )


def warped(ground_rgb: U8, gsd_m: float, map_to_image: F64, camera: Camera) -> U8:
    """The ground as the camera sees it, (height, width, 3) RGB, without aliasing.

    Args:
        ground_rgb: (S, S, 3) rendering.
        gsd_m: its metres per pixel.
        map_to_image: (3, 3) homography from map metres to pixels of `camera`.
        camera: gives the image size.
    """
    w, h = camera.width_px, camera.height_px
    corners = np.array([[-1.0, -1, 1], [w, -1, 1], [w, h, 1], [-1, h, 1]])
    seen = corners @ np.linalg.inv(map_to_image).T
    seen_px = seen[:, :2] / seen[:, 2:] / gsd_m
    low = np.maximum(np.floor(seen_px.min(axis=0)).astype(int) - 4, 0)
    high = np.minimum(np.ceil(seen_px.max(axis=0)).astype(int) + 4, len(ground_rgb))
    # Bilinear sampling is enough down to about one sample per ground pixel; finer when coarser.
    widest_px = np.hypot(*(seen_px - np.roll(seen_px, 1, axis=0)).T) / np.array([h, w, h, w])
    fine = max(1, int(np.ceil(widest_px.max() / 1.35)))
    pixel_to_map = np.array(
        [[gsd_m, 0, gsd_m * (low[0] + 0.5)], [0, gsd_m, gsd_m * (low[1] + 0.5)], [0, 0, 1]]
    )
    finer = np.array([[fine, 0, (fine - 1) / 2], [0, fine, (fine - 1) / 2], [0, 0, 1.0]])
    image = cv2.warpPerspective(
        ground_rgb[low[1] : high[1], low[0] : high[0]],
        finer @ map_to_image @ pixel_to_map,
        (w * fine, h * fine),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if fine > 1:
        image = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)
    return np.asarray(image, np.uint8)


def map_to_image(camera: Camera, rotation: F64, height_m: float, xy_m: F64, enu_per_xy: F64) -> F64:
    """(3, 3) homography from map (x, y, 1) metres to pixels.

    Args:
        camera: intrinsics.
        rotation: (3, 3) optical axes to north-east-down.
        height_m: camera above ground.
        xy_m: (2,) the point below the camera.
        enu_per_xy: (2, 2) `Georeference.enu_per_xy` there.
    """
    to_enu = np.eye(3)
    to_enu[:2, :2] = enu_per_xy
    to_enu[:2, 2] = -enu_per_xy @ xy_m
    return np.asarray(ground_to_image(camera, rotation, height_m) @ to_enu)


class Developer:
    """Adds what lens and sensor do. Thread-safe."""

    def __init__(self, camera: Camera, rng: np.random.Generator) -> None:
        self._grain: F32 = rng.standard_normal((_GRAIN_PX, _GRAIN_PX), dtype=np.float32)
        y, x = np.mgrid[: camera.height_px, : camera.width_px].astype(np.float32)
        r2 = ((x - camera.cx_px) ** 2 + (y - camera.cy_px) ** 2) / (
            camera.cx_px**2 + camera.cy_px**2
        )
        self._r2: F32 = np.asarray(r2, np.float32)

    def develop(self, rgb: U8, rng: np.random.Generator) -> U8:
        """(H, W, 3) RGB scene to (H, W, 3) **BGR** photo, both uint8."""
        height, width = rgb.shape[:2]
        soft = cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.45, 0.95))
        exposure = np.exp(rng.normal(0, 0.13))
        balance = np.exp(rng.normal(0, 0.035, 3)) * exposure
        contrast, gamma = np.exp(rng.normal(0, 0.08)), np.exp(rng.normal(0, 0.08))
        level = np.arange(256)[:, None] / 255
        curve = ((level**gamma - 0.45) * contrast + 0.45) * balance * 255 + rng.normal(0, 3)
        lut = np.asarray(np.clip(curve, 0, 255), np.uint8).reshape(256, 1, 3)
        image = cv2.LUT(soft, lut).astype(np.float32)
        falloff = 1 - rng.uniform(0.08, 0.3) * self._r2
        image *= falloff[..., None]
        sigma = rng.uniform(1.0, 4.0)
        for channel in range(3):
            top, left = rng.integers(0, np.maximum(1, _GRAIN_PX - np.array([height, width])))
            image[..., channel] += sigma * self._grain[top : top + height, left : left + width]
        return np.asarray(cv2.convertScaleAbs(np.maximum(image, 0))[..., ::-1], np.uint8)


def take_photos(
    folder: Path,
    ground_rgb: U8,
    gsd_m: float,
    place: Georeference,
    camera: Camera,
    poses: Poses,
    developer: Developer,
    *,
    seed: tuple[int, int],
    threads: int,
    progress: Callable[[float], None],
) -> None:
    """Write 000000.jpg and so on, one per pose.

    Args:
        folder: an existing folder.
        ground_rgb: (S, S, 3) drone rendering, RGB.
        gsd_m: its metres per pixel.
        place: where it lies.
        camera: the drone's camera.
        poses: the truth.
        developer: lens and sensor.
        seed: world seed and stream; photo k draws from (seed, stream, k), so threads do not matter.
        threads: photos rendered at once.
        progress: called with 0..1, from this thread.
    """
    jacobians = place.enu_per_xy(poses.xy_m) if len(poses.t_s) else np.empty((0, 2, 2))

    def take(k: int) -> None:
        rng = np.random.default_rng([*seed, k])
        rotation = true_rotation(camera, poses, k)
        homography = map_to_image(
            camera, rotation, float(poses.height_m[k]), poses.xy_m[k], jacobians[k]
        )
        photo = developer.develop(warped(ground_rgb, gsd_m, homography, camera), rng)
        quality = int(rng.integers(80, 96))
        jpeg = cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        (folder / f"{k:06d}.jpg").write_bytes(jpeg.tobytes())

    with ThreadPoolExecutor(threads) as pool:
        for done, _ in enumerate(pool.map(take, range(len(poses.t_s))), start=1):
            if done % 25 == 0:
                progress(done / len(poses.t_s))


def write_telemetry(path: Path, poses: Poses) -> None:
    """Write measured poses; the position is left out."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["filename", "t_s", "height_m", "yaw_deg", "pitch_deg", "roll_deg",
             "velocity_east_mps", "velocity_north_mps"]
        )  # fmt: skip
        for k in range(len(poses.t_s)):
            angles = (poses.yaw_deg[k], poses.pitch_deg[k], poses.roll_deg[k])
            writer.writerow(
                [f"{k:06d}.jpg", f"{poses.t_s[k]:.3f}", f"{poses.height_m[k]:.2f}"]
                + [f"{angle:.2f}" for angle in angles]
                + [f"{v:.2f}" for v in poses.velocity_mps[k]]
            )


def write_truth(path: Path, poses: Poses, place: Georeference, camera: Camera) -> None:
    """Write true poses and where the optical axis meets the ground."""
    drone = place.lat_lon(poses.xy_m) if len(poses.t_s) else None
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["filename", "t_s", "lat_deg", "lon_deg", "height_m", "yaw_deg", "pitch_deg",
             "roll_deg", "look_lat_deg", "look_lon_deg"]
        )  # fmt: skip
        if drone is None:
            return
        for k in range(len(poses.t_s)):
            north, east, down = true_rotation(camera, poses, k)[:, 2]
            reach_m = float(poses.height_m[k]) / down
            lat, lon = drone.lat_deg[k], drone.lon_deg[k]
            look = move_lat_lon(lat, lon, east * reach_m, north * reach_m)
            angles = (poses.yaw_deg[k], poses.pitch_deg[k], poses.roll_deg[k])
            writer.writerow(
                [f"{k:06d}.jpg", f"{poses.t_s[k]:.3f}", f"{lat:.8f}", f"{lon:.8f}"]
                + [f"{poses.height_m[k]:.3f}"]
                + [f"{angle:.4f}" for angle in angles]
                + [f"{look.lat_deg:.8f}", f"{look.lon_deg:.8f}"]
            )
