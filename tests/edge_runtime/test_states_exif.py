import io
import math
import os
import struct
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_runtime.errors import InputError
from edge_runtime.state import VehicleState
from edge_runtime.states.exif import PhotoFacts, facts_of_jpeg, read_exif
from edge_runtime.states.opening import open_states

Entry = tuple[int, int, int, bytes]
"""Tag, type, count and value."""

DJI = {
    "RelativeAltitude": "+39.80",
    "FlightYawDegree": "+46.00",
    "FlightPitchDegree": "+1.80",
    "FlightRollDegree": "-3.00",
    "GimbalYawDegree": "+45.00",
    "GimbalPitchDegree": "-89.90",
    "GimbalRollDegree": "+0.00",
    "FlightXSpeed": "+3.5",
    "FlightYSpeed": "-1.5",
}


def text(tag: int, value: str) -> Entry:
    raw = value.encode() + b"\0"
    return tag, 2, len(raw), raw


def short(tag: int, value: int, order: str) -> Entry:
    return tag, 3, 1, struct.pack(f"{order}H", value)


def ratios(tag: int, order: str, *values: tuple[int, int]) -> Entry:
    return tag, 5, len(values), b"".join(struct.pack(f"{order}II", *v) for v in values)


def directory(entries: list[Entry], at: int, order: str) -> bytes:
    """A TIFF directory at an offset, with what does not fit in its entries behind it."""
    head = struct.pack(f"{order}H", len(entries))
    behind_at = at + 2 + 12 * len(entries) + 4
    behind = b""
    for tag, kind, count, raw in entries:
        head += struct.pack(f"{order}HHI", tag, kind, count)
        if len(raw) <= 4:
            head += raw.ljust(4, b"\0")
        else:
            head += struct.pack(f"{order}I", behind_at + len(behind))
            behind += raw + b"\0" * (len(raw) % 2)
    return head + b"\0" * 4 + behind


def tiff(
    main: list[Entry],
    exif: list[Entry] | None = None,
    gps: list[Entry] | None = None,
    order: str = "<",
) -> bytes:
    pointers = [(0x8769, exif), (0x8825, gps)]
    at = 8
    sizes = len(directory(main + [(t, 4, 1, b"\0" * 4) for t, e in pointers if e], at, order))
    at += sizes
    parts, links = [], []
    for tag, entries in pointers:
        if entries:
            links.append((tag, 4, 1, struct.pack(f"{order}I", at)))
            parts.append(directory(entries, at, order))
            at += len(parts[-1])
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}I", 8) + directory(main + links, 8, order) + b"".join(parts)


def jpeg(
    exif: bytes | None = None, xmp: str | None = None, width: int = 4000, height: int = 3000
) -> bytes:
    """The segments before a picture; no picture."""
    out = io.BytesIO(b"")
    out.write(b"\xff\xd8")
    segments = []
    if exif is not None:
        segments.append((0xE1, b"Exif\0\0" + exif))
    if xmp is not None:
        segments.append((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp.encode()))
    segments.append((0xC0, struct.pack(">BHHB", 8, height, width, 3) + b"\0" * 9))
    segments.append((0xDA, b"\0" * 10))
    for marker, content in segments:
        out.write(b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content)
    return out.getvalue()


def dji_xmp(values: dict[str, str]) -> str:
    names = " ".join(f'drone-dji:{name}="{value}"' for name, value in values.items())
    return f"<x:xmpmeta><rdf:Description {names}></rdf:Description></x:xmpmeta>"


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_of_both_byte_orders_is_read(order: str) -> None:
    data = jpeg(
        tiff(
            [text(0x010F, "DJI\0\0\0"), text(0x0110, "FC6310")],
            [
                text(0x9003, "2026:07:01 14:00:00"),
                text(0x9291, "250"),
                text(0x9011, "+02:00"),
                ratios(0x920A, order, (88, 10)),
                short(0xA405, 24, order),
                short(0xA002, 4000, order),
                ratios(0xA20E, order, (3000, 10)),
                short(0xA210, 3, order),
            ],
            [
                text(1, "S"),
                ratios(2, order, (47, 1), (30, 1), (36, 1)),
                text(3, "W"),
                ratios(4, order, (8, 1), (15, 1), (0, 1)),
            ],
            order=order,
        )
    )
    moment = datetime(2026, 7, 1, 12, 0, 0, 250_000, tzinfo=timezone.utc).timestamp()
    assert facts_of_jpeg(data, "x") == PhotoFacts(
        width_px=4000, height_px=3000, exif_width_px=4000, make="DJI", model="FC6310",
        taken_unix_s=moment, zone_known=True, focal_mm=8.8, focal_35mm_mm=24.0, pixels_per_mm=30.0,
        position=(-47.51, -8.25),
    )  # fmt: skip


@pytest.mark.parametrize("as_elements", [False, True])
def test_dji_angles_heights_and_speeds_are_read(as_elements: bool) -> None:
    xmp = dji_xmp(DJI)
    if as_elements:
        xmp = "".join(f"<drone-dji:{k}>{v}</drone-dji:{k}>" for k, v in DJI.items())
    facts = facts_of_jpeg(jpeg(xmp=xmp), "x")
    assert facts == PhotoFacts(
        width_px=4000, height_px=3000, height_above_takeoff_m=39.8, yaw_deg=46.0, pitch_deg=1.8,
        roll_deg=-3.0, gimbal_yaw_deg=45.0, gimbal_pitch_deg=-89.9, gimbal_roll_deg=0.0,
        velocity_north_mps=3.5, velocity_east_mps=-1.5,
    )  # fmt: skip


def test_a_gimbal_of_zeros_was_not_recorded() -> None:
    zeros = {k: "+0.00" for k in DJI if k.startswith("Gimbal")}
    facts = facts_of_jpeg(jpeg(xmp=dji_xmp(DJI | zeros)), "x")
    assert (facts.gimbal_yaw_deg, facts.gimbal_pitch_deg, facts.gimbal_roll_deg) == (None,) * 3
    assert facts.yaw_deg == 46.0


def test_parrots_names_mean_the_same() -> None:
    xmp = '<x drone-parrot:CameraPitchDegree="-90.0" drone-parrot:CameraYawDegree="12.5"/>'
    facts = facts_of_jpeg(jpeg(xmp=xmp), "x")
    assert (facts.gimbal_pitch_deg, facts.gimbal_yaw_deg, facts.yaw_deg) == (-90.0, 12.5, None)


def test_no_position_is_none_and_not_zero() -> None:
    zero = ratios(2, "<", (0, 1), (0, 1), (0, 1)), ratios(4, "<", (0, 1), (0, 1), (0, 1))
    assert facts_of_jpeg(jpeg(tiff([], None, list(zero))), "x").position is None
    void = ratios(2, "<", (0, 0), (0, 0), (0, 0)), ratios(4, "<", (1, 1), (0, 1), (0, 1))
    assert facts_of_jpeg(jpeg(tiff([], None, list(void))), "x").position is None


@given(st.binary(max_size=400))
@example(b"II*\0" + struct.pack("<I", 8) + b"\xff\xff")
@example(b"MM\0*" + struct.pack(">I", 0xFFFFFFFF))
def test_no_bytes_in_the_metadata_stop_the_reader(content: bytes) -> None:
    facts = facts_of_jpeg(jpeg(content), "x")
    assert (facts.width_px, facts.height_px) == (4000, 3000)


@given(st.integers(0, 10_000), st.integers(0, 255), st.integers(0, 10_000))
def test_one_wrong_byte_and_a_cut_do_not_stop_the_reader(at: int, value: int, cut: int) -> None:
    whole = bytearray(
        jpeg(
            tiff(
                [text(0x0110, "FC6310")],
                [text(0x9003, "2026:07:01 14:00:00"), ratios(0x920A, "<", (88, 10))],
                [ratios(2, "<", (47, 1), (30, 1), (36, 1))],
            ),
            dji_xmp(DJI | {"DewarpData": "2020-01-01;3000,3000,1,2,0.1,0.1,0,0,0"}),
        )
    )
    whole[2 + at % (len(whole) - 2)] = value
    try:
        facts = facts_of_jpeg(bytes(whole[: 2 + cut % len(whole)]), "x")
    except InputError:
        return
    numbers = [v for v in vars(facts).values() if isinstance(v, float)]
    assert all(map(math.isfinite, numbers))


@given(st.binary(max_size=200))
def test_what_is_no_jpeg_is_refused(content: bytes) -> None:
    with pytest.raises(InputError, match=r"x\.jpg is not a JPEG with a picture"):
        facts_of_jpeg(content, "x.jpg")


def test_a_folder_of_photographs_needs_no_telemetry(tmp_path: Path) -> None:
    taken = tiff([], [text(0x9003, "2026:07:01 12:00:00")])
    (tmp_path / "a.jpg").write_bytes(jpeg(taken, dji_xmp(DJI)))
    (tmp_path / "b.JPG").write_bytes(b"torn")
    source = open_states(str(tmp_path), ignore=frozenset({"velocity_east_mps"}))
    state = source.at("a.jpg", None)
    assert state.t_s == datetime(2026, 7, 1, 12, 0, tzinfo=timezone.utc).timestamp()
    assert (state.height_above_takeoff_m, state.yaw_deg, state.gimbal_pitch_deg) == (
        39.8,
        46,
        -89.9,
    )
    assert (state.velocity_north_mps, state.velocity_east_mps) == (3.5, None)
    assert source.at("b.JPG", 5.0) == VehicleState(t_s=5.0)
    assert source.at("none.jpg", None) == VehicleState(t_s=5.0)
    assert "b.JPG is not a JPEG" in source.events()[0]
    assert source.events() == []


def test_photographs_that_say_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no JPEG photographs"):
        open_states(str(tmp_path))
    (tmp_path / "a.jpg").write_bytes(jpeg())
    with pytest.raises(InputError, match="no height and no attitude"):
        open_states(str(tmp_path))


def test_real_photographs_agree_with_the_flight_log() -> None:
    folder = Path(os.environ.get("SKYFIX_DATA", "none")) / "fengyuan"
    if not folder.is_dir():
        pytest.skip("SKYFIX_DATA has no fengyuan")
    log = open_states(str(folder / "telemetry.csv"))
    photos = open_states(str(folder / "photos"))
    for path in sorted((folder / "photos").glob("*.jpg")):
        said, written = photos.at(path.name, None), log.at(path.name, None)
        assert said.height_above_takeoff_m == pytest.approx(written.height_above_takeoff_m)
        assert (said.yaw_deg, written.yaw_deg) != (None, None)
        assert math.remainder((said.yaw_deg or 0) - (written.yaw_deg or 0), 360) == pytest.approx(
            0, abs=2.0
        )
        assert said.gimbal_pitch_deg is None
        assert read_exif(path).model == "FC7303"
