"""The doctor's checks on made-up machines: a Jetson, a Raspberry Pi, a PC, a bare container."""

import json
import re
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from edge_runtime.doctor import Finding, examine, page
from edge_runtime.doctor import clock as clock_check
from edge_runtime.doctor.clock import clock
from edge_runtime.doctor.devices import cameras, serial_ports
from edge_runtime.doctor.finding import examined
from edge_runtime.doctor.libraries import conflicts, packages, video_backends
from edge_runtime.doctor.machine import computer, disk, memory
from edge_runtime.doctor.power import governors, heat, jetson_power_mode
from edge_runtime.doctor.services import ports, watchdog
from edge_runtime.doctor.system_files import SystemFiles

Tree = Callable[[dict[str, str]], SystemFiles]

NVPMODEL = """
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=25W >
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
< PM_CONFIG DEFAULT=1 >
"""
CPU = "/sys/devices/system/cpu/cpu{}/cpufreq/{}"
MEMINFO = "MemTotal:       7620000 kB\nMemAvailable:   {} kB\nSwapTotal: {} kB\nSwapFree: {} kB\n"
JETSON = {
    "/proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "/etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic",
    "/etc/nvpmodel.conf": NVPMODEL,
    "/var/lib/nvpmodel/status": "pmode:0001",
    CPU.format(0, "scaling_governor"): "schedutil\n",
    CPU.format(0, "cpuinfo_max_freq"): "1728000\n",
    CPU.format(0, "scaling_max_freq"): "1344000\n",
    CPU.format(0, "scaling_min_freq"): "729600\n",
    "/sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "/sys/class/thermal/thermal_zone0/temp": "97500\n",
    "/sys/class/thermal/thermal_zone0/trip_point_0_type": "passive\n",
    "/sys/class/thermal/thermal_zone0/trip_point_0_temp": "99000\n",
    "/sys/class/thermal/thermal_zone1/type": "gpu-thermal\n",
    "/sys/class/thermal/thermal_zone1/temp": "-256000\n",
    "/sys/class/video4linux/video0/name": "vi-output, imx219 9-0010\n",
    "/sys/class/video4linux/video0/index": "0\n",
    "/dev/video0": "",
    "/sys/class/tty/ttyTHS1/dev": "",
    "/sys/class/tty/ttyS0/dev": "",
    "/sys/class/tty/tty1/dev": "",
    "/dev/ttyTHS1": "",
    "/run/systemd/system/x": "",
    "/dev/watchdog0": "",
    "/sys/class/watchdog/watchdog0/identity": "Tegra WDT",
}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Writes a machine's files under a root of its own."""

    def make(files: dict[str, str]) -> SystemFiles:
        for name, text in files.items():
            path = tmp_path / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return SystemFiles(root=tmp_path, may_open=lambda _: True)

    return make


def only(findings: Iterator[Finding]) -> Finding:
    (finding,) = findings
    return finding


def named(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {f.what: f for f in findings}


def test_a_jetson_is_named_with_its_release(tree: Tree) -> None:
    board = named(computer(tree(JETSON)))["board"]
    assert board.detail == (
        "NVIDIA Jetson Orin Nano Developer Kit, Linux for Tegra R36 (release), REVISION: 4.3"
    )


@pytest.mark.parametrize(
    ("status", "verdict", "detail", "remedy"),
    [
        ("pmode:0001", "note", "25W; MAXN_SUPER is faster", "sudo nvpmodel -m 2"),
        ("pmode:0002", "works", "MAXN_SUPER", ""),
        ("", "note", "nothing says which power mode is set", "sudo nvpmodel -q"),
    ],
)
def test_a_jetson_below_its_fastest_power_mode_is_told_how_to_change_it(
    tree: Tree, status: str, verdict: str, detail: str, remedy: str
) -> None:
    found = only(jetson_power_mode(tree(JETSON | {"/var/lib/nvpmodel/status": status})))
    assert (found.verdict, found.detail) == (verdict, detail)
    assert found.remedy.startswith(remedy)


def test_other_machines_have_no_power_mode_of_nvidia(tree: Tree) -> None:
    assert list(jetson_power_mode(tree({}))) == []


def test_a_jetson_with_changing_clocks_is_told_of_jetson_clocks(tree: Tree) -> None:
    found = only(governors(tree(JETSON)))
    assert (found.verdict, found.remedy) == ("note", "sudo jetson_clocks")
    assert found.detail == "governor schedutil; limited: cpu0 to 1.34 of 1.73 GHz"


def test_fixed_clocks_are_fine_whatever_the_governor(tree: Tree) -> None:
    fixed = {CPU.format(0, f"{name}_freq"): "1728000" for name in ("scaling_min", "scaling_max")}
    found = only(governors(tree(JETSON | fixed)))
    assert (found.verdict, found.remedy) == ("works", "")
    assert "fixed at the highest" in found.detail


def test_a_pc_that_saves_power_is_told_the_governor(tree: Tree) -> None:
    found = only(governors(tree({CPU.format(k, "scaling_governor"): "powersave" for k in (0, 1)})))
    assert found.verdict == "note"
    assert found.remedy.startswith("echo performance | sudo tee ")


def test_clocks_that_nobody_steers_are_no_fault(tree: Tree) -> None:
    assert only(governors(tree({}))).verdict == "works"


def test_the_zone_nearest_to_its_limit_counts_and_dead_sensors_do_not(tree: Tree) -> None:
    found = only(heat(tree(JETSON)))
    assert found.verdict == "note"
    assert found.detail == "cpu-thermal 98 °C, slows down at 99 °C"
    cool = {"/sys/class/thermal/thermal_zone0/temp": "41000"}
    assert only(heat(tree(JETSON | cool))).verdict == "works"


@pytest.mark.parametrize(
    ("bits", "verdict", "detail"),
    [
        ("0", "works", "never too low"),
        ("50005", "note", "voltage too low now, throttled now, voltage was too low since start"),
    ],
)
def test_a_raspberry_pi_tells_of_a_weak_supply(
    tree: Tree, bits: str, verdict: str, detail: str
) -> None:
    system = tree({"/sys/devices/platform/soc/soc:firmware/get_throttled": bits})
    found = named(heat(system))["power supply"]
    assert found.verdict == verdict
    assert found.detail.startswith(detail)


@pytest.mark.parametrize(
    ("numbers", "memory_verdict", "swap_verdict"),
    [
        pytest.param((5000000, 4000000, 4000000), "works", "works", id="all free"),
        pytest.param((300000, 4000000, 1000000), "note", "note", id="full and swapping"),
        pytest.param((5000000, 0, 0), "works", "works", id="no swap"),
    ],
)
def test_little_memory_and_busy_swap_are_noted(
    tree: Tree, numbers: tuple[int, int, int], memory_verdict: str, swap_verdict: str
) -> None:
    found = named(memory(tree({"/proc/meminfo": MEMINFO.format(*numbers)})))
    assert found["memory"].verdict == memory_verdict
    assert found["memory"].detail.startswith("7.3 GiB, ")
    assert found["swap"].verdict == swap_verdict


def test_a_containers_limit_counts_as_its_memory(tree: Tree) -> None:
    system = tree(
        {
            "/proc/meminfo": MEMINFO.format(7000000, 0, 0),
            "/sys/fs/cgroup/memory.max": str(2**30),
            "/sys/fs/cgroup/memory.current": str(2**30 - 2**26),
        }
    )
    found = named(memory(system))["memory"]
    assert (found.verdict, found.detail) == (
        "note",
        "7.3 GiB, 0.1 GiB free, limited to 1.0 GiB here",
    )


def test_a_folder_that_cannot_be_written_to_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert only(disk(tmp_path)).verdict == "works"
    monkeypatch.setattr("os.access", lambda *_: False)
    found = only(disk(tmp_path))
    assert found.verdict == "broken"
    assert "--out" in found.remedy


# --- devices --------------------------------------------------------------------------------------


def test_cameras_are_named_once_each_with_how_to_open_them(tree: Tree) -> None:
    usb = {
        "/sys/class/video4linux/video2/name": "HD Pro Webcam C920",
        "/sys/class/video4linux/video2/index": "0",
        "/sys/class/video4linux/video3/name": "HD Pro Webcam C920",
        "/sys/class/video4linux/video3/index": "1",
        "/dev/video2": "",
        "/dev/video3": "",
    }
    found = named(cameras(tree(JETSON | usb)))
    assert sorted(found) == ["camera video0", "camera video2"]
    assert found["camera video0"].detail.endswith("as csi://0")
    assert "/dev/video2 (HD Pro Webcam C920)" in found["camera video2"].detail


def test_a_device_this_user_may_not_open_comes_with_the_group(tree: Tree) -> None:
    tree(JETSON)
    locked = SystemFiles(root=tree({}).root, may_open=lambda _: False)
    camera, port = named(cameras(locked))["camera video0"], only(serial_ports(locked))
    assert (camera.verdict, port.verdict) == ("broken", "broken")
    assert camera.remedy == "sudo usermod -aG video $USER, then log in again"
    assert port.remedy == "sudo usermod -aG dialout $USER, then log in again"


def test_a_camera_that_a_container_does_not_get_is_told_how_to_hand_it_in(tree: Tree) -> None:
    found = only(cameras(tree({"/sys/class/video4linux/video0/name": "Cam"})))
    assert (found.verdict, found.remedy) == (
        "broken",
        "in a container: docker run --device /dev/video0",
    )


def test_no_devices_are_missing_and_not_needed(tree: Tree) -> None:
    for found in (only(cameras(tree({}))), only(serial_ports(tree({})))):
        assert (found.verdict, found.needed) == ("missing", False)


def test_a_jetson_without_a_csi_camera_is_told_how_to_configure_one(tree: Tree) -> None:
    system = tree({"/proc/device-tree/model": "NVIDIA Jetson AGX Orin"})
    assert "jetson-io.py" in named(cameras(system))["CSI camera"].remedy


def test_only_serial_ports_that_could_be_an_autopilot_are_listed(tree: Tree) -> None:
    assert list(named(serial_ports(tree(JETSON)))) == ["serial ttyTHS1"]


# --- clock, services, libraries -------------------------------------------------------------------


def test_a_clock_behind_the_bundle_is_broken(tree: Tree, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "manifest.json").write_text(json.dumps({"created_utc": "2026-03-01T12:00:00Z"}))
    noon_s = 1772366400.0  # 2026-03-01 12:00:00 UTC
    before = only(clock(tree({}), (bundle,), now_s=noon_s - 3600))
    assert before.verdict == "broken"
    assert before.detail == f"2026-03-01 11:00:00 UTC is before {bundle} was made"
    after = only(clock(tree({}), (bundle,), now_s=noon_s + 3600))
    assert (after.verdict, after.remedy != "") == ("note", True)


def test_a_clock_that_starts_at_1970_is_broken_without_any_artefact(tree: Tree) -> None:
    assert only(clock(tree({}), now_s=500.0)).verdict == "broken"


def test_a_clock_kept_by_systemd_works(tree: Tree) -> None:
    system = tree({"/run/systemd/timesync/synchronized": ""})
    found = only(clock(system, now_s=1_800_000_000.0))
    assert (found.verdict, found.detail) == ("works", "2027-01-15 08:00:00 UTC, synchronised")


def test_the_kernel_can_be_asked_without_rights() -> None:
    assert clock_check._kernel_says_synchronised() in (True, False)


def test_systemd_watches_or_could(tree: Tree) -> None:
    system = tree(JETSON)
    found = named(watchdog(system, {"WATCHDOG_USEC": "10000000", "NOTIFY_SOCKET": "/run/n"}))
    assert found["systemd"].detail == "watches this unit: 10 s"
    assert found["hardware watchdog"].detail.startswith("/dev/watchdog0 (Tegra WDT)")
    assert "WatchdogSec" in named(watchdog(system, {}))["systemd"].detail


def test_nothing_watches_in_a_container(tree: Tree) -> None:
    assert [f.verdict for f in watchdog(tree({}), {})] == ["missing", "missing"]


def test_ports_that_somebody_has_are_noted(tree: Tree) -> None:
    head = "  sl  local_address rem_address   st tx_queue rx_queue\n"
    row = "   0: 00000000:{port} 00000000:0000 {state} 00000000:00000000\n"
    system = tree(
        {
            "/proc/net/udp": head + row.format(port="38D6", state="07"),  # 14550, bound
            "/proc/net/tcp": head + row.format(port="1F90", state="01"),  # 8080, a connection
        }
    )
    found = named(ports(system))
    assert (found["port 14550"].verdict, found["port 8080"].verdict) == ("note", "works")
    assert "taken" in found["port 14550"].detail


def test_both_wheels_of_onnx_runtime_are_a_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1", "opencv-python": "5.0.0"}

    def version(name: str) -> str:
        if name not in wheels:
            raise PackageNotFoundError(name)
        return wheels[name]

    monkeypatch.setattr("edge_runtime.doctor.libraries.version", version)
    found = only(conflicts())
    assert (found.verdict, found.needed) == ("broken", True)
    assert "onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1" in found.detail
    assert found.remedy.startswith("pip uninstall -y onnxruntime onnxruntime-gpu, then pip install")


def test_libraries_of_a_gpu_are_not_missed_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("edge_runtime.cuda_device.cuda_driver_library", lambda: None)
    assert not {"tensorrt", "pycuda"} & set(named(packages()))
    monkeypatch.setattr("edge_runtime.cuda_device.cuda_driver_library", object)
    assert {"tensorrt", "pycuda"} < set(named(packages()))


def test_opencv_without_gstreamer_is_noted_where_cameras_need_it(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cv2

    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda _: False)
    assert named(video_backends(tree({})))["OpenCV GSTREAMER"].verdict == "missing"
    assert named(video_backends(tree(JETSON)))["OpenCV GSTREAMER"].verdict == "note"
    assert "python3-opencv" in named(video_backends(tree({})))["OpenCV FFMPEG"].remedy


# --- all of it ------------------------------------------------------------------------------------


def test_a_check_that_fails_is_a_finding_and_the_rest_goes_on(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(_: SystemFiles) -> Iterator[Finding]:
        yield Finding(what="first", verdict="works", detail="came before")
        msg = "two\nlines"
        raise RuntimeError(msg)

    monkeypatch.setattr("edge_runtime.doctor.power.heat", explode)
    findings = {f.what: f for f in examine(system=tree(JETSON))}
    assert findings["first"].verdict == "works"
    assert findings["temperature"].verdict == "broken"
    assert findings["temperature"].detail == "could not be examined: RuntimeError: two lines"
    assert "port 8080" in findings


@pytest.mark.parametrize("files", [{}, JETSON], ids=["nothing", "a Jetson"])
def test_every_finding_is_one_line_with_a_group_and_said_once(
    tree: Tree, files: dict[str, str]
) -> None:
    findings = examine(system=tree(files))
    assert [f.what for f in findings if "could not be examined" in f.detail] == []
    assert len({f.what for f in findings}) == len(findings)
    assert all(f.detail and "\n" not in f.detail + f.remedy for f in findings)


def test_garbage_in_every_file_stops_nothing(tree: Tree) -> None:
    findings = examine(system=tree(dict.fromkeys(JETSON, "\ufffd garbage 12 \n zz:")))
    assert {"Python", "memory", "clock", "camera video0", "port 8080"} <= {f.what for f in findings}


def test_the_page_is_grouped_aligned_and_ends_with_what_is_to_be_done() -> None:
    text = page(
        [
            Finding(what="Python", verdict="works", detail="3.11", needed=True),
            Finding(
                what="CPU clocks", verdict="note", detail="slow " * 30, remedy="x", group="power"
            ),
            Finding(
                what="usearch",
                verdict="missing",
                detail="not installed",
                remedy="pip install usearch",
                needed=True,
                group="libraries",
            ),
        ],
        width=60,
    )
    lines = text.splitlines()
    assert lines[:4] == ["Machine", "  ok       Python      3.11", "Power", lines[3]]
    assert all(len(line) <= 60 for line in lines)
    assert "  MISSING  usearch     not installed" in lines
    assert "                       -> pip install usearch" in lines
    assert lines[-2:] == ["Not fit to fly: usearch.", "To know: CPU clocks."]
    assert "\x1b" not in text


def test_colours_change_nothing_but_colours() -> None:
    findings = [
        Finding(what="one", verdict=v, detail="detail", remedy="do", group="GPU")
        for v in ("works", "note", "missing", "broken")
    ]
    painted = page(findings, colour=True)
    assert "\x1b[1;31mBROKEN" in painted
    assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == page(findings)


def test_a_check_gives_its_group_to_what_it_finds() -> None:
    (found,) = examined("power", lambda: [Finding(what="x", verdict="works", detail=" a\n b ")])
    assert (found.group, found.detail) == ("power", "a b")
