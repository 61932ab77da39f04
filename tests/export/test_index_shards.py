"""Whoever embeds what, whenever, and whatever was embedded before: the index is the same."""

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import rasterio

from edge_runtime.backends.protocol import BackendInfo
from edge_runtime.bundle import Bundle
from edge_runtime.errors import InputError
from edge_runtime.satellite_index import SatelliteIndex
from export.index_build import build_index, merge_index
from export.index_claims import STALE_AFTER_S, claimed
from export.index_folder import BuildFolder, build_folder_of
from export.index_parts import Parts
from export.index_plan import PlanOptions, TileSize
from export.index_preparation import BuildOptions, Shard
from export.index_update import kept_folder_of

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
MakeRaster = Callable[..., Any]

PROJECTION = np.random.default_rng(5).normal(size=(16 * 16 * 3, 96))
PLAN = PlanOptions(sizes=(TileSize(40.0, 15.0), TileSize(70.0, 25.0)), headings=3)
PART_ROWS = 24


class Thumbnails:
    """A backend without a network, which counts different pictures."""

    def __init__(self, precision: Any = "fp32") -> None:
        self.info = BackendInfo(
            name="fake", provider="numpy", precision=precision, library="numpy", threads=None
        )
        self.seen: set[bytes] = set()

    def embed(self, images: U8) -> F32:
        self.seen |= {hashlib.sha256(image.tobytes()).digest() for image in images}
        small = images.reshape(len(images), 16, 4, 16, 4, 3).mean(axis=(2, 4))
        rows = (small.reshape(len(images), -1) - 128) @ PROJECTION
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    def close(self) -> None:
        """Nothing to free."""


@pytest.fixture
def imagery(make_raster: MakeRaster, coloured_noise: Callable[..., Any], tmp_path: Path) -> Path:
    path: Path = make_raster(tmp_path / "map.tif", coloured_noise(), crs="EPSG:3857", side=390).path
    return path


def build(
    imagery: Sequence[Path],
    out: Path,
    bundle: Bundle,
    *,
    plan: PlanOptions = PLAN,
    backend: Thumbnails | None = None,
    **options: Any,
) -> int | None:
    chosen = BuildOptions(**({"part_rows": PART_ROWS} | options))
    return build_index(imagery, out, bundle, backend or Thumbnails(), plan, chosen)


def files_of(folder: Path) -> dict[str, str]:
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.iterdir())
        if p.name != "manifest.json" and not p.name.startswith(".")
    }


def id_of(folder: Path) -> str:
    index = SatelliteIndex.open(folder)
    index.close()
    return index.id


def assert_same(one: Path, other: Path) -> None:
    assert files_of(one) == files_of(other)
    assert id_of(one) == id_of(other)


# --- shards ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_any_number_of_shards_in_any_order_gives_the_same_index(
    shards: int, imagery: Path, bundle: Bundle, tmp_path: Path
) -> None:
    build([imagery], tmp_path / "whole", bundle)
    order = np.random.default_rng(shards).permutation(shards) + 1
    for number in order.tolist():
        assert build([imagery], tmp_path / "index", bundle, shard=Shard(number, shards)) is None
        assert not (tmp_path / "index").exists()
    merge_index(BuildFolder(build_folder_of(tmp_path / "index")), tmp_path / "index")
    assert_same(tmp_path / "index", tmp_path / "whole")
    assert not build_folder_of(tmp_path / "index").exists()


def test_parts_of_another_size_give_the_same_index(
    imagery: Path, bundle: Bundle, tmp_path: Path
) -> None:
    build([imagery], tmp_path / "one", bundle, part_rows=24)
    build([imagery], tmp_path / "other", bundle, part_rows=100)
    assert_same(tmp_path / "one", tmp_path / "other")


def test_the_command_without_shards_embeds_only_what_is_left(
    imagery: Path, bundle: Bundle, tmp_path: Path
) -> None:
    first, second, all_at_once = Thumbnails(), Thumbnails(), Thumbnails()
    build([imagery], tmp_path / "index", bundle, backend=first, shard=Shard(2, 3))
    build([imagery], tmp_path / "index", bundle, backend=second)
    build([imagery], tmp_path / "whole", bundle, backend=all_at_once)
    assert not first.seen & second.seen
    assert first.seen | second.seen == all_at_once.seen
    assert_same(tmp_path / "index", tmp_path / "whole")


def test_merging_before_all_shards_ended_says_how_many_parts_are_missing(
    imagery: Path, bundle: Bundle, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    build([imagery], out, bundle, shard=Shard(1, 2))
    with pytest.raises(InputError, match=r"lacks \d+ of \d+ parts \(1, 3, .*run the shards"):
        merge_index(BuildFolder(build_folder_of(out)), out)
    assert not out.exists()


def test_only_one_process_puts_the_parts_together(
    imagery: Path, bundle: Bundle, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    build([imagery], out, bundle, shard=Shard(1, 1))
    folder = BuildFolder(build_folder_of(out))
    with claimed(folder.root / "assembly.claim"), pytest.raises(InputError, match="another proces"):
        merge_index(folder, out)
    assert merge_index(folder, out)


def test_merging_a_folder_that_is_no_build_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no plan\.json"):
        merge_index(BuildFolder(tmp_path), tmp_path / "index")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_part_is_embedded_again(
    damage: str, imagery: Path, bundle: Bundle, tmp_path: Path
) -> None:
    build([imagery], tmp_path / "whole", bundle)
    out = tmp_path / "index"
    for number in (1, 2):
        build([imagery], out, bundle, shard=Shard(number, 2))
    part = build_folder_of(out) / "parts" / "part-000002.npy"
    data = bytearray(part.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    part.write_bytes(data[: {"truncated": -7, "flipped": len(data), "empty": 0}[damage]])
    backend = Thumbnails()
    build([imagery], out, bundle, backend=backend)
    assert 0 < len(backend.seen) <= PART_ROWS
    assert_same(out, tmp_path / "whole")


def test_a_part_of_another_plan_is_not_taken(tmp_path: Path) -> None:
    sizes = {"places": 10, "part_places": 5, "embedding_size": 4}
    mine, other = (Parts(tmp_path, plan, **sizes) for plan in ("a", "b"))
    mine.write(0, np.zeros(3, mine._dtype))
    assert mine.read(0) is not None
    assert other.read(0) is None
    assert mine.missing() == [1]
    assert [list(mine.places_of(part)) for part in range(len(mine))] == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9],
    ]


@pytest.mark.parametrize("shard", [(0, 4), (5, 4), (1, 0)])
def test_a_shard_that_is_none_is_refused(shard: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="expected 1/N to N/N"):
        BuildOptions(shard=Shard(*shard))


# --- claims ------------------------------------------------------------------------------------


def test_a_claim_is_had_by_one_and_free_again_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "piece.claim"
    with claimed(path) as mine, claimed(path) as other:
        assert mine
        assert not other
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["dead", "nothing", "silent"])
def test_a_claim_whose_holder_died_is_anyones(content: str, tmp_path: Path) -> None:
    import json
    import socket

    path = tmp_path / "piece.claim"
    # Process numbers end at 4,194,304 on Linux.
    here = {"host": socket.gethostname(), "pid": 4_999_999, "token": "x"}
    holder = {"dead": json.dumps(here), "nothing": "", "silent": json.dumps(here | {"host": "?"})}
    path.write_text(holder[content])
    with claimed(path) as mine:
        assert mine == (content == "dead")
    if content != "dead":
        long_ago = time.time() - STALE_AFTER_S - 1
        os.utime(path, (long_ago, long_ago))
        with claimed(path) as mine:
            assert mine
    assert list(tmp_path.iterdir()) == []


# --- what may not change between two runs ------------------------------------------------------


def other_bundle(bundle: Bundle) -> Bundle:
    from dataclasses import replace

    return replace(bundle, weights_sha256="ab" * 32)


def test_going_on_with_other_tiles_says_what_differs_and_what_to_do(
    imagery: Path, bundle: Bundle, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    build([imagery], out, bundle, shard=Shard(1, 2))
    plan = PlanOptions(sizes=(TileSize(50.0, 15.0),), headings=3)
    said = r"another plan \(sizes was \[\[40\.0, .*is \[\[50\.0, 15\.0\]\]\).*--restart"
    with pytest.raises(InputError, match=said):
        build([imagery], out, bundle, plan=plan)
    assert build([imagery], out, bundle, plan=plan, restart=True)


def test_going_on_with_another_encoder_or_precision_is_refused(
    imagery: Path, bundle: Bundle, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    build([imagery], out, bundle, shard=Shard(1, 2))
    with pytest.raises(InputError, match=r"weights_sha256 was .*is \"abab"):
        build([imagery], out, other_bundle(bundle))
    with pytest.raises(InputError, match=r'precision was "fp32", is "fp16"'):
        build([imagery], out, bundle, backend=Thumbnails("fp16"))


def test_going_on_with_changed_imagery_is_refused(
    imagery: Path, bundle: Bundle, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    build([imagery], out, bundle, shard=Shard(1, 2))
    os.utime(imagery, (1, 1))
    with pytest.raises(InputError, match=r"another imagery \(.*map\.tif was .*--restart"):
        build([imagery], out, bundle)
    staged = build_folder_of(out) / "imagery.mbtiles"
    assert staged.exists()


def test_staged_imagery_that_was_altered_is_not_cut(
    imagery: Path, bundle: Bundle, tmp_path: Path
) -> None:
    from edge_runtime.errors import ImageryError

    out = tmp_path / "index"
    build([imagery], out, bundle, shard=Shard(1, 2))
    staged = build_folder_of(out) / "imagery.mbtiles"
    data = bytearray(staged.read_bytes())
    data[-1] ^= 1
    staged.write_bytes(data)
    with pytest.raises(ImageryError, match="was altered since it was made"):
        build([imagery], out, bundle)


def test_a_disk_that_is_too_small_is_refused_before_anything_is_embedded(
    imagery: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage(0, 0, 100_000))
    backend = Thumbnails()
    with pytest.raises(InputError, match=r"0 MB free; this index needs about \d MB"):
        build([imagery], tmp_path / "index", bundle, backend=backend)
    assert not backend.seen


# --- updates -----------------------------------------------------------------------------------


def patched(imagery: Path, out: Path) -> Path:
    """The same map with one corner painted over."""
    with rasterio.open(imagery) as file:
        image, profile = file.read(), file.profile
    noise = np.random.default_rng(9).integers(0, 256, (3, 90, 90), np.uint8)
    image[:, :90, 300:] = [cv2.GaussianBlur(band, (0, 0), 2) for band in noise]
    with rasterio.open(out, "w", **profile) as file:
        file.write(image)
    return out


def test_an_update_embeds_what_changed_and_gives_what_a_build_from_scratch_gives(
    imagery: Path, bundle: Bundle, tmp_path: Path
) -> None:
    build([imagery], tmp_path / "index", bundle)
    newer = patched(imagery, tmp_path / "newer.tif")
    scratch, update = Thumbnails(), Thumbnails()
    build([newer], tmp_path / "scratch", bundle, backend=scratch)
    build([newer], tmp_path / "index", bundle, backend=update, update=tmp_path / "index")
    assert_same(tmp_path / "index", tmp_path / "scratch")
    assert 0 < len(update.seen) < len(scratch.seen) / 2
    # The update can be updated in its turn.
    again = Thumbnails()
    build([newer], tmp_path / "index", bundle, backend=again, update=tmp_path / "index")
    assert not again.seen
    assert_same(tmp_path / "index", tmp_path / "scratch")


def test_on_a_fixed_grid_a_map_that_grows_keeps_its_tiles(
    make_raster: MakeRaster, coloured_noise: Callable[..., Any], bundle: Bundle, tmp_path: Path
) -> None:
    whole = make_raster(tmp_path / "w.tif", coloured_noise(), crs="EPSG:3857", side=512).path
    with rasterio.open(whole) as file:
        part = file.read(window=((0, 512), (0, 300)))
        profile = file.profile | {"width": 300}
    with rasterio.open(tmp_path / "part.tif", "w", **profile) as file:
        file.write(part)
    plan = PlanOptions(sizes=(TileSize(40.0, 20.0),), grid="fixed")
    first, second = Thumbnails(), Thumbnails()
    build([tmp_path / "part.tif"], tmp_path / "index", bundle, plan=plan, backend=first)
    build(
        [whole],
        tmp_path / "index",
        bundle,
        plan=plan,
        backend=second,
        update=tmp_path / "index",
    )
    # Only tiles beside the seam, where pixels of the edge were warped and compressed otherwise.
    assert len(first.seen & second.seen) == 0
    rows = len(np.load(tmp_path / "index" / "tiles.npy"))
    assert rows - len(second.seen) > len(first.seen) / 2


def test_without_kept_embeddings_or_with_another_encoders_no_update_is_made(
    imagery: Path, bundle: Bundle, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    build([imagery], out, bundle, keep_embeddings=False)
    assert not kept_folder_of(out).exists()
    with pytest.raises(InputError, match=r"index\.embeddings is missing.*without --update"):
        build([imagery], out, bundle, update=out)
    build([imagery], out, bundle)
    with pytest.raises(InputError, match=r"embedded with weights_sha256 .*without --update"):
        build([imagery], out, other_bundle(bundle), update=out)
    raw = kept_folder_of(out) / "raw.npy"
    data = bytearray(raw.read_bytes())
    data[-1] ^= 1
    raw.write_bytes(data)
    with pytest.raises(InputError, match=r"raw\.npy is missing or was altered"):
        build([imagery], out, bundle, update=out)
