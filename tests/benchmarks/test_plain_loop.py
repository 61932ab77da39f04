"""The loop skyfix is measured against is not a straw man: it finds what it can find."""

from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks.plain_loop import F32, U8, PlainLoop, PlainLoopWithFeatures, PlainMap
from edge_runtime.camera import Camera
from edge_runtime.errors import InputError
from edge_runtime.geodesy import distance_m, enu_offset_m, move_lat_lon
from edge_runtime.imagery import ImageryStore, Patch

HERE = (47.0, 8.0)
SIZE_PX = 16
HEIGHT_M, SIZE_M = 100.0, 50.0
CAMERA = Camera(
    width_px=320, height_px=240, fx_px=320.0, fy_px=320.0, cx_px=159.5, cy_px=119.5, distortion=()
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder whose embedding is the picture itself."""
    images = helper.make_tensor_value_info(
        "images", TensorProto.UINT8, ["batch", SIZE_PX, SIZE_PX, 3]
    )
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 3 * SIZE_PX**2])
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["out"]),
    ]
    graph = helper.make_graph(nodes, "picture", [images], [out])
    opset = [helper.make_opsetid("", 17)]
    path = tmp_path_factory.mktemp("plain") / "picture.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def ground(seed: int, side_px: int = 600) -> U8:
    """Ground at 0.3125 m a pixel, which is the camera's at HEIGHT_M: blobs of several sizes."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((side_px, side_px, 3), np.float64)
    for sigma in (2.0, 6.0, 15.0):
        layer = cv2.GaussianBlur(rng.normal(size=picture.shape), (0, 0), sigma)
        picture += layer / layer.std()
    return np.clip(128 + 35 * picture, 0, 255).astype(np.uint8)


def photo_of(picture: U8, path: Path, *, yaw_deg: float = 0.0, shift_px: float = 0.0) -> Path:
    """What the camera sees above the middle, its nose to `yaw_deg`; `shift_px` farther east."""
    middle = (picture.shape[0] - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle + shift_px, middle), yaw_deg, 1.0)
    matrix[:, 2] += np.array([159.5 - middle - shift_px, 119.5 - middle])
    cv2.imwrite(str(path), cv2.warpAffine(picture, matrix, (320, 240)))
    return path


def tile_of(picture: U8, size_px: int) -> U8:
    """The middle SIZE_M of the ground."""
    first = picture.shape[0] // 2 - 80
    square = picture[first : first + 160, first : first + 160]
    return np.asarray(
        cv2.resize(square, (size_px, size_px), interpolation=cv2.INTER_AREA), np.uint8
    )


def map_of(pictures: list[U8]) -> PlainMap:
    rgb = [cv2.cvtColor(tile_of(p, SIZE_PX), cv2.COLOR_BGR2RGB).ravel() for p in pictures]
    embeddings = np.array(rgb, np.float32)
    centre: F32 = embeddings.mean(axis=0)
    embeddings = embeddings - centre
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    places = [move_lat_lon(*HERE, 500.0 * k, 0.0) for k in range(len(pictures))]
    return PlainMap(
        embeddings=embeddings,
        centre=centre,
        lat_deg=np.array([float(p.lat_deg) for p in places]),
        lon_deg=np.array([float(p.lon_deg) for p in places]),
        size_m=SIZE_M,
    )


class Pictures:
    """Imagery of the made-up grounds, 500 m apart."""

    def __init__(self, pictures: list[U8]) -> None:
        self.pictures = pictures

    def gsd_m(self, lat_deg: float) -> float:
        return 0.3125

    def patch(self, lat_deg: float, lon_deg: float, *, size_m: float, size_px: int) -> Patch:
        east_m = float(enu_offset_m(*HERE, lat_deg, lon_deg)[0])
        tile = tile_of(self.pictures[round(east_m / 500)], size_px)
        rgb = np.asarray(cv2.cvtColor(tile, cv2.COLOR_BGR2RGB), np.uint8)
        return Patch(rgb, np.full(tile.shape[:2], 255, np.uint8))


@pytest.mark.parametrize("yaw_deg", [0.0, 37.0, 90.0, -120.0])
def test_the_tile_below_is_found_whatever_the_heading(
    encoder: Path, tmp_path: Path, yaw_deg: float
) -> None:
    pictures = [ground(seed) for seed in range(6)]
    tiles = map_of(pictures)
    loop = PlainLoop(encoder, CAMERA, tiles)
    photo = photo_of(pictures[4], tmp_path / "photo.png", yaw_deg=yaw_deg)
    found = loop.locate(photo, height_m=HEIGHT_M, yaw_deg=yaw_deg)
    assert found == (tiles.lat_deg[4], tiles.lon_deg[4])


def test_features_say_where_in_the_tile(encoder: Path, tmp_path: Path) -> None:
    pictures = [ground(seed) for seed in range(6)]
    imagery = cast("ImageryStore", Pictures(pictures))
    tiles = map_of(pictures)
    loop = PlainLoopWithFeatures(encoder, CAMERA, tiles, imagery)
    photo = photo_of(pictures[4], tmp_path / "photo.png", shift_px=16.0)
    found = loop.locate(photo, height_m=HEIGHT_M, yaw_deg=0.0)
    true = move_lat_lon(float(tiles.lat_deg[4]), float(tiles.lon_deg[4]), 16 * 0.3125, 0.0)
    assert found.lat_deg is not None
    assert found.lon_deg is not None
    assert float(distance_m(found.lat_deg, found.lon_deg, true.lat_deg, true.lon_deg)) < 0.5


def test_ground_that_is_on_no_tile_gets_no_answer_from_features(
    encoder: Path, tmp_path: Path
) -> None:
    pictures = [ground(seed) for seed in range(6)]
    imagery = cast("ImageryStore", Pictures(pictures))
    loop = PlainLoopWithFeatures(encoder, CAMERA, map_of(pictures), imagery)
    photo = photo_of(ground(99), tmp_path / "photo.png")
    assert loop.locate(photo, height_m=HEIGHT_M, yaw_deg=0.0) == (None, None)


def test_ground_larger_than_the_frame_is_filled_up(encoder: Path, tmp_path: Path) -> None:
    pictures = [ground(seed) for seed in range(3)]
    loop = PlainLoop(encoder, CAMERA, map_of(pictures))
    photo = photo_of(pictures[1], tmp_path / "photo.png")
    assert loop.locate(photo, height_m=30.0, yaw_deg=0.0).lat_deg is not None


def test_a_photograph_that_cannot_be_read_is_refused(encoder: Path, tmp_path: Path) -> None:
    loop = PlainLoop(encoder, CAMERA, map_of([ground(0), ground(1)]))
    (tmp_path / "photo.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match="cannot be read as an image"):
        loop.locate(tmp_path / "photo.jpg", height_m=HEIGHT_M, yaw_deg=0.0)


def test_a_map_whose_parts_differ_in_length_is_refused() -> None:
    tiles: dict[str, Any] = vars(map_of([ground(0), ground(1)]))
    with pytest.raises(InputError, match=r"expected \(T, D\)"):
        PlainMap(**(tiles | {"lat_deg": np.zeros(3)}))
