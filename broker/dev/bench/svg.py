"""Drawings: the few shapes that the charts need, as SVG."""

from __future__ import annotations

from typing import Final
from xml.etree import ElementTree as ET

INK: Final = "#1f2937"
FAINT: Final = "#9ca3af"
GOOD: Final = "#2f855a"
BAD: Final = "#c05621"
SERIES: Final = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1")


class Drawing:
    """An SVG of a width and a height, in pixels, on white: readable wherever it is shown."""

    def __init__(self, width: int, height: int, title: str) -> None:
        """``title`` says what it shows, for those who can't see it."""
        self._root = ET.Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "viewBox": f"0 0 {width} {height}",
                "width": str(width),
                "height": str(height),
                "font-family": "system-ui, sans-serif",
                "font-size": "12",
                "role": "img",
            },
        )
        ET.SubElement(self._root, "title").text = title
        self.box(0, 0, width, height, "#ffffff")

    def box(self, x: float, y: float, width: float, height: float, fill: str) -> None:
        """Draw a filled rectangle."""
        self._add("rect", x=x, y=y, width=max(width, 0.5), height=height, fill=fill)

    def line(
        self, x1: float, y1: float, x2: float, y2: float, stroke: str = FAINT, dash: str = ""
    ) -> None:
        """Draw a line."""
        more = {"stroke-dasharray": dash} if dash else {}
        self._add("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=stroke, **more)

    def path(self, points: list[tuple[float, float]], stroke: str) -> None:
        """Draw a line through points, with a dot on each."""
        text = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
        self._add("polyline", points=text, fill="none", stroke=stroke, **{"stroke-width": 1.5})
        for x, y in points:
            self._add("circle", cx=x, cy=y, r=2.5, fill=stroke)

    def text(
        self, x: float, y: float, text: str, fill: str = INK, anchor: str = "start", size: int = 12
    ) -> None:
        """Write text."""
        look = {"text-anchor": anchor, "font-size": size}
        self._add("text", x=x, y=y, fill=fill, **look).text = text

    def _add(self, kind: str, **attributes: float | str) -> ET.Element:
        return ET.SubElement(self._root, kind, {k: _number(v) for k, v in attributes.items()})

    def __str__(self) -> str:
        ET.indent(self._root)
        return ET.tostring(self._root, encoding="unicode") + "\n"


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
