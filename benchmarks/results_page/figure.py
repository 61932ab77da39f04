"""A picture under construction: SVG text whose colours are the page's classes."""

from html import escape

from train.svg_plots import FONT_PX, Axis


class Figure:
    """One `<svg>`, drawn for a width and scaled by the page."""

    def __init__(self, width_px: int, height_px: int, title: str) -> None:
        """Begin with nothing.

        Args:
            width_px: it is drawn for.
            height_px: of the picture.
            title: for readers who cannot see it.
        """
        self.width_px, self.height_px, self._title = width_px, height_px, title
        self._parts: list[str] = []

    def path(self, css: str, d: str) -> None:
        """Draw a path; an empty one is left out."""
        if d:
            self._parts.append(f'<path class="{css}" d="{d}"/>')

    def line(self, css: str, x1: float, y1: float, x2: float, y2: float) -> None:
        """Draw a straight line."""
        self.path(css, f"M{x1:g} {y1:g}L{x2:g} {y2:g}")

    def box(self, css: str, x: float, y: float, width: float, height: float) -> None:
        """Draw a filled rectangle."""
        self._parts.append(
            f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" '
            f'height="{max(height, 0):.1f}"/>'
        )

    def text(self, x: float, y: float, text: str, *, anchor: str = "start", css: str = "") -> None:
        """Write, level."""
        name = f' class="{css}"' if css else ""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{name}>{escape(text)}</text>'
        )

    def mark(self, css: str, shape: str, x: float, y: float, said: str, size: float = 5.0) -> None:
        """Draw a filled mark that says what it is when pointed at.

        Args:
            css: class of its colour.
            shape: circle, square, triangle, diamond or arrow (to the right).
            x: of its middle.
            y: of its middle.
            said: shown by browsers as a tooltip, read by screen readers.
            size: half of its width.
        """
        s = size
        d = {
            "square": f"M{x - s:g} {y - s:g}h{2 * s:g}v{2 * s:g}h{-2 * s:g}Z",
            "triangle": f"M{x:g} {y - 1.2 * s:g}L{x + 1.1 * s:g} {y + 0.8 * s:g}h{-2.2 * s:g}Z",
            "arrow": f"M{x + s:g} {y:g}L{x - s:g} {y - s:g}v{2 * s:g}Z",
            "diamond": f"M{x:g} {y - s:g}L{x + s:g} {y:g}L{x:g} {y + s:g}L{x - s:g} {y:g}Z",
        }.get(
            shape, f"M{x - s:g} {y:g}a{s:g} {s:g} 0 1 0 {2 * s:g} 0a{s:g} {s:g} 0 1 0 {-2 * s:g} 0Z"
        )
        self._parts.append(f'<path class="mark {css}" d="{d}"><title>{escape(said)}</title></path>')

    def milliseconds(self, x: Axis, top: float, bottom: float, label: str) -> None:
        """Draw a horizontal axis of times under the picture, with its grid."""
        for value in spaced(x, x.ticks(8 if self.width_px > 600 else 5), 34):
            self.line("grid", x(value), top, x(value), bottom)
            self.text(x(value), bottom + 18, tick(value), anchor="middle")
        self.text((x.start_px + x.end_px) / 2, bottom + 38, label, anchor="middle")

    def svg(self, said: str) -> str:
        """The finished picture.

        Args:
            said: what it shows, for readers who cannot see it.
        """
        label = escape(f"{self._title}. {said}", quote=True)
        return (
            f'<svg viewBox="0 0 {self.width_px} {self.height_px}" role="img" aria-label="{label}" '
            f'font-size="{FONT_PX}"><title>{escape(self._title)}</title>'
            f"{''.join(self._parts)}</svg>"
        )


def log_axis(values: list[float], start_px: float, end_px: float) -> Axis:
    """A logarithmic axis with room around positive values."""
    low, high = min(values), max(values)
    if high < 1.5 * low:
        low, high = low / 1.25, high * 1.25
    return Axis(low=low / 1.12, high=high * 1.12, start_px=start_px, end_px=end_px, log=True)


def spaced(axis: Axis, values: list[float], apart_px: float) -> list[float]:
    """Those of the ascending values that are far enough from the one before."""
    kept: list[float] = []
    for value in values:
        if not kept or abs(axis(value) - axis(kept[-1])) >= apart_px:
            kept.append(value)
    return kept


def tick(value: float) -> str:
    """A round value at an axis."""
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:g}"
