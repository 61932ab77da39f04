import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.io import savemat

from edge_runtime.errors import InputError
from edge_runtime.geodesy import distance_m
from tests.train.datasets.tiny_datasets import (
    CVACT_TEST,
    CVACT_TRAIN,
    CVACT_VAL,
    cvact_ids,
    make_tiny,
    write_act_data,
)
from train.datasets.cvact import Cvact, read_act_data, utm55s_to_lat_lon
from train.pair_table import ImageSet

F64 = npt.NDArray[np.float64]


@pytest.fixture
def cvact(tmp_path: Path) -> Path:
    return make_tiny("cvact", tmp_path / "CVACT")


def ids_of(images: ImageSet, ending: str) -> list[str]:
    names = [Path(images.images.name(row)).name for row in range(len(images))]
    assert all(name.endswith(ending) for name in names)
    return [name.removesuffix(ending) for name in names]


def test_each_panorama_is_paired_with_its_satellite_image(cvact: Path) -> None:
    table = Cvact().training(cvact)
    photos, tiles = ids_of(table.photos, "_grdView.jpg"), ids_of(table.tiles, "_satView_polish.jpg")
    assert len(table) == CVACT_TRAIN
    assert photos == [tiles[row] for row in table.tile_of_photo]
    assert (table.name, table.geometry) == ("cvact/train", "panorama")


def test_rows_of_the_matlab_file_count_from_1(tmp_path: Path) -> None:
    ids = cvact_ids(5)
    write_act_data(tmp_path / "ACT_data.mat", ids, train=[4, 0], val=[1], test=[1, 2, 3])
    data = read_act_data(tmp_path / "ACT_data.mat")
    assert data.ids == ids
    assert {part: rows.tolist() for part, rows in data.rows.items()} == {
        "train": [4, 0],
        "val": [1],
        "test": [1, 2, 3],
    }


def test_panoramas_named_in_a_cell_array_are_read_too(tmp_path: Path) -> None:
    ids = cvact_ids(3)
    cell = np.empty((3, 1), object)
    cell[:, 0] = ids
    one = {"trainInd": [[1.0]], "valInd": [[2.0]]}
    savemat(
        tmp_path / "ACT_data.mat",
        {
            "panoIds": cell,
            "utm": np.full((3, 2), 1e6),
            "trainSet": one,
            "valSet": one,
            "valSetAll": one,
        },
    )
    assert read_act_data(tmp_path / "ACT_data.mat").ids == ids


def test_validation_reads_the_small_set_and_testing_the_large_one(cvact: Path) -> None:
    (val,), (test,) = Cvact().tasks(cvact), Cvact(name="cvact-test", part="test").tasks(cvact)
    assert (val.name, len(val.queries), len(val.gallery)) == ("cvact/val", CVACT_VAL, CVACT_VAL)
    assert (test.name, len(test.queries)) == ("cvact-test/test", CVACT_TEST)
    assert "ANU_data_small" in val.queries.images.name(0)
    assert "ANU_data_test" in test.gallery.images.name(0)


def test_labels_are_rows_of_the_matlab_file(cvact: Path) -> None:
    (task,) = Cvact(name="cvact-test", part="test").tasks(cvact)
    ids = cvact_ids()
    assert [ids[row] for row in task.gallery_labels] == ids_of(task.gallery, "_satView_polish.jpg")
    assert [ids[row] for row in task.query_labels] == ids_of(task.queries, "_grdView.jpg")


def test_the_one_pair_the_owners_do_not_have_is_left_out_and_told(cvact: Path) -> None:
    gone = sorted((cvact / "ANU_data_small/streetview").iterdir())
    data = read_act_data(cvact / "ACT_data.mat")
    absent = next(p for p in gone if p.name[:22] == data.ids[data.rows["train"][3]])
    absent.unlink()
    told: list[str] = []
    table = Cvact().training(cvact, note=told.append)
    assert len(table) == len(table.tiles) == CVACT_TRAIN - 1
    assert absent.name[:22] not in ids_of(table.tiles, "_satView_polish.jpg")
    missing = f"ANU_data_small/streetview/{absent.name}"
    assert told == [f"cvact/train: 1 of {CVACT_TRAIN} pairs left out, no {missing}"]


def test_a_second_absent_pair_is_refused(cvact: Path) -> None:
    data = read_act_data(cvact / "ACT_data.mat")
    for row in data.rows["train"][:2]:
        (cvact / f"ANU_data_small/satview_polish/{data.ids[row]}_satView_polish.jpg").unlink()
    with pytest.raises(InputError, match=r"cvact/train lacks 2 of the 48 images that ACT_data.mat"):
        Cvact().training(cvact)


def test_an_absent_validation_image_is_refused(cvact: Path) -> None:
    data = read_act_data(cvact / "ACT_data.mat")
    name = f"ANU_data_small/streetview/{data.ids[data.rows['val'][0]]}_grdView.jpg"
    (cvact / name).unlink()
    with pytest.raises(InputError, match=rf"cvact/val lacks 1 of the 16 .* the first is {name}"):
        Cvact().tasks(cvact)


def test_images_converted_to_png_are_read(cvact: Path) -> None:
    for path in (cvact / "ANU_data_small/satview_polish").iterdir():
        path.rename(path.with_suffix(".png"))
    (task,) = Cvact().tasks(cvact)
    assert len(ids_of(task.gallery, "_satView_polish.png")) == CVACT_VAL


def krueger_utm55s(lat_deg: F64, lon_deg: F64) -> F64:
    """(N, 2) easting and northing by Krueger's series to n^4 (Karney 2011, arXiv:1002.1417)."""
    a, f = 6378137.0, 1 / 298.257223563
    n = f / (2 - f)
    e = math.sqrt(f * (2 - f))
    radius = a / (1 + n) * (1 + n**2 / 4 + n**4 / 64)
    alpha = (
        n / 2 - 2 * n**2 / 3 + 5 * n**3 / 16 + 41 * n**4 / 180,
        13 * n**2 / 48 - 3 * n**3 / 5 + 557 * n**4 / 1440,
        61 * n**3 / 240 - 103 * n**4 / 140,
        49561 * n**4 / 161280,
    )
    phi, lam = np.radians(lat_deg), np.radians(lon_deg - 147.0)
    conformal = np.sinh(np.arctanh(np.sin(phi)) - e * np.arctanh(e * np.sin(phi)))
    xi = np.arctan2(conformal, np.cos(lam))
    eta = np.arcsinh(np.sin(lam) / np.hypot(conformal, np.cos(lam)))
    east, north = eta.copy(), xi.copy()
    for j, factor in enumerate(alpha, 1):
        north += factor * np.sin(2 * j * xi) * np.cosh(2 * j * eta)
        east += factor * np.cos(2 * j * xi) * np.sinh(2 * j * eta)
    scale = 0.9996 * radius
    return np.stack([500_000 + scale * east, 10_000_000 + scale * north], axis=1)


def test_positions_are_wgs84_of_utm_zone_55_south() -> None:
    utm_m = np.random.default_rng(0).uniform((680e3, 6060e3), (710e3, 6110e3), (50, 2))
    at = utm55s_to_lat_lon(utm_m)
    assert at is not None
    assert np.allclose(krueger_utm55s(at.lat_deg, at.lon_deg), utm_m, rtol=0, atol=1e-3)
    assert ((at.lat_deg > -35.7) & (at.lat_deg < -35.0)).all()  # Canberra
    assert ((at.lon_deg > 148.9) & (at.lon_deg < 149.4)).all()


def test_northing_before_easting_is_the_same_place() -> None:
    utm_m = np.array([[690_000.0, 6_090_000.0], [700_000.0, 6_080_000.0]])
    assert np.array_equal(
        np.array(utm55s_to_lat_lon(utm_m)), np.array(utm55s_to_lat_lon(utm_m[:, ::-1]))
    )


def test_distances_on_the_ground_are_those_of_the_grid(cvact: Path) -> None:
    """Steps of (30, 7) m; the grid's scale at this easting is 1.00005."""
    (task,) = Cvact().tasks(cvact)
    lat, lon, rows = task.queries.lat_deg, task.queries.lon_deg, task.query_labels
    assert lat is not None
    assert lon is not None
    found = distance_m(lat[0], lon[0], lat, lon)
    expected = np.abs(rows - rows[0]) * math.hypot(30, 7)
    assert np.allclose(found, expected, rtol=2e-4, atol=1e-6)


def test_a_tile_is_146_m_wide(cvact: Path) -> None:
    """1200 px of 0.12 m as published, of 0.122 m by Web Mercator at zoom 20."""
    table = Cvact().training(cvact)
    assert table.tiles.size_m is not None
    assert table.tiles.size_m == pytest.approx(146.4, abs=0.5)


def test_coordinates_of_elsewhere_are_unknown_and_that_is_told(cvact: Path) -> None:
    ids = cvact_ids()
    one = {"trainInd": [[1.0]], "valInd": [[1.0]]}
    savemat(
        cvact / "ACT_data.mat",
        {
            "panoIds": np.array(ids),
            "utm": np.zeros((len(ids), 2)),
            "trainSet": one,
            "valSet": one,
            "valSetAll": one,
        },
    )
    for folder, ending in (("streetview", "grdView"), ("satview_polish", "satView_polish")):
        (cvact / f"ANU_data_small/{folder}/{ids[0]}_{ending}.jpg").touch()
    told: list[str] = []
    table = Cvact().training(cvact, note=told.append)
    assert table.photos.lat_deg is table.tiles.size_m is None
    assert told == ["cvact: utm in ACT_data.mat is not around Canberra; positions are unknown"]


@pytest.mark.parametrize("rows", [[0, 9], [-1]], ids=["beyond the end", "before the start"])
def test_rows_that_point_nowhere_are_refused(tmp_path: Path, rows: list[int]) -> None:
    write_act_data(tmp_path / "ACT_data.mat", cvact_ids(9), train=rows, val=[1], test=[2])
    with pytest.raises(InputError, match="rows of train do not lie within 1 to 9"):
        read_act_data(tmp_path / "ACT_data.mat")


def test_a_matlab_file_of_something_else_is_refused(tmp_path: Path) -> None:
    savemat(tmp_path / "ACT_data.mat", {"panoIds": np.array(["a"])})
    with pytest.raises(InputError, match=r"ACT_data\.mat cannot be read \(KeyError: 'utm'\)"):
        read_act_data(tmp_path / "ACT_data.mat")


def test_a_file_that_is_no_matlab_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ACT_data.mat").write_bytes(b"<html>log in first</html>" * 20)
    with pytest.raises(InputError, match=r"ACT_data\.mat cannot be read .*Copy it again"):
        read_act_data(tmp_path / "ACT_data.mat")


def test_the_large_set_is_asked_for_only_when_it_is_measured_on(tmp_path: Path) -> None:
    root = make_tiny("cvact", tmp_path / "CVACT")
    (root / "ANU_data_test").rename(tmp_path / "elsewhere")
    assert len(Cvact().tasks(root)) == 1
    with pytest.raises(
        InputError,
        match=r"^CVACT in .*: no ANU_data_test/streetview, ANU_data_test/satview_polish; expected "
        r".* https://github\.com/Liumouliu/OriCNN",
    ):
        Cvact(name="cvact-test", part="test").tasks(root)
