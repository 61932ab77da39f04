"""From a raster's bands to 8-bit RGB: which bands, a palette's colours, deep values stretched."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioIOError

from edge_runtime.errors import ImageryError

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
Stretch = tuple[tuple[float, float], ...]

PERCENTILES = (2.0, 98.0)
"""Of a band's values, what becomes black and white: the cumulative cut that GIS viewers use."""
_SAMPLES = 4_000_000
"""Values looked at per band, over all files of a source."""
_NO_COLOUR = frozenset(
    {
        ColorInterp.alpha,
        *(
            getattr(ColorInterp, name)
            for name in ("nir", "swir", "mwir", "lwir", "tir", "other_ir", "rededge", "coastal")
            if hasattr(ColorInterp, name)  # GDAL knows them from 3.10 on.
        ),
    }
)


class Bands(NamedTuple):
    """Which bands of a raster are its picture; numbers begin at 1."""

    colour: tuple[int, ...]
    """One for grey, three for red, green and blue."""
    alpha: int | None
    palette: bool
    deep: bool
    """Not 8 bits: to be stretched."""


def choose_bands(raster: rasterio.DatasetReader) -> Bands:
    """Find the picture among a raster's bands, by what the file says they are.

    Raises:
        ImageryError: complex values, or several bands of which none is said to be a colour.
    """
    says = raster.colorinterp
    kinds = sorted(set(raster.dtypes))
    if len(kinds) > 1 or kinds[0].startswith("complex"):
        msg = (
            f"{raster.name} has bands of {', '.join(kinds)}; expected bands of one type that is a "
            "number. Convert it with: gdal_translate -ot Byte -scale"
        )
        raise ImageryError(msg)
    alpha = says.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in says else None
    deep = kinds[0] != "uint8"
    if says[0] is ColorInterp.palette:
        return Bands((1,), None, palette=True, deep=False)
    named = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(colour in says for colour in named):
        return Bands(tuple(says.index(c) + 1 for c in named), alpha, palette=False, deep=deep)
    visible = [k for k, said in enumerate(says, 1) if said not in _NO_COLOUR]
    if 3 <= len(visible) <= 4:
        return Bands(tuple(visible[:3]), alpha, palette=False, deep=deep)
    if 1 <= len(visible) <= 2:
        return Bands((visible[0],), alpha, palette=False, deep=deep)
    msg = (
        f"{raster.name} has {raster.count} bands and does not say which are red, green and blue; "
        "expected 1 to 4 bands, or a colour interpretation. Choose three with: gdal_translate "
        "-b 3 -b 2 -b 1"
    )
    raise ImageryError(msg)


def expanded_palette(raster: rasterio.DatasetReader) -> str:
    """A virtual raster (VRT) of red, green, blue and alpha instead of a palette's numbers."""
    colours = raster.colormap(1)
    opaque = all(colour[3] == 255 for colour in colours.values())
    names = ["Red", "Green", "Blue"]
    nodata = ""
    if raster.nodata is not None or not opaque:
        names.append("Alpha")
    if raster.nodata is not None:
        nodata = f"<NODATA>{raster.nodata:g}</NODATA>"
    file = escape(str(Path(raster.name).resolve()))
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{k}"><ColorInterp>{name}</ColorInterp>'
        f'<ComplexSource><SourceFilename relativeToVRT="0">{file}</SourceFilename>'
        f"<SourceBand>1</SourceBand>{nodata}<ColorTableComponent>{k}</ColorTableComponent>"
        "</ComplexSource></VRTRasterBand>"
        for k, name in enumerate(names, 1)
    )
    size = f'rasterXSize="{raster.width}" rasterYSize="{raster.height}"'
    return f"<VRTDataset {size}>{bands}</VRTDataset>"


def measure_stretch(paths: Sequence[Path], bands: Bands) -> Stretch:
    """The values of each colour band that become black and white, over all files together.

    Raises:
        ImageryError: a file is damaged, or none has a visible pixel.
    """
    side = int(np.clip((_SAMPLES / len(paths)) ** 0.5, 32, 1024))
    samples: list[F64] = []
    for path in paths:
        try:
            with rasterio.open(path) as raster:
                shape = (len(bands.colour), min(side, raster.height), min(side, raster.width))
                found = raster.read(list(bands.colour), out_shape=shape, masked=True)
                says_nothing = MaskFlags.all_valid in raster.mask_flag_enums[bands.colour[0] - 1]
        except RasterioIOError as error:
            msg = f"{path} is damaged ({error}); expected a complete raster"
            raise ImageryError(msg) from error
        values = np.asarray(found.data, np.float64).reshape(len(bands.colour), -1)
        seen = ~np.ma.getmaskarray(found).reshape(values.shape).any(axis=0)
        seen &= np.isfinite(values).all(axis=0)
        if says_nothing:  # Scenes often lie in a frame of zeros that no nodata value names.
            seen &= (values != 0).any(axis=0)
        samples.append(values[:, seen])
    pooled = np.concatenate(samples, axis=1)
    if not pooled.size:
        msg = f"{paths[0]} has no visible pixel; is everything nodata?"
        raise ImageryError(msg)
    low, high = np.percentile(pooled, PERCENTILES, axis=1)
    return tuple(
        (float(a), float(b) if b > a else float(a) + 1.0) for a, b in zip(low, high, strict=True)
    )


def as_rgba(bands: npt.NDArray[np.generic], stretch: Stretch) -> U8:
    """(2 or 4, H, W) grey or RGB first, alpha last, to (H, W, 4) uint8."""
    colour, alpha = bands[:-1], bands[-1]
    if stretch:
        low = np.array([pair[0] for pair in stretch])[:, None, None]
        high = np.array([pair[1] for pair in stretch])[:, None, None]
        values = colour.astype(np.float64)
        # Values that are no number are no imagery.
        alpha = np.where(np.isfinite(values).all(axis=0) & (alpha.astype(np.float64) > 0), 255, 0)
        scaled = np.clip((np.nan_to_num(values) - low) / (high - low) * 255, 0, 255)
        colour = np.round(scaled)
    rgb = colour if len(colour) == 3 else colour[[0, 0, 0]]
    return np.ascontiguousarray(
        np.concatenate([rgb, alpha[None]]).astype(np.uint8).transpose(1, 2, 0)
    )
