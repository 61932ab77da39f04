"""Pictures as the page holds them: small files of a format that every browser shows."""

import math
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ImageryError
from edge_runtime.imagery import ImageryStore
from edge_runtime.sight import Sight

U8 = npt.NDArray[np.uint8]

_FRAME_PX, _VIEW_PX = 640, 400
_WEBP_QUALITY, _JPEG_QUALITY = 70, 80


class PictureFile(NamedTuple):
    """One encoded picture."""

    kind: str
    """"webp" or "jpeg"."""
    data: bytes


class FramePictures(NamedTuple):
    """What there is to see of one frame; None where there is nothing."""

    frame: PictureFile | None
    """As the camera took it, smaller."""
    view: PictureFile | None
    """The ground it saw, north up, as matched."""
    imagery: PictureFile | None
    """The map at the same place."""
    size_m: float | None
    """Side of view and imagery on the ground."""
    lat_deg: float | None
    """Where their middle lies by the best match, believed or not."""
    lon_deg: float | None


def frame_pictures(
    frame_rgb: U8 | None, sight: Sight | None, store: ImageryStore | None
) -> FramePictures:
    """Make the pictures of one frame.

    Args:
        frame_rgb: (H, W, 3) uint8 RGB as it was localised.
        sight: how it was compared with the imagery.
        store: the imagery; without it only the camera's side is made.

    Raises:
        ImageryError: the imagery cannot be read.
    """
    frame = view = imagery = None
    if frame_rgb is not None and frame_rgb.size:
        frame = web_picture(shrunk(frame_rgb, _FRAME_PX))
    if sight is None:
        return FramePictures(frame, None, None, None, None, None)
    view = web_picture(shrunk(_as_matched(sight), _VIEW_PX))
    lat_deg, lon_deg = sight.centre_lat_deg, sight.centre_lon_deg
    if store is not None and lat_deg is not None and lon_deg is not None:
        side_px = min(sight.view_rgb.shape[0], _VIEW_PX)
        patch = store.patch(lat_deg, lon_deg, size_m=sight.size_m, size_px=side_px)
        imagery = web_picture(patch.image)
    return FramePictures(frame, view, imagery, sight.size_m, lat_deg, lon_deg)


def web_picture(rgb: U8) -> PictureFile:
    """Encode as WebP, or as JPEG where this OpenCV has no WebP.

    Raises:
        ImageryError: neither works.
    """
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    try:
        done, data = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, _WEBP_QUALITY])
    except cv2.error:
        done = False
    return PictureFile("webp", data.tobytes()) if done else jpeg_picture(rgb)


def jpeg_picture(rgb: U8) -> PictureFile:
    """Encode as JPEG.

    Raises:
        ImageryError: OpenCV cannot.
    """
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not done:
        msg = f"OpenCV cannot encode a picture of shape {rgb.shape} as JPEG"
        raise ImageryError(msg)
    return PictureFile("jpeg", data.tobytes())


def shrunk(image: U8, longest_px: int) -> U8:
    """The picture, no longer than this."""
    height, width = image.shape[:2]
    scale = longest_px / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _as_matched(sight: Sight) -> U8:
    """The view turned and scaled as the best match says; black where the camera saw nothing.

    A heading that grows turns the ground clockwise in the view, as in `correlation.warped`.
    """
    side_px = sight.view_rgb.shape[0]
    middle = (side_px - 1) / 2
    seen = np.where(sight.mask[..., None] > 0, sight.view_rgb, np.uint8(0))
    scale = sight.scale_correction if math.isfinite(sight.scale_correction) else 1.0
    turn = cv2.getRotationMatrix2D((middle, middle), -sight.yaw_correction_deg, scale)
    return np.asarray(
        cv2.warpAffine(np.asarray(seen, np.uint8), turn, (side_px, side_px)), np.uint8
    )
