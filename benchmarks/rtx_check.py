"""Every encoder through NVIDIA's own ONNX parser and builder, on a machine without a GPU.

TensorRT-RTX is TensorRT for desktop GPUs: the same API and parser, and a builder that compiles most
of an engine without a device. Its published libraries and bindings stand in for TensorRT here, and
`edge_runtime.backends.trt_builder` runs through them unchanged. This shows that the files parse and
build; it does not show what a GPU answers, and its plans do not run on a Jetson.

Refitting is left out: TensorRT-RTX asks for a CUDA device to build a refittable engine.
"""

import argparse
import ctypes
import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from edge_runtime.command_line import run_command
from edge_runtime.errors import InputError
from edge_runtime.precision import Precision
from edge_runtime.preprocess import EncoderSpec, spec_from_json

LIBRARY_WHEEL = "onnxruntime_ep_nv_tensorrt_rtx"
BINDINGS = "tensorrt_rtx_bindings"
_LIBRARIES = ("libcudart.so.*", "libtensorrt_rtx.so.*", "libtensorrt_onnxparser_rtx.so.*")
FINE = "as it should"
"""Verdict on a behaviour."""
_WORKSPACE_BYTES = 16 << 30
_LARGEST_PX = 384
_CALIBRATION_IMAGES = 8
SPEC = "spec.json"
_TIMEOUT_S = 1800
OTHER_ENCODERS = (
    "convnextv2_atto.fcmae_ft_in1k",
    "convnextv2_tiny.fcmae_ft_in22k_in1k_384",
    "mobilenetv3_large_100.ra_in1k",
    "efficientnet_lite0.ra_in1k",
    "efficientvit_b1.r256_in1k",
    "efficientvit_m4.r224_in1k",
    "vit_small_patch16_224.augreg_in1k",
)
"""Beside the families that this project recommends."""

Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True, kw_only=True)
class Build:
    """One file of one encoder through the builder."""

    encoder: str
    size_px: int
    precision: str
    nodes: int | None = None
    """Of the ONNX graph."""
    onnx_mb: float | None = None
    plan_mb: float | None = None
    seconds: float | None = None
    """Parsing and building, two optimisation profiles: one image, and one to 32."""
    verdict: str
    """"built", or the last line of what went wrong."""


@functools.cache
def encoders() -> dict[str, int]:
    """Every encoder to try, with the side of its square input in pixels."""
    from train.encoder_families import FAMILIES, family_of

    sizes = {}
    for name in (*(family.architecture for family in FAMILIES), *OTHER_ENCODERS):
        family = family_of(name)
        side = min(family.pretrained_size_px, _LARGEST_PX)
        sizes[name] = side - side % family.size_multiple_px
    return sizes


def use_tensorrt_rtx(site: Path) -> str:
    """Make `import tensorrt` give TensorRT-RTX in this process.

    Args:
        site: folder with the unpacked wheels of the libraries and of the bindings.

    Returns:
        Its version.

    Raises:
        InputError: they are not there.
    """
    for pattern in _LIBRARIES:
        found = sorted((site / LIBRARY_WHEEL).glob(pattern))
        if not found or not (site / BINDINGS).is_dir():
            msg = f"{site} has no TensorRT-RTX ({pattern}, {BINDINGS}); run make rtx-check"
            raise InputError(msg)
        # Loaded here under their sonames, they are what the bindings find.
        ctypes.CDLL(str(found[0]), mode=ctypes.RTLD_GLOBAL)
    sys.path.insert(0, str(site))
    sys.modules["tensorrt"] = import_module(BINDINGS)
    return str(sys.modules["tensorrt"].__version__)


def export_files(encoder: str, size_px: int, folder: Path) -> None:
    """Write the FP32 and FP16 files of an encoder with random weights.

    The export's own steps, without its gates: with random weights all pictures look much alike,
    which is not what is asked here.
    """
    import onnx

    from benchmarks.random_checkpoint import random_encoder
    from export.activation_ranges import activation_ranges
    from export.mixed_precision import to_mixed_precision
    from export.onnx_encoder import encoder_to_onnx
    from export.probes import probe_images

    made = random_encoder(encoder, size_px)
    full = encoder_to_onnx(made)
    images = probe_images(made.spec, count=_CALIBRATION_IMAGES)
    mixed = to_mixed_precision(full, activation_ranges(full, images))
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(full, onnx_path(folder, "fp32"))
    onnx.save(mixed.model, onnx_path(folder, "fp16"))
    (folder / SPEC).write_text(json.dumps(asdict(made.spec)))


def onnx_path(folder: Path, precision: str) -> Path:
    """Where `export_files` writes a precision."""
    return folder / f"encoder.{precision}.onnx"


def read_spec(folder: Path) -> EncoderSpec:
    """What `export_files` wrote of the encoder."""
    return spec_from_json(json.loads((folder / SPEC).read_text()))


def build_one(folder: Path, precision: Precision) -> Build:
    """Parse and build one file with the builder that flies."""
    import onnx

    from edge_runtime.backends.trt_builder import build_plan
    from edge_runtime.engine_store import EngineOptions

    path, spec = onnx_path(folder, precision), read_spec(folder)
    built = build_plan(
        path,
        spec,
        EngineOptions(precision=precision, refit=False),
        workspace_bytes=_WORKSPACE_BYTES,
    )
    return Build(
        encoder=spec.architecture,
        size_px=spec.height_px,
        precision=precision,
        nodes=len(onnx.load(path, load_external_data=False).graph.node),
        onnx_mb=round(path.stat().st_size / 1e6, 1),
        plan_mb=round(len(built.plan) / 1e6, 1),
        seconds=round(built.seconds, 1),
        verdict="built",
    )


def check_encoder(encoder: str, size_px: int, *, site: Path, work: Path, run: Run) -> list[Build]:
    """Export one encoder with random weights and build each of its files in a process of its own.

    A crash in NVIDIA's code, or a refused file, is one row and ends nothing else.
    """
    me = [sys.executable, "-m", "benchmarks.rtx_check", "--libraries", str(site)]
    done = run([*me, "--export", encoder, "--size-px", str(size_px), "--work", str(work)])
    if done.returncode != 0:
        verdict = f"not exported: {_last_line(done)}"
        return [Build(encoder=encoder, size_px=size_px, precision="all", verdict=verdict)]
    builds = []
    for precision in ("fp32", "fp16"):
        done = run([*me, "--build", str(work), "--precision", precision])
        if done.returncode == 0:
            builds.append(Build(**json.loads(done.stdout.strip().splitlines()[-1])))
        else:
            verdict = _last_line(done)
            row = Build(encoder=encoder, size_px=size_px, precision=precision, verdict=verdict)
            builds.append(row)
    return builds


def _last_line(done: "subprocess.CompletedProcess[str]") -> str:
    lines = (done.stderr.strip() or done.stdout.strip() or "said nothing").splitlines()
    return f"{lines[-1]} (exit status {done.returncode})"


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"took more than {_TIMEOUT_S} s")


def table(builds: Iterable[Build]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| encoder | px | precision | nodes | ONNX, MB | parse and build, s | plan, MB | verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for b in builds:
        cells = (b.encoder, b.size_px, b.precision, b.nodes, b.onnx_mb, b.seconds, b.plan_mb)
        shown = " | ".join("-" if cell is None else str(cell) for cell in cells)
        lines.append(f"| {shown} | {b.verdict} |")
    return "\n".join(lines) + "\n"


def check_behaviour(folder: Path, *, site: Path, run: Run) -> dict[str, str]:
    """How the builder behaves on one encoder: see `benchmarks.rtx_behaviour`."""
    done = run([sys.executable, "-m", "benchmarks.rtx_behaviour", str(site), str(folder)])
    if done.returncode != 0:
        return {"the builder's behaviour": _last_line(done)}
    found: dict[str, str] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def check_all(
    names: Sequence[str], *, site: Path, work: Path, run: Run = _run
) -> tuple[list[Build], dict[str, str]]:
    """Every encoder, each row printed and kept as soon as it is there, then the behaviour."""
    known = encoders()
    for name in names:
        if name not in known:
            msg = f"{name} is not among the encoders of this check: {', '.join(known)}"
            raise InputError(msg)
    builds: list[Build] = []
    work.mkdir(parents=True, exist_ok=True)
    with (work / "rows.jsonl").open("w") as rows:
        for name in names or known:
            found = check_encoder(name, known[name], site=site, work=work / name, run=run)
            for build in found:
                rows.write(json.dumps(asdict(build)) + "\n")
                print(f"{build.encoder} {build.precision}: {build.verdict}", flush=True)
            rows.flush()
            builds += found
    smallest = min(
        (b for b in builds if b.verdict == "built"), key=lambda b: b.plan_mb or 0.0, default=None
    )
    behaviour = {"the builder's behaviour": "not tried: nothing was built"}
    if smallest is not None:
        behaviour = check_behaviour(work / smallest.encoder, site=site, run=run)
    for name in {build.encoder for build in builds}:  # Gigabytes, all told; the rows stay.
        shutil.rmtree(work / name, ignore_errors=True)
    lines = [f"* {what}: {verdict}" for what, verdict in behaviour.items()]
    (work / "table.md").write_text(table(builds) + "\n" + "\n".join(lines) + "\n")
    return builds, behaviour


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0 when everything was built, 1 when something was not, 2 for a mistake."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rtx_check", description=__doc__)
    parser.add_argument("encoders", nargs="*", help="timm names; by default all of the check")
    parser.add_argument("--libraries", type=Path, default=Path("out/rtx/site"))
    parser.add_argument("--work", type=Path, default=Path("out/rtx/check"))
    parser.add_argument("--export", metavar="ENCODER", help=argparse.SUPPRESS)
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--precision", choices=("fp32", "fp16"), help=argparse.SUPPRESS)
    parser.add_argument("--size-px", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)

    def run() -> int:
        if args.export:
            export_files(args.export, args.size_px, args.work)
        elif args.build:
            use_tensorrt_rtx(args.libraries)
            print(json.dumps(asdict(build_one(args.build, args.precision))))
        else:
            builds, behaviour = check_all(args.encoders, site=args.libraries, work=args.work)
            built = sum(build.verdict == "built" for build in builds)
            fine = sum(verdict == FINE for verdict in behaviour.values())
            print(
                f"{built} of {len(builds)} built, {fine} of {len(behaviour)} behaviours as they "
                f"should be; see {args.work / 'table.md'}"
            )
            return int(built < len(builds) or fine < len(behaviour))
        return 0

    return run_command("rtx-check", run, stopped="stopped; rows so far are in rows.jsonl")


if __name__ == "__main__":
    sys.exit(main())
