"""Python packages: which are here, in which version, and which get in each other's way."""

import importlib.util
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from edge_runtime.doctor.finding import Finding
from edge_runtime.doctor.system_files import SystemFiles

_PACKAGES = (
    ("numpy", "numpy", "", "pip install skyfix"),
    ("opencv", "cv2", "", "pip install opencv-python-headless"),
    ("usearch", "usearch", "", "pip install usearch"),
    ("onnxruntime", "onnxruntime", "", "pip install 'skyfix[cpu]' or 'skyfix[gpu]'"),
    ("openvino", "openvino", "often faster on x86 CPUs", "pip install 'skyfix[openvino]'"),
    ("pymavlink", "pymavlink", "for autopilots", "pip install 'skyfix[mavlink]'"),
    ("rasterio", "rasterio", "only to make indexes", "pip install 'skyfix[maps]'"),
    ("tensorrt", "tensorrt", "NVIDIA GPUs only", "pip install 'skyfix[tensorrt]'"),
    ("pycuda", "pycuda", "NVIDIA GPUs only", "pip install 'skyfix[tensorrt]'"),
)
"""Name, module, what one that is not needed is good for, and how to install it."""
_WHEELS: dict[str, tuple[str, ...]] = {
    "opencv": (
        "opencv-python-headless",
        "opencv-python",
        "opencv-contrib-python",
        "opencv-contrib-python-headless",
    ),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
}
"""Wheels that install one and the same Python module."""


def packages() -> Iterator[Finding]:
    """Each package skyfix may use. A GPU's are left out where there is no GPU's driver."""
    from edge_runtime.cuda_device import cuda_driver_library

    gpu = cuda_driver_library() is not None
    for package, module, use, remedy in _PACKAGES:
        here = importlib.util.find_spec(module) is not None
        if not here and not gpu and package in ("tensorrt", "pycuda"):
            continue
        names = _installed(package)
        yield Finding(
            what=package,
            verdict="works" if here else "missing",
            detail=(names[0] if names else f"{module}, version not recorded")
            if here
            else f"not installed; {use}".rstrip("; "),
            remedy="" if here else remedy,
            needed=not use,
        )


def conflicts() -> Iterator[Finding]:
    """Wheels that overwrite each other's files: which one is imported is chance."""
    for package, wheels in _WHEELS.items():
        names = _installed(package)
        if len(names) > 1:
            keep = "skyfix[gpu]" if package == "onnxruntime" and _has_gpu() else "skyfix[cpu]"
            yield Finding(
                what=f"{package} wheels",
                verdict="broken",
                detail=f"{' and '.join(names)} are installed over each other",
                remedy=f"pip uninstall -y {' '.join(w for w in wheels if _of(w))}, then "
                f"pip install '{keep}'",
                needed=package == "onnxruntime",
            )


def video_backends(system: SystemFiles) -> Iterator[Finding]:
    """What this OpenCV can open."""
    if importlib.util.find_spec("cv2") is None:
        return
    import cv2

    registry = cv2.videoio_registry
    names = {
        registry.getBackendName(backend)
        for backend in (*registry.getCameraBackends(), *registry.getStreamBackends())
        if registry.hasBackend(backend)  # Else a plug-in that could be there and is not.
    }
    for name, serves in (
        ("FFMPEG", "videos and network streams"),
        ("V4L2", "USB cameras"),
        ("GSTREAMER", "CSI cameras and pipelines"),
    ):
        here = name in names
        needed_here = name != "GSTREAMER" or system.is_jetson
        yield Finding(
            what=f"OpenCV {name}",
            verdict="works" if here else "note" if needed_here else "missing",
            detail=serves if here else f"not in OpenCV {cv2.__version__}: no {serves}",
            remedy=""
            if here
            else "use the system's OpenCV (sudo apt install python3-opencv) in an environment made "
            "with --system-site-packages",
        )


def _installed(package: str) -> list[str]:
    """Names and versions of the wheels that are installed for a package."""
    return [f"{wheel} {_of(wheel)}" for wheel in _WHEELS.get(package, (package,)) if _of(wheel)]


def _of(wheel: str) -> str:
    try:
        return version(wheel)
    except PackageNotFoundError:
        return ""


def _has_gpu() -> bool:
    from edge_runtime.cuda_device import cuda_device_count

    return cuda_device_count() > 0
