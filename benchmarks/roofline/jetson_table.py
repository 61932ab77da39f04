"""Ceilings of Jetson modules, from their data sheets, at the clock that is set.

The model name in the device tree is the carrier board's, which Orin Nano and Orin NX modules share,
so the module's own part number is looked for first.
"""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import power_mode
from benchmarks.roofline.ceilings import Ceilings
from export.roofline import Device, device_named

_VOLTA_CORE_OPS, _BLACKWELL_SPARSE_FP4 = 128, 8
"""Operations a clock of a Volta tensor core in FP16: 64 multiply-adds (NVIDIA, "Tesla V100 GPU
Architecture", 2017). FP16 from a sparse FP4 figure: FP4 to FP8, to FP16, and sparse to dense."""


@dataclass(frozen=True, kw_only=True)
class JetsonModule:
    """A module: what it is recognised by, and its ceilings at its highest clock."""

    parts: tuple[str, ...]
    """Numbers in the device tree's "compatible"."""
    words: tuple[str, ...]
    """All in the device tree's "model" where no part number is known."""
    gpu_mhz: float
    """The clock of the figures."""
    device: Device
    """Dense figures of the GPU and the memory, and their source."""


_XAVIER_NX = Device(
    name="Xavier NX",
    peak_tflops={
        "fp32": 2 * 384 * 1100e6 / 1e12,
        "fp16": _VOLTA_CORE_OPS * 48 * 1100e6 / 1e12,
    },
    bandwidth_gb_s=51.2,
    source=(
        "NVIDIA Jetson Xavier NX data sheet DA-09366-001 v1.3: 384 CUDA and 48 tensor cores, 1100 "
        "MHz, 128-bit LPDDR4x at 1600 MHz; its 21 INT8 TOPS include the DLAs, so no INT8 figure"
    ),
)
_THOR = Device(
    name="AGX Thor",
    peak_tflops={
        "fp32": 2 * 2560 * 1575e6 / 1e12,
        "fp16": 2070.0 / _BLACKWELL_SPARSE_FP4,
    },
    bandwidth_gb_s=273.0,
    source=(
        "NVIDIA Jetson T5000: 2070 sparse FP4 TFLOPS, 2560 CUDA cores, 1575 MHz, 273 GB/s (table "
        "of the SoM in RidgeRun's documentation of Jetson AGX Thor); no INT8 figure was found"
    ),
)

MODULES: tuple[JetsonModule, ...] = (
    JetsonModule(
        parts=("p3767-0003", "p3767-0005"),
        words=("Orin Nano",),
        gpu_mhz=625,
        device=device_named("Orin Nano 8GB"),
    ),
    JetsonModule(
        parts=("p3767-0000",),
        words=("Orin NX",),
        gpu_mhz=918,
        device=device_named("Orin NX 16GB"),
    ),
    JetsonModule(
        parts=("p3701-0000", "p3701-0005"),
        words=("AGX Orin",),
        gpu_mhz=1300,
        device=device_named("AGX Orin 64GB"),
    ),
    JetsonModule(
        parts=("p3668-0000", "p3668-0001", "p3668-0003"),
        words=("Xavier NX",),
        gpu_mhz=1100,
        device=_XAVIER_NX,
    ),
    JetsonModule(parts=("p3834-0008",), words=("AGX Thor",), gpu_mhz=1575, device=_THOR),
)


def jetson_ceilings(root: Path = Path("/")) -> Ceilings | None:
    """This Jetson's, at the highest GPU clock that its power mode lets it take.

    Args:
        root: of the file system.

    Returns:
        None where this is no Jetson, or one without confirmed figures here.
    """
    module = _module(root)
    if module is None:
        return None
    device, set_mhz = module.device, gpu_clock_mhz(root)
    known_mhz = module.gpu_mhz
    if device.name == "Orin Nano 8GB" and set_mhz is not None and set_mhz > known_mhz:
        device, known_mhz = device_named("Orin Nano 8GB Super"), 1020
    mhz = known_mhz if set_mhz is None else set_mhz
    clock = "clock not readable, so its highest" if set_mhz is None else "as set now"
    return Ceilings(
        device=f"Jetson {device.name}",
        peak_gflops={k: 1e3 * v * mhz / known_mhz for k, v in device.peak_tflops.items()},
        bandwidth_gb_s=device.bandwidth_gb_s,
        source=(
            f"table: {device.source}; GPU at {mhz:.0f} MHz ({clock}), power mode "
            f"{power_mode(root) or 'unknown'}"
        ),
    )


def gpu_clock_mhz(root: Path = Path("/")) -> float | None:
    """Highest clock that the GPU may take in its power mode; None where it cannot be read.

    Args:
        root: of the file system.
    """
    for name in ("*.gpu", "*.ga10b", "*.gv11b", "gpu-gpc*"):
        for path in sorted(root.glob(f"sys/class/devfreq/{name}/max_freq")):
            try:
                return int(path.read_text()) / 1e6
            except (OSError, ValueError):
                continue
    return None


def _module(root: Path) -> JetsonModule | None:
    compatible, model = (
        _text(root / "proc/device-tree" / name) for name in ("compatible", "model")
    )
    if "nvidia,p" in compatible:  # A module by its number: known, or without figures here.
        return next((m for m in MODULES if any(part in compatible for part in m.parts)), None)
    return next((m for m in MODULES if all(word in model for word in m.words)), None)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().replace(bytes(1), b" ").decode(errors="replace")
    except OSError:
        return ""
