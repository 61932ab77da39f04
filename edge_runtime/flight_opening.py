"""Opening everything that a run's settings name, and checking that it belongs together."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from edge_runtime.backends.protocol import BACKENDS, BackendName
from edge_runtime.camera import Camera
from edge_runtime.errors import InputError
from edge_runtime.flight import Flight
from edge_runtime.flight_camera import CAMERA_OPTIONS, camera_of
from edge_runtime.localizer import Localizer
from edge_runtime.localizer_config import LocalizerConfig
from edge_runtime.matcher_opening import require_matcher
from edge_runtime.run_settings import RunSettings
from edge_runtime.satellite_index import SatelliteIndex
from edge_runtime.sources.devices import check_device
from edge_runtime.sources.opening import open_frames
from edge_runtime.sources.protocol import FrameSource
from edge_runtime.sources.uri import parse_source
from edge_runtime.states.opening import open_states
from edge_runtime.states.photos import PhotoStates
from edge_runtime.states.protocol import StateSource
from edge_runtime.states.recording import RecordedStates
from edge_runtime.terrain import TakeoffTerrain, Terrain

_SOURCE_OPTIONS = ("rate_hz", "loop", "stall_s", "latency_ms")
_STATE_OPTIONS = ("time_offset_s", "max_gap_s", "heading")
_TERRAIN_OPTIONS = ("terrain", "takeoff")
_OTHERS = (
    "ignore",
    "start",
    "threads",
    "precision",
    "calibrated",
    "false_fix_rate",
    "matcher",
    "matcher_sha256",
)
_NOT_OF_THE_LOCALIZER = frozenset(
    {*_SOURCE_OPTIONS, *_STATE_OPTIONS, *_TERRAIN_OPTIONS, *_OTHERS, *CAMERA_OPTIONS}
)


@contextmanager
def opened(settings: RunSettings) -> Iterator[Flight]:
    """Open and check every part; close them all afterwards.

    Args:
        settings: with the camera settled (`flight_camera.find_camera`).

    Raises:
        SkyfixError: anything is missing, altered, or does not belong together.
    """
    options = settings.options
    with ExitStack() as stack:
        # Cheap things first: a mistake in them is told before a model is loaded.
        camera = camera_of(settings)
        config = config_of(options)
        of_source = {k: options[k] for k in _SOURCE_OPTIONS if k in options}
        states = open_states(
            settings.telemetry,
            ignore=frozenset(options.get("ignore", [])),
            **{k: options[k] for k in _STATE_OPTIONS if k in options},
        )
        stack.callback(states.close)
        _check_states(settings, states, config)
        terrain = _terrain(options, stack)
        live = is_live(settings.source)
        _check_device(settings.source)
        source = None if live else _files(settings, states, of_source)
        if source is not None:
            stack.callback(source.close)
        localizer = open_localizer(settings, camera=camera)
        stack.callback(localizer.close)
        _check_order(settings, states, localizer.index)
        if options.get("start") is not None:
            localizer.start_at(*options["start"])
        if source is None:
            # A camera comes last, so that no frame waits and grows old while an encoder loads.
            source = open_frames(settings.source, **of_source)
            stack.callback(source.close)
        flight = Flight(
            source=source,
            states=states,
            localizer=localizer,
            terrain=terrain,
            begins_at=_begins_at(options, localizer.index),
            source_period_s=_period_s(settings.source, source, of_source),
        )
        stack.callback(flight.close)
        yield flight


def open_localizer(settings: RunSettings, *, camera: Camera | None = None) -> Localizer:
    """The localizer of a run's settings.

    Raises:
        SkyfixError: anything is missing, altered, or does not belong together.
    """
    threads = settings.options.get("threads")
    if threads is not None and threads < 1:
        msg = f"threads is {threads}; expected 1 or more, or none given for all cores"
        raise InputError(msg)
    matcher = settings.options.get("matcher")
    if matcher is not None and "matcher_sha256" in settings.options:
        require_matcher(Path(matcher), settings.options["matcher_sha256"])
    return Localizer.open(
        settings.bundle,
        settings.index,
        camera or camera_of(settings),
        backend=_backend(settings.backend),
        config=config_of(settings.options),
        precision=settings.options.get("precision"),
        threads=threads,
        calibrated=settings.options.get("calibrated", True),
        false_fix_rate=settings.options.get("false_fix_rate"),
        matcher=matcher,
    )


def config_of(options: dict[str, Any]) -> LocalizerConfig:
    """The localizer's choices among a run's options.

    Raises:
        InputError: an option that nothing here knows, or a value that makes no sense.
    """
    chosen = {k: v for k, v in options.items() if k not in _NOT_OF_THE_LOCALIZER}
    if chosen.get("height_range_m") is not None:
        chosen["height_range_m"] = tuple(chosen["height_range_m"])
    known = {field.name for field in fields(LocalizerConfig)}
    if unknown := sorted(set(chosen) - known):
        msg = (
            f"the run's options {unknown} are not known here; known: "
            f"{sorted(known | _NOT_OF_THE_LOCALIZER)}"
        )
        raise InputError(msg)
    return LocalizerConfig(**chosen)


def settings_of(values: dict[str, Any], place: Path) -> RunSettings:
    """The settings that a recording keeps.

    Raises:
        InputError: they are of another version, or none.
    """
    names = {field.name for field in fields(RunSettings)}
    if set(values) != names:
        msg = (
            f"recording {place} has settings {sorted(values)}, expected {sorted(names)}; replay it "
            "with the version that made it"
        )
        raise InputError(msg)
    return RunSettings(**values)


def is_live(uri: str) -> bool:
    """Whether a source gives frames at its own pace. Nothing is opened.

    Raises:
        InputError: not a source.
    """
    source = parse_source(uri)
    return source.kind != "file" or source.truth("realtime")


def _check_device(uri: str) -> None:
    source = parse_source(uri)
    if source.kind == "v4l2":
        check_device(source.target)


def _files(settings: RunSettings, states: StateSource, options: dict[str, Any]) -> FrameSource:
    names = states.names if isinstance(states, (RecordedStates, PhotoStates)) else frozenset[str]()
    folder = Path(settings.source)
    if not (folder.is_dir() and names):
        return open_frames(settings.source, **options)
    source = open_frames(settings.source, names=names, **options)
    if source.count() == 0:
        first = min(source.left_out, default="none")
        source.close()
        msg = (
            f"{settings.telemetry} names none of the {len(source.left_out)} photographs in "
            f"{folder} (the first is {first}); expected its filename column to match"
        )
        raise InputError(msg)
    return source


def _terrain(options: dict[str, Any], stack: ExitStack) -> TakeoffTerrain | None:
    path, takeoff = options.get("terrain"), options.get("takeoff")
    if path is None and takeoff is None:
        return None
    if path is None or takeoff is None:
        given, missing = ("--takeoff", "--terrain") if path is None else ("--terrain", "--takeoff")
        msg = f"{given} is given without {missing}; heights need both, or none of them"
        raise InputError(msg)
    terrain = Terrain.open(Path(path))
    stack.callback(terrain.close)
    return TakeoffTerrain(terrain, *takeoff)


def _begins_at(options: dict[str, Any], index: SatelliteIndex) -> tuple[float, float] | None:
    """Where the ground is looked up before anything is known: at the take-off, if it is mapped."""
    if options.get("takeoff") is None:
        return None
    lat_deg, lon_deg = options["takeoff"]
    if index.contains(lat_deg, lon_deg):
        return lat_deg, lon_deg
    b = index.imagery.bounds
    return (b.south_deg + b.north_deg) / 2, (b.west_deg + b.east_deg) / 2


def _check_states(settings: RunSettings, states: StateSource, config: LocalizerConfig) -> None:
    if states.live or not isinstance(states, (RecordedStates, PhotoStates)):
        return
    knows_height = states.knows("height_m") or states.knows("height_above_takeoff_m")
    if not knows_height and config.height_range_m is None:
        msg = (
            f"telemetry {settings.telemetry} has no height_m; add the column, or give a range to "
            "search with --height-range-m LOW HIGH"
        )
        raise InputError(msg)


def _check_order(settings: RunSettings, states: StateSource, index: SatelliteIndex) -> None:
    """Refuse positions that are on the map only with latitude and longitude exchanged.

    Positions off the map either way say nothing: GNSS may have been jammed or spoofed.
    """
    positions = states.positions if isinstance(states, RecordedStates) else ()
    if any(index.contains(lat, lon) for lat, lon in positions):
        return
    for lat, lon in positions:
        if abs(lon) <= 90 and index.contains(lon, lat):
            msg = (
                f"telemetry {settings.telemetry} has the position {lat:.5f}, {lon:.5f}, which is "
                "on the map only the other way round; is the order (lat, lon)?"
            )
            raise InputError(msg)


def _period_s(uri: str, source: FrameSource, options: dict[str, Any]) -> float | None:
    """Length of a video that is played for ever; its telemetry must begin again with it."""
    if not options.get("loop"):
        return None
    length_s = getattr(source, "length_s", None)
    if length_s is None and source.live:
        plain = open_frames(uri.partition("?")[0])
        length_s = getattr(plain, "length_s", None)
        plain.close()
    return None if length_s is None else float(length_s)


def _backend(name: str) -> BackendName:
    if name not in BACKENDS:
        msg = f"there is no backend {name!r}; known: {', '.join(BACKENDS)}"
        raise InputError(msg)
    return name  # type: ignore[return-value]
