"""Reading a page as a browser does: a tree of elements, and the figures in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = frozenset({"meta", "link", "br", "img", "input", "hr", "base", "area", "embed", "source", "track", "wbr"})


@dataclass
class Node:
    """An element.

    Attributes:
        tag: Its name.
        attributes: Its attributes.
        children: Elements and texts in it.
    """

    tag: str
    attributes: dict[str, str]
    children: list[Node | str] = field(default_factory=list)

    def walk(self) -> Iterator[Node]:
        """Yields it and every element in it."""
        yield self
        for child in self.children:
            if isinstance(child, Node):
                yield from child.walk()

    def all(self, tag: str) -> list[Node]:
        """Lists the elements of a name in it."""
        return [node for node in self.walk() if node.tag == tag]

    def by_id(self, id_: str) -> Node:
        """Gives the element of an id."""
        (node,) = [node for node in self.walk() if node.attributes.get("id") == id_]
        return node

    @property
    def text(self) -> str:
        """All text in it."""
        return "".join(child if isinstance(child, str) else child.text for child in self.children)


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("document", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute twice in {tag}: {names}"
        node = Node(tag, {name: value or "" for name, value in attrs})
        self._open[-1].children.append(node)
        if tag not in _VOID:
            self._open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].tag == tag, f"</{tag}> closes {self._open[-1].tag}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


def read_page(html: str) -> Node:
    """Parses a page; fails when an element is not closed where it should be."""
    parser = _Parser()
    parser.feed(html)
    parser.close()
    return parser.root


def read_value(node: Node) -> float | str:
    """Gives the number of a figure's cell, or the words that stand for it."""
    numbers = node.all("data")
    if numbers:
        (number,) = numbers
        return float(number.attributes["value"])
    (words,) = [span for span in node.all("span") if span.attributes.get("class") == "unknown"]
    return words.text


def read_tile(page: Node, name: str) -> float | str:
    """Gives a headline figure."""
    (value,) = [node for node in page.by_id(f"figure-{name}").all("p") if node.attributes.get("class") == "value"]
    return read_value(value)


def read_changes(page: Node, name: str) -> list[tuple[str, str]]:
    """Gives the comparisons of a headline figure: class and text."""
    return [(node.attributes["class"], node.text) for node in page.by_id(f"figure-{name}").all("li")]


def read_table(page: Node, name: str) -> list[tuple[tuple[str, ...], list[float | str]]]:
    """Gives the rows of a table, the total among them: the names of each and its figures."""
    rows = []
    for row in page.by_id(name).all("tr"):
        names = tuple(head.text for head in row.all("th") if head.attributes.get("scope") == "row")
        if names:
            cells = [cell for cell in row.all("td") if cell.attributes.get("class") != "meaning"]
            rows.append((names, [read_value(cell) for cell in cells]))
    return rows
