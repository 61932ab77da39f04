"""How near a measurement is to what its device can do at best."""

from benchmarks.measurement import Limit
from benchmarks.roofline.ceilings import Ceilings
from benchmarks.roofline.graph_cost import GraphCost
from edge_runtime.errors import InputError


def limit_of(cost: GraphCost, ceilings: Ceilings, precision: str, p50_ms: float) -> Limit:
    """The roofline of one call: its arithmetic or its least traffic, whichever takes longer.

    All arithmetic is taken at the peak of `precision`, also that which an INT8 file leaves in
    floating point, so no call can be faster. Traffic that fits the last cache can stay there from
    call to call and is held against the cache's bandwidth.

    Args:
        cost: of the file that ran, at the batch and size of the measurement.
        ceilings: of the device that ran it.
        precision: fp32, fp16, bf16 or int8.
        p50_ms: median of the calls.

    Returns:
        The limit; its ratio is not clipped, see `doubt`.

    Raises:
        InputError: no peak of this precision is known for the device, or a median of 0.
    """
    peak_gflops = ceilings.peak_gflops.get(precision)
    if peak_gflops is None:
        known = ", ".join(ceilings.peak_gflops)
        msg = (
            f"no {precision} peak is known for {ceilings.device}; known are {known}. Leave the "
            "limit out"
        )
        raise InputError(msg)
    if not p50_ms > 0:
        msg = f"the median is {p50_ms} ms; expected more than 0"
        raise InputError(msg)
    bandwidth_gb_s, source = ceilings.bandwidth_gb_s, ceilings.source
    if ceilings.cache_gb_s is not None and cost.least_bytes <= ceilings.cache_bytes:
        bandwidth_gb_s = ceilings.cache_gb_s
        source += f"; traffic fits the cache of {ceilings.cache_bytes / 2**20:.0f} MiB"
    if cost.unknown:
        source += f"; not counted: {', '.join(cost.unknown)} ({cost.unknown_share:.0%} of nodes)"
    compute_ms = cost.flops / peak_gflops / 1e6
    memory_ms = cost.least_bytes / bandwidth_gb_s / 1e6
    roof_ms = max(compute_ms, memory_ms)
    return Limit(
        gflop=cost.flops / 1e9,
        traffic_mb=cost.least_bytes / 1e6,
        peak_gflops=peak_gflops,
        bandwidth_gb_s=bandwidth_gb_s,
        source=source,
        bound="compute" if compute_ms >= memory_ms else "memory",
        roof_ms=roof_ms,
        ratio=roof_ms / p50_ms,
    )


def doubt(limit: Limit) -> str:
    """One line where a measurement beats its limit, which nothing can; empty otherwise."""
    if limit.ratio <= 1:
        return ""
    what = (
        f"the peak of {limit.peak_gflops:.0f} GFLOP/s was measured too low (a busy machine?), "
        "or the library multiplies less (Winograd)"
        if limit.bound == "compute"
        else f"the bandwidth of {limit.bandwidth_gb_s:.0f} GB/s was measured too low"
    )
    return (
        f"{limit.ratio:.2f} of the limit: nothing is faster than {limit.roof_ms:.3f} ms, so {what}"
    )
