"""Network: a picture of the layers and how they are joined, as inline SVG. One drawing for every page that has one.

Layers stand in columns by their distance from the input, `ACROSS` columns a row, branches one under the other. A box tells the
layer's name, its precision and its share of the time; the strip at its foot has the color of that share, the box above it the
color of its share of the noise; a stronger color is more. Its border is dotted where it computes in floating point.

Without script the picture scrolls, and the table beside it says all that the boxes say; the page's script adds zoom, and a walk
along the layers by the arrow keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

from toolkit.report.markup import number, tag
from toolkit.types import Frozen

ACROSS = 10
WIDTH, HEIGHT, STRIP = 86.0, 32.0, 6.0  # a box, and the strip at its foot
STEP, LANE, ROOM = 97.0, 48.0, 26.0  # from box to box across and down, and above a row
LETTERS = 15  # "layer1.0.conv1" is whole


class Box(Frozen, frozen=True):
    """A layer: `noise` and `time` are shares 0 to 1 of the whole; `reads` are the layers whose results it reads."""

    name: str
    title: str
    reads: tuple[str, ...]
    noise: float | None = None
    time: float | None = None
    precision: str = ""


class _Place(NamedTuple):
    row: int
    column: int
    x: float
    y: float


def network(boxes: Sequence[Box], description: str, heading: str = "The network.") -> Element:
    """A <figure>, the layers in the order in which they compute."""
    places, height = _places(boxes)
    most = max((box.noise or 0.0 for box in boxes), default=0.0) or 1.0
    slowest = max((box.time or 0.0 for box in boxes), default=0.0) or 1.0
    lines = [_edge(places[read], places[box.name]) for box in boxes for read in box.reads if read in places]
    drawing = tag(
        "svg",
        tag("title", "The network, layer by layer"),
        tag("desc", description),
        tag("g", lines, class_="edges"),
        [_box(box, places[box.name], (box.noise or 0.0) / most, (box.time or 0.0) / slowest) for box in boxes],
        viewBox=f"0 0 {number(ACROSS * STEP)} {number(height)}",
        role="group",
        aria_label=f"The network, layer by layer. {description}",
    )
    caption = tag("figcaption", tag("strong", heading), " ", description)
    scroll = tag("div", drawing, class_="scroll", tabindex="0", role="region", aria_label=f"{heading} It scrolls")
    return tag("figure", scroll, caption, class_="network")


def _places(boxes: Sequence[Box]) -> tuple[dict[str, _Place], float]:
    """Where each box stands, and the height of the drawing."""
    depth: dict[str, int] = {}
    lanes: dict[str, int] = {}
    taken: dict[int, int] = {}
    for box in boxes:
        depth[box.name] = 1 + max((depth[read] for read in box.reads if read in depth), default=-1)
        lanes[box.name] = taken.get(depth[box.name], 0)
        taken[depth[box.name]] = lanes[box.name] + 1
    tops, y = list[float](), 4.0
    for row in range(max(depth.values(), default=0) // ACROSS + 1):
        tops.append(y + ROOM)
        y += ROOM + LANE * max((count for at, count in taken.items() if at // ACROSS == row), default=1)
    places = {}
    for name, at in depth.items():
        row, column = divmod(at, ACROSS)
        places[name] = _Place(row, column, column * STEP + (STEP - WIDTH) / 2, tops[row] + lanes[name] * LANE)
    return places, y


def _box(box: Box, place: _Place, noise: float, time: float) -> Element:
    x, y = place.x, place.y
    text = box.name if len(box.name) <= LETTERS else f"…{box.name[1 - LETTERS :]}"
    upper = HEIGHT - STRIP
    below = " · ".join(filter(None, (box.precision, "" if box.time is None else f"{box.time:.1%}")))
    kind = "layer" if box.precision in ("int8", "fp8", "") else "layer floating"
    return tag(
        "g",
        tag("title", box.title),
        tag("rect", x=x, y=y, width=WIDTH, height=HEIGHT, rx="4", class_=kind),
        tag("rect", x=x, y=y, width=WIDTH, height=upper, rx="4", class_="noise", fill_opacity=round(noise**0.5, 3)),
        tag("rect", x=x, y=y + upper, width=WIDTH, height=STRIP, rx="2", class_="time", fill_opacity=round(time**0.5, 3)),
        tag("text", text, x=x + WIDTH / 2, y=y + 11.5, text_anchor="middle"),
        tag("text", below, x=x + WIDTH / 2, y=y + 22, text_anchor="middle", class_="below") if below else None,
        class_="box",
        role="img",
        aria_label=box.title,
    )


def _edge(start: _Place, end: _Place) -> Element:
    """A line between neighbors, an arc over what lies between, a stub out and in where the row changes."""
    x, y = start.x + WIDTH, start.y + HEIGHT / 2
    to_x, to_y = end.x, end.y + HEIGHT / 2
    if start.row != end.row:
        path = f"M{number(x)} {number(y)}h5M{number(to_x - 5)} {number(to_y)}H{number(to_x)}"
    elif end.column - start.column == 1 or start.y != end.y:
        turn = to_x - (STEP - WIDTH) / 2
        path = f"M{number(x)} {number(y)}H{number(turn)}V{number(to_y)}H{number(to_x)}"
    else:
        up = start.y - min(18.0, 5.0 + 3.0 * (end.column - start.column))
        begin, stop = x - 8, to_x + 8
        bow = (begin, up, stop, up, stop, end.y)
        path = f"M{number(begin)} {number(start.y)}C{' '.join(map(number, bow))}"
    return tag("path", d=path)
