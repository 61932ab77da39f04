"""What the fastest libraries at hand reach on this CPU, measured in a process of its own."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from edge_runtime.errors import BackendError, InputError
from export.cpu_probe import Rates

_TIMEOUT_S = 300
_OTHERS = ("fp16", "bf16", "int8")


def cpu_rates(threads: int, seconds: float = 0.3) -> Rates:
    """Run `export.cpu_probe` with so many threads; about 10 s the first time, kept afterwards.

    Args:
        threads: of every library.
        seconds: for each contender and matrix size.

    Raises:
        InputError: fewer than one thread.
        BackendError: the measurement failed.
    """
    if threads < 1:
        msg = f"{threads} threads; expected at least 1"
        raise InputError(msg)
    return _cpu_rates(threads, seconds)


@functools.cache
def _cpu_rates(threads: int, seconds: float) -> Rates:
    text = str(threads)
    here = str(Path(__file__).parents[1])
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(variables, text), "PYTHONPATH": here}
    command = [sys.executable, "-m", "export.cpu_probe"]
    command += ["--threads", text, "--seconds", str(seconds)]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
        rates: Rates = json.loads(done.stdout)
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no message"])[-1]
        msg = f"the CPU's ceilings could not be measured ({reason}); run: {' '.join(command)}"
        raise BackendError(msg) from error
    except (subprocess.TimeoutExpired, ValueError) as error:
        msg = f"the CPU's ceilings could not be measured ({error}); run: {' '.join(command)}"
        raise BackendError(msg) from error
    return rates


def best_of(contenders: Mapping[str, float]) -> tuple[float, str]:
    """The highest rate and whose it is."""
    return max(((rate, name) for name, rate in contenders.items()), default=(0.0, "none"))


def best_peaks(rates: Rates) -> dict[str, tuple[float, str]]:
    """The best contender's 1e9 operations a second, and its name, of each precision.

    What a CPU computes in no faster way it computes as fp32: casting first, so no other precision
    is below it.
    """
    fp32 = best_of(rates["fp32"])
    others = {kind: max(best_of(rates[kind]), (fp32[0], "as fp32")) for kind in _OTHERS}
    return {"fp32": fp32, **others}
