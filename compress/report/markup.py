"""HTML and SVG as values: whatever is not markup yet is escaped on its way in. Standard library only."""

import html
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

VOID = frozenset({"br", "img", "meta"})


class Html(str):
    """Text that is markup already. Any other string is escaped when it becomes part of an element."""

    __slots__ = ()


class TableColumn(NamedTuple):
    """A table's column; `kind` is its CSS class: `text`, `number`, `code` or `long` (text that wraps)."""

    title: str
    kind: str = "text"


def escaped(value: Any) -> Html:
    """`value` as markup: itself when it is `Html`, its text escaped (quotes too) otherwise."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def join(parts: Iterable[Any], between: str = "") -> Html:
    """The parts one after another, `between` them escaped; None is left out."""
    return Html(escaped(between).join(escaped(part) for part in parts if part is not None))


def element(name: str, /, *children: Any, **attributes: Any) -> Html:
    """`<name attributes>children</name>`; None children and None attributes are left out.

    In attribute names a trailing underscore is dropped (`class_`) and the others become hyphens (`stroke_width`).
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def text_columns(*titles: str) -> list[TableColumn]:
    return [TableColumn(title) for title in titles]


def number_columns(*titles: str) -> list[TableColumn]:
    return [TableColumn(title, "number") for title in titles]


def long_columns(*titles: str) -> list[TableColumn]:
    return [TableColumn(title, "long") for title in titles]


def html_table(caption: str, columns: Sequence[TableColumn], rows: Iterable[Sequence[Any]]) -> Html:
    """A captioned table in a frame that scrolls sideways when narrow; the first cell of a row is its header."""
    head = join(element("th", column.title, scope="col", class_=column.kind) for column in columns)
    lines = []
    for row in rows:
        first, *rest = zip(columns, row, strict=True)
        header = element("th", first[1], scope="row", class_=first[0].kind)
        lines.append(element("tr", header, *(element("td", cell, class_=column.kind) for column, cell in rest)))
    filled = element(
        "table",
        element("caption", element("span", caption)),
        element("thead", element("tr", head)),
        element("tbody", *lines),
    )
    return element("div", filled, class_="scroll", tabindex="0", role="region", aria_label=caption)


def section(anchor: str, title: str, *children: Any) -> Html:
    """A titled section that the page's contents can point to."""
    return element("section", element("h2", title), *children, id=anchor)


def badge(text: str, state: str) -> Html:
    """A short word whose colour repeats what it says; `state` is `good`, `bad` or `warn`."""
    return element("span", text, class_=f"badge {state}")
