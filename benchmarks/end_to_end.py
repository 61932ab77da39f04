"""The same photographs through skyfix and through the loop a user would write, in one run.

Contenders take turns: some photographs (a block) through each, in an order that rotates, then the
next ones. So whatever the machine does besides happens to all, and frames can be compared in pairs.
Between blocks there is a short pause, in which nobody's threads work into another's time.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from benchmarks.end_to_end_contenders import Answer, Contender, Opened, Plain, open_contenders
from benchmarks.end_to_end_rows import (
    PLAIN,
    Quality,
    SpeedRow,
    paired_ratio,
    quality_of,
    times_of,
)
from benchmarks.rows import cpu_name, provenance
from benchmarks.scored_flight import read_truth
from edge_runtime.backends.protocol import Backend, BackendName, open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.camera import Camera
from edge_runtime.errors import InputError
from edge_runtime.satellite_index import SatelliteIndex
from edge_runtime.sources.photographs import PHOTO_SUFFIXES, natural_order
from edge_runtime.states.opening import open_states
from edge_runtime.states.photos import PhotoStates
from edge_runtime.states.recording import RecordedStates

Say = Callable[[str], None]

_PAUSE_S = 0.02
"""Longer than ONNX Runtime's threads of a default session wait spinning."""
_TRIAL_FRAMES = 20
"""On which the plain loops' OpenCV threads are chosen."""


@dataclass(frozen=True, kw_only=True)
class SpeedPlan:
    """What to compare on."""

    bundle: Path
    index: Path
    source: Path
    """Folder of photographs."""
    telemetry: Path
    camera: Path
    truth: Path | None = None
    backend: BackendName = "auto"
    threads: int | None = None
    block: int = 10
    """Photographs in a row."""
    warmup: int = 20
    """Photographs at the start that are not counted."""
    frames: int | None = None
    """Counted at most."""
    tiles: int = 0
    """A smaller map is refused."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if self.block < 1 or self.warmup < 1 or (self.frames is not None and self.frames < 1):
            msg = (
                f"block {self.block}, warmup {self.warmup}, frames {self.frames}; expected at "
                "least 1 each"
            )
            raise InputError(msg)


def compare(plan: SpeedPlan, *, say: Say = lambda _line: None) -> list[SpeedRow]:
    """Run every contender over the photographs, taking turns.

    Raises:
        InputError: no photographs left to count, telemetry or truth lacks some, the map is smaller
            than the plan's.
        SkyfixError: something is missing or does not belong together.
    """
    bundle = Bundle.open(plan.bundle)
    index = SatelliteIndex.open(plan.index, bundle)
    index.close()
    if len(index) < plan.tiles:
        msg = f"{plan.index} has {len(index)} tiles; expected {plan.tiles}, give a larger map"
        raise InputError(msg)
    names = _photographs(plan)
    backend = open_backend(bundle, plan.backend, threads=plan.threads)
    with tempfile.TemporaryDirectory() as logs:
        opened = open_contenders(
            folder=plan.source,
            telemetry=plan.telemetry,
            names=names,
            camera=Camera.load(plan.camera),
            bundle=bundle,
            index_folder=plan.index,
            backend=backend,
            logs=Path(logs),
        )
        try:
            load_before = os.getloadavg()[0]
            answers = _taken_in_turns(plan, names, opened, say)
            load_after = os.getloadavg()[0]
        finally:
            opened.close()
            backend.close()
    return _rows(plan, opened.contenders, answers, backend, bundle, index, load_before, load_after)


def _photographs(plan: SpeedPlan) -> list[str]:
    """Names of the photographs with telemetry, in the order skyfix takes them."""
    states = open_states(str(plan.telemetry))
    states.close()
    if not isinstance(states, (RecordedStates, PhotoStates)):
        msg = f"telemetry {plan.telemetry} is not of photographs; expected a CSV with filename"
        raise InputError(msg)
    if not plan.source.is_dir():
        msg = f"{plan.source} is not a folder; expected photographs, which a plain loop can read"
        raise InputError(msg)
    names = [
        p.name
        for p in plan.source.iterdir()
        if p.suffix.lower() in PHOTO_SUFFIXES and p.name in states.names
    ]
    names.sort(key=natural_order)
    last = len(names) if plan.frames is None else plan.warmup + plan.frames
    if len(names[:last]) <= plan.warmup:
        msg = (
            f"{plan.source} has {len(names)} photographs with telemetry; expected more than "
            f"{plan.warmup}, since so many only warm up"
        )
        raise InputError(msg)
    return names[:last]


def _taken_in_turns(
    plan: SpeedPlan, names: Sequence[str], opened: Opened, say: Say
) -> list[list[Answer]]:
    """Answers of each contender to the photographs that count."""
    contenders = opened.contenders
    for contender in contenders:
        if isinstance(contender, Plain):
            contender.take_better_setting(names[: min(plan.warmup, _TRIAL_FRAMES)])
        cv2.setNumThreads(contender.opencv_threads)
        contender.answers(names[: plan.warmup])
    counted = names[plan.warmup :]
    answers: list[list[Answer]] = [[] for _ in contenders]
    tenth = max(1, len(counted) // 10 // plan.block) * plan.block
    for number, first in enumerate(range(0, len(counted), plan.block)):
        if first % tenth == 0:
            say(f"{first} of {len(counted)} photographs")
        for k in range(len(contenders)):
            turn = (k + number) % len(contenders)
            time.sleep(_PAUSE_S)
            cv2.setNumThreads(contenders[turn].opencv_threads)
            answers[turn] += contenders[turn].answers(counted[first : first + plan.block])
    return answers


def _rows(
    plan: SpeedPlan,
    contenders: Sequence[Contender],
    answers: Sequence[Sequence[Answer]],
    backend: Backend,
    bundle: Bundle,
    index: SatelliteIndex,
    load_before: float,
    load_after: float,
) -> list[SpeedRow]:
    truths = None if plan.truth is None else read_truth(plan.truth)
    wall_ms = [[a.wall_ms for a in mine] for mine in answers]
    plain = wall_ms[[c.name for c in contenders].index(PLAIN)]
    made_by, info = provenance(), backend.info
    rows = []
    for contender, mine, times_ms in zip(contenders, answers, wall_ms, strict=True):
        times = times_of(times_ms)
        quality: Quality | None = None if truths is None else quality_of(mine, truths)
        own = not isinstance(contender, Plain)
        rows.append(
            SpeedRow(
                **made_by,
                contender=contender.name,
                source=plan.source.parent.name + "/" + plan.source.name,
                frames=len(mine),
                block=plan.block,
                **times._asdict(),
                p99_over_p50=times.p99_ms / times.p50_ms,
                as_fast_as_plain=paired_ratio(times_ms, plain, block=plan.block),
                quality=quality,
                opencv_threads=contender.opencv_threads,
                backend=info.name if own else "onnxruntime, its defaults",
                provider=info.provider if own else "CPUExecutionProvider",
                backend_threads=info.threads if own else None,
                tiles=len(index),
                device=cpu_name(),
                cores=len(os.sched_getaffinity(0)),
                load_before=load_before,
                load_after=load_after,
                bundle_id=bundle.id,
                index_id=index.id,
            )
        )
    return rows
