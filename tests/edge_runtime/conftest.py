"""Builders shared by the runtime's tests: a tiny encoder, a bundle, imagery and an index.

Everything here needs only what the wheel needs, so these tests also run against the wheel.
"""

import math
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from usearch.index import Index

from edge_runtime.artefact import writing_artefact
from edge_runtime.backends.protocol import BackendInfo
from edge_runtime.bundle import PROBES, Bundle
from edge_runtime.camera import Camera, ground_to_image, optical_to_ned
from edge_runtime.index_format import (
    CENTRE,
    EMBEDDINGS,
    IMAGERY,
    TILE_DTYPE,
    TILES,
    VECTORS,
    TileLevel,
)
from edge_runtime.preprocess import EncoderSpec, resize_to_encoder
from edge_runtime.satellite_index import centred, hilbert_order

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Paint = Callable[[F64, F64], U8]
"""World pixel coordinates at the finest zoom, each (H, W), to (H, W, 3 or 4) RGB(A)."""

settings.register_profile("skyfix", derandomize=True, deadline=None, max_examples=40)
settings.load_profile("skyfix")

SPEC = EncoderSpec(
    architecture="thumbnail",
    height_px=32,
    width_px=32,
    embedding_size=12,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    ground_size_m=80.0,
)
WEIGHTS = np.random.default_rng(7).normal(size=(48, SPEC.embedding_size)).astype(np.float32)
WEIGHTS_SHA256 = "ab" * 32
MAP_LAT_DEG, MAP_LON_DEG = 47.5, 8.3
MAP_ZOOM = 17


# --- a tiny ONNX file, serialised by hand: 4x4 thumbnail, one matrix, unit length ---------------


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, value: int | str | bytes) -> bytes:
    """One protobuf field: integers as varints, everything else with its length in front."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _tensor(name: str, array: npt.NDArray[Any]) -> bytes:
    kind = {"float32": 1, "int64": 7}[array.dtype.name]
    dims = b"".join(_field(1, n) for n in array.shape)
    return dims + _field(2, kind) + _field(8, name) + _field(9, array.tobytes())


def _node(operator: str, inputs: Sequence[str], output: str, **integers: int) -> bytes:
    attributes = b"".join(
        _field(5, _field(1, name) + _field(3, value) + _field(20, 2))
        for name, value in integers.items()
    )
    names = b"".join(_field(1, name) for name in inputs)
    return names + _field(2, output) + _field(4, operator) + attributes


def _value(name: str, kind: int, shape: Sequence[int | str]) -> bytes:
    dims = b"".join(_field(1, _field(1 if isinstance(n, int) else 2, n)) for n in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, dims)))


def encoder_onnx(weights: F32, *, input_name: str = "images", normalise: bool = True) -> bytes:
    """ModelProto bytes (onnx.proto3, opset 18) of the encoder that `embedded_slowly` computes."""
    last = "raw" if normalise else "embeddings"
    nodes = [
        _node("Cast", [input_name], "real", to=1),
        _node("Reshape", ["real", "blocks"], "split"),
        _node("ReduceMean", ["split", "inside"], "mean", keepdims=0),
        _node("Reshape", ["mean", "flat"], "row"),
        _node("Sub", ["row", "grey"], "signed"),
        _node("MatMul", ["signed", "weights"], last),
    ]
    if normalise:
        nodes += [
            _node("ReduceL2", ["raw", "last"], "length", keepdims=1),
            _node("Div", ["raw", "length"], "embeddings"),
        ]
    constants: dict[str, npt.NDArray[Any]] = {
        "blocks": np.array([0, 4, 8, 4, 8, 3], np.int64),
        "inside": np.array([2, 4], np.int64),
        "flat": np.array([0, 48], np.int64),
        "grey": np.array([127.5], np.float32),
        "weights": weights,
        "last": np.array([1], np.int64),
    }
    if not normalise:
        del constants["last"]
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, "encoder")
    graph += b"".join(_field(5, _tensor(name, array)) for name, array in constants.items())
    graph += _field(11, _value(input_name, 2, ("batch", 32, 32, 3)))
    graph += _field(12, _value("embeddings", 1, ("batch", weights.shape[1])))
    opset = _field(1, "") + _field(2, 18)
    return _field(1, 8) + _field(2, "skyfix tests") + _field(7, graph) + _field(8, opset)


def embedded_slowly(images: U8) -> F32:
    """What the tiny encoder answers, in float64 on the way."""
    blocks = images.reshape(len(images), 4, 8, 4, 8, 3).astype(np.float64)
    raw = (blocks.mean(axis=(2, 4)).reshape(len(images), 48) - 127.5) @ WEIGHTS.astype(np.float64)
    return np.asarray(raw / np.linalg.norm(raw, axis=1, keepdims=True), np.float32)


class FakeBackend:
    """The tiny encoder without any inference library."""

    def __init__(self) -> None:
        self.info = BackendInfo(
            name="fake", provider="numpy", precision="fp32", library="numpy", threads=None
        )
        self.closed = False

    def embed(self, images: U8) -> F32:
        """As the trained encoder."""
        return embedded_slowly(images)

    def close(self) -> None:
        """Remember it."""
        self.closed = True


@pytest.fixture
def fake_backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture(scope="session")
def make_encoder_onnx() -> Callable[..., bytes]:
    """`encoder_onnx`, with the tiny encoder's weights unless others are given."""

    def make(weights: F32 = WEIGHTS, **options: Any) -> bytes:
        return encoder_onnx(weights, **options)

    return make


# --- a bundle --------------------------------------------------------------------------------


def probe_images(seed: int) -> U8:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 4, 4, 3), np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, axis=1).repeat(8, axis=2))


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Path]:
    """Writes a bundle folder; parts can be replaced to make a bad one."""

    def make(
        root: Path,
        *,
        onnx: bytes | None = None,
        images: U8 | None = None,
        embeddings: F32 | None = None,
        **meta: Any,
    ) -> Path:
        images = probe_images(5) if images is None else images
        whole = {
            "encoder": asdict(SPEC),
            "weights_sha256": WEIGHTS_SHA256,
            "preprocessing_sha256": SPEC.preprocessing_hash(),
            "precisions": {"fp32": {"precision": "fp32", "probes": len(images)}},
        } | meta
        with writing_artefact(root, "bundle", whole) as folder:
            answers = embedded_slowly(images) if embeddings is None else embeddings
            raw = np.random.default_rng(3).integers(0, 256, (2, 45, 61, 3), np.uint8)
            resized = np.stack([resize_to_encoder(image, SPEC) for image in raw])
            np.savez(
                folder / PROBES,
                images=images,
                embeddings=answers,
                made_up=np.arange(len(images)) < 1,
                raw=raw,
                resized=resized,
            )
            data = encoder_onnx(WEIGHTS) if onnx is None else onnx
            (folder / "encoder.fp32.onnx").write_bytes(data)
        return root

    return make


@pytest.fixture(scope="session")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    """A sound bundle folder. Read only: it is shared."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="session")
def bundle(bundle_dir: Path) -> Bundle:
    return Bundle.open(bundle_dir)


# --- imagery and an index --------------------------------------------------------------------


def world_pixel(lat_deg: float, lon_deg: float, zoom: int) -> tuple[float, float]:
    """Position in the world image of a zoom, by the OpenStreetMap wiki's slippy map formula."""
    n = 256 * 2**zoom
    lat = math.radians(lat_deg)
    x = (lon_deg + 180) / 360 * n
    y = (1 - math.log(math.tan(lat) + 1 / math.cos(lat)) / math.pi) / 2 * n
    return x, y


def _coloured_noise(shape: tuple[int, int], seed: int) -> U8:
    rng = np.random.default_rng(seed)
    total = np.zeros((*shape, 3))
    for sigma in (1.5, 6.0, 20.0):
        layer = cv2.GaussianBlur(rng.normal(size=(*shape, 3)), (0, 0), sigma)
        total += layer / layer.std()
    return np.asarray(np.clip(128 + 32 * total, 0, 255), np.uint8)


@pytest.fixture(scope="session")
def coloured_noise() -> Callable[[tuple[int, int], int], U8]:
    """(H, W, 3) uint8 with detail at every size, from a shape and a seed."""
    return _coloured_noise


@pytest.fixture(scope="session")
def make_mbtiles() -> Callable[..., Path]:
    """Writes MBTiles 1.3: lossless tiles around a position, painted by a function."""

    def make(
        path: Path,
        paint: Paint,
        *,
        lat_deg: float = MAP_LAT_DEG,
        lon_deg: float = MAP_LON_DEG,
        zoom: int = MAP_ZOOM,
        across: int = 2,
        overviews: int = 0,
    ) -> Path:
        x, y = world_pixel(lat_deg, lon_deg, zoom)
        # `across` tiles each way, as centred on the position as whole tiles allow.
        first_x, first_y = round(x / 256 - across / 2), round(y / 256 - across / 2)
        px = np.arange(across * 256, dtype=np.float64) + 0.5
        picture = paint(*np.meshgrid(px + first_x * 256, px + first_y * 256))
        n = 2**zoom
        west = first_x / n * 360 - 180
        north, south = (
            math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * row / n))))
            for row in (first_y, first_y + across)
        )
        box = f"{west:.12f},{south:.12f},{west + across / n * 360:.12f},{north:.12f}"
        db = sqlite3.connect(path)
        db.execute("CREATE TABLE metadata (name text, value text)")
        db.execute(
            "CREATE TABLE tiles (zoom_level integer, tile_column integer, tile_row integer, "
            "tile_data blob)"
        )
        db.executemany(
            "INSERT INTO metadata VALUES (?, ?)",
            [("name", "made up"), ("format", "png"), ("bounds", box)],
        )
        for level in range(overviews + 1):
            if level:
                assert first_x % 2 == first_y % 2 == 0
                first_x, first_y = first_x // 2, first_y // 2
                half = (picture.shape[1] // 2, picture.shape[0] // 2)
                picture = np.asarray(cv2.resize(picture, half, interpolation=cv2.INTER_AREA))
            z = zoom - level
            for row in range(0, picture.shape[0], 256):
                for column in range(0, picture.shape[1], 256):
                    tile = picture[row : row + 256, column : column + 256]
                    order = [2, 1, 0, 3][: tile.shape[2]]
                    ok, data = cv2.imencode(".png", np.ascontiguousarray(tile[..., order]))
                    assert ok
                    tx, ty = (first_x + column // 256) % 2**z, first_y + row // 256
                    db.execute(
                        "INSERT INTO tiles VALUES (?, ?, ?, ?)",
                        (z, tx, 2**z - 1 - ty, data.tobytes()),
                    )
        db.commit()
        db.close()
        return path

    return make


@pytest.fixture(scope="session")
def index_dir(tmp_path_factory: pytest.TempPathFactory, make_mbtiles: Callable[..., Path]) -> Path:
    """A sound index folder of some 200 tiles, made by the tiny encoder. Read only: it is shared."""
    from edge_runtime.imagery import ImageryStore

    root = tmp_path_factory.mktemp("index") / "index"
    level = TileLevel(size_m=80.0, stride_m=25.0)
    meta: dict[str, Any] = {
        "weights_sha256": WEIGHTS_SHA256,
        "preprocessing_sha256": SPEC.preprocessing_hash(),
        "architecture": SPEC.architecture,
        "embedded_by": asdict(FakeBackend().info),
        "sources": [],
    }
    with writing_artefact(root, "index", meta) as folder:
        make_mbtiles(folder / IMAGERY, lambda x, y: _coloured_noise((x.shape[0], x.shape[1]), 11))
        store = ImageryStore(folder / IMAGERY)
        south, west, north, east = store.bounds
        m_per_deg = 111_200.0
        margin_lat = 45 / m_per_deg
        margin_lon = margin_lat / math.cos(math.radians(south))
        step = level.stride_m / m_per_deg
        lats = np.arange(south + margin_lat, north - margin_lat, step)
        lons = np.arange(west + margin_lon, east - margin_lon, step / math.cos(math.radians(south)))
        grid = np.array([(lat, lon, 0.0, 0) for lat in lats for lon in lons], TILE_DTYPE)
        grid = grid[hilbert_order(grid["lat_deg"], grid["lon_deg"])]
        patches = [
            store.patch(*t[:2], size_m=level.size_m, size_px=32).image for t in grid.tolist()
        ]
        store.close()
        embeddings = embedded_slowly(np.stack(patches))
        centre = embeddings.mean(axis=0)
        meta["levels"] = [asdict(replace(level, rows=len(grid)))]
        vectors = centred(embeddings, centre).astype(np.float16)
        np.save(folder / TILES, grid)
        np.save(folder / CENTRE, centre)
        np.save(folder / EMBEDDINGS, vectors)
        graph = Index(ndim=vectors.shape[1], metric="cos", dtype="f16")
        graph.add(np.arange(len(vectors), dtype=np.uint64), vectors, threads=1)
        graph.save(str(folder / VECTORS))
        meta["tiles"] = len(grid)
    return root


# --- a flight over the index -------------------------------------------------------------------


class Scene:
    """Photographs of the index's own ground, rendered one ray a pixel."""

    def __init__(self) -> None:
        """Paint the map of `index_dir` once more."""
        x, y = world_pixel(MAP_LAT_DEG, MAP_LON_DEG, MAP_ZOOM)
        self._first_px = (round(x / 256 - 1) * 256, round(y / 256 - 1) * 256)
        self._picture = _coloured_noise((512, 512), 11)
        self.camera = Camera.from_hfov(240, 180, 80.0, stabilised=False)

    @staticmethod
    def position(east_m: float, north_m: float) -> tuple[float, float]:
        """Latitude and longitude at an offset from the middle of the map.

        (Series for the length of a degree: NGA, Snyder 1987 p. 25.)
        """
        lat = math.radians(MAP_LAT_DEG)
        m_per_lat = 111132.954 - 559.822 * math.cos(2 * lat) + 1.175 * math.cos(4 * lat)
        m_per_lon = 111412.84 * math.cos(lat) - 93.5 * math.cos(3 * lat) + 0.118 * math.cos(5 * lat)
        return MAP_LAT_DEG + north_m / m_per_lat, MAP_LON_DEG + east_m / m_per_lon

    def photo(
        self,
        east_m: float,
        north_m: float,
        *,
        height_m: float = 100.0,
        yaw_deg: float = 0.0,
        pitch_deg: float = 0.0,
        roll_deg: float = 0.0,
        camera: Camera | None = None,
    ) -> U8:
        """(H, W, 3) uint8 RGB as a camera there would see it; black beyond the map."""
        camera = camera or self.camera
        ned_from_optical = optical_to_ned(
            camera, yaw_deg=yaw_deg, pitch_deg=pitch_deg, roll_deg=roll_deg
        )
        from_pixel = np.linalg.inv(ground_to_image(camera, ned_from_optical, height_m))
        columns, rows = np.meshgrid(np.arange(camera.width_px), np.arange(camera.height_px))
        ray = np.stack([columns, rows, np.ones_like(rows)]).reshape(3, -1).astype(np.float64)
        east, north, w = from_pixel @ ray
        east, north = east / w + east_m, north / w + north_m
        lat_0, lon_0 = self.position(0.0, 0.0)
        lat_1, lon_1 = self.position(1.0, 1.0)
        lat, lon = lat_0 + north * (lat_1 - lat_0), lon_0 + east * (lon_1 - lon_0)
        n = 256 * 2**MAP_ZOOM
        x = (lon + 180) / 360 * n - 0.5 - self._first_px[0]
        y = (1 - np.arcsinh(np.tan(np.radians(lat))) / math.pi) / 2 * n - 0.5 - self._first_px[1]
        shape = (camera.height_px, camera.width_px)
        x, y = (v.reshape(shape).astype(np.float32) for v in (x, y))
        return np.asarray(cv2.remap(self._picture, x, y, cv2.INTER_LINEAR), np.uint8)


@pytest.fixture(scope="session")
def scene() -> Scene:
    return Scene()


@pytest.fixture(scope="session")
def flight_dir(tmp_path_factory: pytest.TempPathFactory, scene: Scene) -> Path:
    """photos/, telemetry.csv and camera.json of four frames. Read only: it is shared."""
    root = tmp_path_factory.mktemp("flight")
    (root / "photos").mkdir()
    lines = ["filename,t_s,height_m,yaw_deg,pitch_deg,roll_deg"]
    for k in range(4):
        rgb = scene.photo(-30.0 + 12 * k, 10.0 + 5 * k, yaw_deg=20.0 + k, pitch_deg=4.0)
        assert cv2.imwrite(str(root / "photos" / f"{k:03d}.png"), rgb[..., ::-1])
        lines.append(f"{k:03d}.png,{0.5 * k},101.0,{19.0 + k},4.0,0.0")
    (root / "telemetry.csv").write_text("\n".join(lines) + "\n")
    (root / "camera.json").write_text(scene.camera.to_json())
    return root
