"""Markup: HTML and SVG as the standard library's ElementTree builds them, so that every text and attribute is escaped."""

from __future__ import annotations

from typing import TypeAlias
from xml.etree.ElementTree import Element, tostring

Child: TypeAlias = "Element | str | int | list[Element] | None"


def tag(name: str, /, *children: Child, **attributes: str | float | None) -> Element:
    """`tag("p", "a < b", class_="note")` -> <p class="note">a &lt; b</p>.

    Children are laid in order: elements, lists of elements, text; None is left out. In attribute names a trailing underscore is
    dropped and the others become dashes (`stroke_width`, `aria_label`, `class_`); an attribute of None is left out.
    """
    element = Element(name)
    for key, value in attributes.items():
        if value is not None:
            element.set(key.rstrip("_").replace("_", "-"), number(value) if isinstance(value, (int, float)) else value)
    for child in children:
        append(element, child)
    return element


def append(element: Element, child: Child) -> None:
    """Add one child; text goes where ElementTree keeps it: before the first element, or after the last."""
    if child is None:
        return
    if isinstance(child, Element):
        element.append(child)
    elif isinstance(child, list):
        for one in child:
            append(element, one)
    elif len(element):
        element[-1].tail = (element[-1].tail or "") + str(child)
    else:
        element.text = (element.text or "") + str(child)


def number(value: float) -> str:
    """A coordinate with two decimals at most: a report holds thousands of them."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def document(root: Element) -> str:
    """The whole page as HTML5 text."""
    return "<!doctype html>\n" + tostring(root, encoding="unicode", method="html") + "\n"
