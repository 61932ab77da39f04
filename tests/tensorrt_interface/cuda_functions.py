"""C functions of the CUDA driver that our code calls through ctypes, against the header's own list.

ctypes checks neither that a function exists nor how many arguments it takes, and the header renames
functions: `cuDeviceTotalMem` is `cuDeviceTotalMem_v2` in the library. The record holds the names as
the library exports them, of CUDA 13.0; `python -m tests.tensorrt_interface.cuda_functions FOLDER`
writes it again from the folder of `cuda.h`.
"""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.tensorrt_interface.recording import RECORDS, write_json

RECORD = RECORDS / "cuda-driver.json"
_FAMILIES = re.compile(
    r"cu(Init|Driver|Device|Ctx|Stream|Graph(?!Add|Kernel)|MemGet|MemAlloc|MemFree)"
)
_PROTOTYPE = re.compile(r"CUresult\s+(cu\w+)\((.*?)\);", re.DOTALL)
_NAME = re.compile(r"cu[A-Z]\w+")


class Call(NamedTuple):
    """A call of the driver in our code."""

    line: int
    function: str
    arguments: int


def driver_calls(source: str) -> list[Call]:
    """Calls such as `driver.cuInit(0)` and `checked(driver, "cuInit", 0)`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Attribute) and _NAME.fullmatch(node.func.attr):
            found.append(Call(node.lineno, node.func.attr, len(node.args)))
        for position, argument in enumerate(node.args):
            value = argument.value if isinstance(argument, ast.Constant) else None
            if isinstance(value, str) and _NAME.fullmatch(value):
                found.append(Call(node.lineno, value, len(node.args) - position - 1))
    return found


def unfitting(source: str) -> list[str]:
    """What in a file the driver does not have, or not with so many arguments."""
    functions: dict[str, list[str]] = json.loads(RECORD.read_text())["functions"]
    found = []
    for call in driver_calls(source):
        arguments = functions.get(call.function)
        if arguments is None:
            found.append(f"line {call.line}: the driver has no {call.function}")
        elif len(arguments) != call.arguments:
            found.append(
                f"line {call.line}: {call.function} takes {arguments}, {call.arguments} are given"
            )
    return found


def record_header(include: Path) -> dict[str, object]:
    """Functions of `cuda.h` as the library names them, each with its arguments' declarations."""
    text = subprocess.run(
        ["cc", "-E", "-P", f"-I{include}", "-"],
        input="#include <cuda.h>\nskyfix_version CUDA_VERSION\n",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    version = re.search(r"skyfix_version (\d+)", text)
    functions = {
        name: [a.strip() for a in arguments.split(",") if a.strip() != "void"]
        for name, arguments in _PROTOTYPE.findall(text)
        if _FAMILIES.match(name)
    }
    return {
        "package": "cuda.h",
        "version": version[1] if version is not None else "unknown",
        "functions": dict(sorted(functions.items())),
    }


if __name__ == "__main__":
    write_json(RECORD, record_header(Path(sys.argv[1])))
