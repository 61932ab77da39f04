"""Does our code fit a recorded version of TensorRT? mypy answers, against stubs made of the record.

Two ways past mypy are closed here: comments that silence it are taken out of the copy it reads, and
where the type of an object is not known, so that nothing could be said about what is called on it,
that is a finding too.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.tensorrt_interface.recording import PYCUDA
from tests.tensorrt_interface.typing_stubs import typing_stub

MODULES = ("tensorrt", "pycuda")
_SILENCER = re.compile(r"#\s*type:\s*ignore.*$", re.MULTILINE)
_LINE = re.compile(r"^(?P<file>[^:]+):(?P<span>\d+:\d+:\d+:\d+): error: (?P<what>.*)$")
_MISSING = re.compile(
    r'(?:module named|Skipping analyzing|stubs not installed for) "(?P<module>[^"]+)"'
)
"""What mypy says of imports without types, which only here must not be ours."""
_UNKNOWN = 'Expression has type "Any"'
_ABOUT_ANY = ("Expression has type", "Expression type contains", 'Explicit "Any"')
_HARMLESS = {"__version__"}
"""Attributes that any version has, so they may be read from a module loaded by name."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that a version of TensorRT or pycuda does not have, or that cannot be checked."""

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


def users_of_gpu_libraries(folder: Path) -> list[Path]:
    """Python files below a folder that import TensorRT or pycuda, also by name."""
    return [path for path in sorted(folder.rglob("*.py")) if _imports(path.read_text())]


def findings(folder: Path, record: Path, work: Path) -> list[Finding]:
    """What in the files of a package does not fit a version of TensorRT, or cannot be checked.

    Args:
        folder: the package; its name is kept, so that its files import one another.
        record: what a version of the TensorRT bindings offers.
        work: folder for the copy, the stubs and mypy's cache; may be used again, which is faster.
    """
    stubs, copy = work / "stubs", work / "copy"
    write_stubs(stubs, record)
    _copy_without_silencers(folder, copy / folder.name)
    users = [p.relative_to(copy) for p in users_of_gpu_libraries(copy / folder.name)]
    if not users:
        return []
    return [
        Finding(file=str(path), line=span[0], what=what)
        for path, span, what in _relevant(copy, list(_mypy(copy, stubs, work / "cache", users)))
    ]


def write_stubs(stubs: Path, record: Path) -> None:
    """Lay stubs of a recorded version, and of pycuda, into a folder for mypy."""
    (stubs / "pycuda").mkdir(parents=True, exist_ok=True)
    texts = {
        "tensorrt.pyi": typing_stub(json.loads(record.read_text())),
        "pycuda/driver.pyi": typing_stub(json.loads(PYCUDA.read_text())),
        "pycuda/__init__.pyi": "",
    }
    for name, text in texts.items():
        (stubs / name).write_text(text)


Span = tuple[int, int, int, int]
"""First line, first column, last line, last column; from 1, both ends inside."""


def _mypy(
    copy: Path, stubs: Path, cache: Path, files: list[Path]
) -> Iterator[tuple[Path, Span, str]]:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--config-file=", f"--cache-dir={cache}"),
            *("--strict", "--disallow-any-expr", "--no-warn-unused-ignores"),
            *("--allow-any-generics", "--no-warn-return-any"),
            *("--explicit-package-bases", "--follow-imports=silent"),
            *("--show-column-numbers", "--show-error-end", "--hide-error-codes", "--no-pretty"),
            *map(str, files),
        ],
        cwd=copy,
        env={"MYPYPATH": f"{stubs}:{copy}", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        msg = f"mypy failed: {done.stdout}{done.stderr}"
        raise RuntimeError(msg)
    for line in done.stdout.splitlines():
        match = _LINE.match(line)
        if ": error:" in line and (match is None or not (copy / match["file"]).is_file()):
            msg = f"mypy refuses more than our code, perhaps a stub made from a record: {line}"
            raise RuntimeError(msg)
        if match is None:
            continue
        missing = _MISSING.search(match["what"])
        if missing is not None and not _is_theirs(missing["module"]):
            continue
        first, column, last, end = map(int, match["span"].split(":"))
        yield Path(match["file"]), (first, column, last, end), match["what"]


def _relevant(copy: Path, said: list[tuple[Path, Span, str]]) -> Iterator[tuple[Path, Span, str]]:
    """Errors, and of expressions without a known type those on which something is looked up."""
    unknown = {(path, span) for path, span, what in said if what.startswith(_UNKNOWN)}
    for path, span, what in said:
        if not what.startswith(_ABOUT_ANY):
            yield path, span, what
    for path in sorted({path for path, _ in unknown}):
        tree = ast.parse((copy / path).read_text())
        by_name = any(_loads_by_name(node) for node in ast.walk(tree))
        calls = {node.func: node for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or node.attr in _HARMLESS:
                continue
            value = node.value
            if isinstance(value, ast.Subscript) and hasattr(np.ndarray, node.attr):
                continue  # numpy gives elements of arrays no type.
            # A module loaded by name has a type, but what is looked up in it has none.
            result = calls.get(node, node)
            if (path, _span(value)) in unknown or (by_name and (path, _span(result)) in unknown):
                text = ast.unparse(value)
                what = f"the type of `{text}` is not known, so .{node.attr} is unchecked"
                yield path, _span(node), what


def _span(node: ast.expr) -> Span:
    return node.lineno, node.col_offset + 1, node.end_lineno or 0, node.end_col_offset or 0


def _copy_without_silencers(folder: Path, to: Path) -> None:
    for path in sorted(folder.rglob("*.py")):
        target = to / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = _SILENCER.sub("", path.read_text())
        if not target.exists() or target.read_text() != text:
            target.write_text(text)


def _imports(source: str) -> bool:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import) and any(_is_theirs(a.name) for a in node.names):
            return True
        if isinstance(node, ast.ImportFrom) and _is_theirs(node.module or ""):
            return True
        if _loads_by_name(node):
            return True
    return False


def _loads_by_name(node: ast.AST) -> bool:
    """Whether a module is loaded by a name that is theirs, or that only the run knows."""
    if not isinstance(node, ast.Call):
        return False
    if not ast.unparse(node.func).endswith(("import_module", "__import__")):
        return False
    name = node.args[0] if node.args else None
    if isinstance(name, ast.Constant) and isinstance(name.value, str):
        return _is_theirs(name.value)
    return True


def _is_theirs(module: str) -> bool:
    return module.partition(".")[0] in MODULES
