"""What the published TensorRT bindings offer, read from the wheels themselves without a GPU.

A bindings wheel holds one native module that needs NVIDIA's libraries to load. Empty libraries of
the same names, compiled here, satisfy the loader; then the module registers its classes, and its
docstrings carry every signature. Nothing of TensorRT itself is called or needed.

`python -m tests.tensorrt_interface.recording` writes the records again, after an eye has been cast
on why they changed.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

PACKAGE = "tensorrt_cu12_bindings"
VERSIONS = ("10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0.106")
"""What JetPack 6.1/6.2, 7.0 and 7.2 carry, and the newest."""
PYTHONS = ("3.10", "3.11", "3.12")
PLATFORMS = ("manylinux_2_17_x86_64", "manylinux_2_28_x86_64")
RECORDS = Path(__file__).parent / "records"
PYCUDA = RECORDS / "pycuda.json"
WHEELS = Path(sys.prefix) / "tensorrt-interface"
"""Downloaded wheels are kept here: about 1 MB each."""

_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
_ABORTING = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getBuilderPluginRegistry",
    "getPluginRegistry",
    "getNvOnnxParserVersion",
    "initLibNvInferPlugins",
)
"""All that the bindings take from NVIDIA's libraries by name; the rest are virtual methods."""


class NotRecordableError(Exception):
    """The wheel or a compiler cannot be had here."""


def record_path(version: str) -> Path:
    """The committed record of a version of the bindings."""
    return RECORDS / f"tensorrt-{version}.json"


def fetch_wheel(version: str, python: str) -> Path:
    """The wheel of a version for a Python such as 3.11, downloaded once.

    Raises:
        NotRecordableError: it is not kept here and cannot be downloaded.
    """
    tag = "cp" + python.replace(".", "")
    kept = sorted(WHEELS.glob(f"{PACKAGE}-{version}-{tag}-*.whl"))
    if kept:
        return kept[0]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--timeout", "10", "--retries", "1"]
        command += ["--only-binary=:all:", "--python-version", python, *platforms]
        done = subprocess.run(
            [*command, "--dest", folder, f"{PACKAGE}=={version}"],
            capture_output=True,
            text=True,
            check=False,
        )
        found = sorted(Path(folder).glob("*.whl"))
        if done.returncode != 0 or not found:
            last = (done.stderr.strip() or "no output").splitlines()[-1]
            msg = f"{PACKAGE} {version} for Python {python} cannot be downloaded: {last}"
            raise NotRecordableError(msg)
        WHEELS.mkdir(parents=True, exist_ok=True)
        # A rename at the end, so that two test processes never see half a wheel.
        partial = WHEELS / f"{os.getpid()}.part"
        shutil.copyfile(found[0], partial)
        return partial.rename(WHEELS / found[0].name)


def record(wheel: Path, python: Path) -> dict[str, Any]:
    """What the bindings in a wheel offer.

    Args:
        wheel: a bindings wheel.
        python: an interpreter of the version the wheel is for.

    Raises:
        NotRecordableError: there is no C compiler.
        RuntimeError: the module does not load or a function of it has no signature.
    """
    version = wheel.name.split("-")[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ZipFile(wheel) as archive:
            archive.extractall(folder)
        _compile_stand_ins(folder, version.split(".")[0])
        environment = {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(folder)}
        interface = run_introspection(python, "tensorrt_bindings", environment)
    return {"package": PACKAGE, "version": version, **interface}


def run_introspection(python: Path, module: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """What a native module offers, loaded in a process of its own.

    Raises:
        RuntimeError: the module does not load or a function of it has no signature.
    """
    done = subprocess.run(
        [str(python), str(Path(__file__).parent / "introspection.py"), module],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    if done.returncode != 0:
        msg = f"{module} could not be described by {python}:\n{done.stderr}"
        raise RuntimeError(msg)
    interface: dict[str, Any] = json.loads(done.stdout)
    return interface


def _compile_stand_ins(folder: Path, major: str) -> None:
    """Libraries with NVIDIA's names whose functions stop the process when anything calls them."""
    for library in _LIBRARIES:
        _compile_stand_in(folder / f"lib{library}.so.{major}", _ABORTING)


def _compile_stand_in(library: Path, functions: Sequence[str]) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        msg = "there is no C compiler (cc or gcc) to make stand-ins for NVIDIA's libraries"
        raise NotRecordableError(msg)
    source = library.parent / "stand_in.c"
    bodies = "".join(f"void {name}(void) {{ abort(); }}\n" for name in functions)
    source.write_text(f"#include <stdlib.h>\n{bodies}")
    command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{library.name}"]
    subprocess.run([*command, "-o", str(library), str(source)], check=True)


def record_pycuda(python: Path) -> dict[str, Any]:
    """What pycuda.driver offers, as installed for an interpreter; its driver is stood in for.

    Raises:
        RuntimeError: pycuda is not installed there, or a function of it has no signature.
    """
    answer = subprocess.run(
        [
            *(str(python), "-c"),
            "import importlib.util, importlib.metadata as m; "
            "print(m.version('pycuda'), importlib.util.find_spec('pycuda._driver').origin)",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    version, native = answer.split()
    undefined = subprocess.run(
        ["nm", "-D", "--undefined-only", native], capture_output=True, text=True, check=True
    ).stdout.split()
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "libcuda.so.1"
        _compile_stand_in(library, [name for name in undefined if name.startswith("cu")])
        interface = run_introspection(python, "pycuda.driver", {"LD_PRELOAD": str(library)})
    return {"package": "pycuda", "version": version, **interface}


def write_json(path: Path, value: object) -> None:
    """Short lines, so that a change of the interface reads as a change of lines."""
    path.write_text(_dumps(value, 0) + "\n")


def _dumps(value: object, level: int) -> str:
    """JSON with one line per leaf of `{class: {kind: {member: leaf}}}`, enumerations on one."""
    if isinstance(value, dict) and value and level < 4:
        inner = (f"{json.dumps(k)}:{_dumps(v, level + 1)}" for k, v in value.items())
        return "{\n" + ",\n".join(inner) + "}"
    return json.dumps(value, separators=(",", ":"))


def main() -> None:
    """Record every version with every Python at hand; they must agree.

    With an argument, record pycuda as installed for that interpreter instead.
    """
    if len(sys.argv) > 1:
        write_json(PYCUDA, record_pycuda(Path(sys.argv[1])))
        return
    for version in VERSIONS:
        found: dict[str, dict[str, Any]] = {}
        wheels: dict[str, str] = {}
        for python in PYTHONS:
            interpreter = shutil.which(f"python{python}")
            wheel = fetch_wheel(version, python)
            wheels[wheel.name] = hashlib.sha256(wheel.read_bytes()).hexdigest()
            if interpreter is not None:
                found[python] = record(wheel, Path(interpreter))
        interfaces = list(found.values())
        if any(other != interfaces[0] for other in interfaces):
            sys.exit(f"{version} offers another interface to one of the Pythons {list(found)}")
        write_json(record_path(version), {**interfaces[0], "wheels": wheels})
        sys.stdout.write(f"{record_path(version).name}: Python {', '.join(found)}\n")


if __name__ == "__main__":
    main()
