"""What importing costs, and what the package that flies may lean on."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import edge_runtime

PACKAGE = Path(edge_runtime.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {"onnxruntime", "tensorrt", "pycuda", "rasterio", "torch", "timm", "onnx", "cv2", "numpy"}


def loaded_after(statement: str) -> set[str]:
    """Top-level modules in memory after a statement in a fresh interpreter."""
    code = f"import sys\n{statement}\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    return set(done.stdout.splitlines()[-1].split())


def imported_by(path: Path) -> set[str]:
    """Top-level names of every import statement, wherever it stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} line {node.lineno}: relative import"
            names.add((node.module or "").split(".")[0])
    return names


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded_after("import edge_runtime") & HEAVY


@pytest.mark.parametrize(
    "arguments",
    [[], ["run"], ["replay"], ["bundle"], ["bundle", "verify"], ["index", "info"], ["doctor"]],
    ids=" ".join,
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    statement = (
        "from edge_runtime.cli import main\n"
        f"try: main({[*arguments, '--help']!r})\n"
        "except SystemExit as end: assert end.code == 0"
    )
    assert not loaded_after(statement) & HEAVY


def test_the_localizer_loads_no_inference_library_before_a_backend_is_chosen() -> None:
    loaded = loaded_after("from edge_runtime import Localizer")
    assert not loaded & {"onnxruntime", "tensorrt", "pycuda", "rasterio", "torch", "onnx", "timm"}


@pytest.mark.parametrize("name", edge_runtime.__all__)
def test_every_public_name_resolves_to_what_it_says(name: str) -> None:
    assert getattr(edge_runtime, name).__name__ == name


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'edge_runtime' has no attribute 'Localiser'"):
        _ = edge_runtime.Localiser


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_no_module_leans_on_what_stays_on_the_ground(path: Path) -> None:
    ground = {"train", "export", "benchmarks", "tests", "torch", "timm", "onnx", "scipy"}
    assert not imported_by(path) & ground


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_no_module_is_named_after_one_it_could_meet(path: Path) -> None:
    names = sys.stdlib_module_names | HEAVY | {"utils", "helpers", "common", "misc"}
    assert path.stem not in names - {"__main__"}
