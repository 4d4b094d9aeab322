"""Placeholders in a URL: a value fills a piece of one path segment or of the query, and never goes beyond.

Scheme, host and port are the definition's. Where the definition lets values name them (`allow_host`), the
result is still one URL by the one strict reading of `contracts.urls`.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from services.contracts import urls
from services.contracts.commands import Json
from services.language.paths import ExpressionError
from services.language.placeholders.filling import Filling, Later
from services.language.placeholders.parts import Parts, Reference, parts
from services.language.placeholders.query import encoded, written
from services.language.values import Unfit, kind, scalar_text

_MARK = "\0"  # stands for a placeholder while the text around it is taken apart; no URL holds it
_REST = r"(?P<path>/[^?]*)?(?P<query>\?.*)?"
_BASED = re.compile(rf"(?P<head>{_MARK}){_REST}", re.DOTALL)
_ABSOLUTE = re.compile(rf"(?P<head>[^/?#]*://[^/?#]*){_REST}", re.DOTALL)
_RELATIVE = re.compile(rf"(?P<head>){_REST}", re.DOTALL)
_CUT_ESCAPE = re.compile(rf"%[0-9A-Fa-f]?{_MARK}")
_HOST_PIECE = re.compile(r"[A-Za-z0-9._:\[\]-]{1,253}")
_LATER_BASE = "https://later"


@dataclass(frozen=True, slots=True)
class Rules:
    """What a definition allows: values in scheme, host and port; a path alone, put behind `base`."""

    allow_host: bool = False
    base: str | None = None


def filled(filling: Filling, template: Json, pointer: str, rules: Rules) -> str:
    """The URL; where faults were noted, anything."""
    if not isinstance(template, str):
        filling.add(pointer, f"expected text, found {kind(template)}")
        return ""
    found = filling.parts(template, pointer)
    if filling.errors:
        return ""
    marked = "".join(part if isinstance(part, str) else _MARK for part in found)
    regions = _regions(marked, rules)
    if isinstance(regions, str) or marked.count(_MARK) != _references(found):
        filling.add(
            pointer, regions if isinstance(regions, str) else "expected URL characters only, found NUL"
        )
        return ""
    url = _Url(filling, pointer, rules, iter([part for part in found if isinstance(part, Reference)]))
    return url.joined(regions)


def names_host(template: Json) -> bool:
    """Whether a value names the scheme, host or port of a URL, or a part of them."""
    try:
        found = parts(template) if isinstance(template, str) else ()
    except ExpressionError:
        return False  # no placeholders, as the check of the URL tells
    regions = _regions("".join(part if isinstance(part, str) else _MARK for part in found), Rules(True))
    return not isinstance(regions, str) and _MARK in regions["head"]


def _references(found: Parts) -> int:
    return sum(isinstance(part, Reference) for part in found)


def _regions(marked: str, rules: Rules) -> re.Match[str] | str:
    """The text as head, path and query; or why it cannot be taken apart."""
    if _CUT_ESCAPE.search(marked):
        return "expected a whole %XX before a placeholder, found a part of one"
    if rules.base is not None and (match := _RELATIVE.fullmatch(marked)):
        return match
    match = _BASED.fullmatch(marked) or _ABSOLUTE.fullmatch(marked)
    if not match:
        path_alone = " (a path alone needs a base URL)" if marked.startswith("/") else ""
        return f"expected an absolute URL, http(s)://host[:port][/path][?query]{path_alone}"
    if _MARK in match["head"] and not rules.allow_host:
        return "expected no placeholder in scheme, host or port; the definition does not allow it"
    return match


@dataclass(frozen=True, slots=True)
class _Url:
    filling: Filling
    pointer: str
    rules: Rules
    references: Iterator[Reference]

    def joined(self, regions: re.Match[str]) -> str:
        path, query = regions["path"] or "", regions["query"] or ""
        if not regions["head"] and self.rules.base is not None:
            head = self._base(self.rules.base, alone=False)
        elif regions["head"] == _MARK:
            value = self.filling.value(next(self.references), self.pointer)
            head = self._base(value, alone=not path and not query)
        else:
            head = self._head(regions["head"])
        url = head + self._path(path) + self._text(query, lambda value: encoded(written(value)))
        if not self.filling.errors:
            try:
                urls.parse(url)
            except ValueError as error:
                self.filling.add(self.pointer, str(error))
        return url

    def _base(self, value: Json, *, alone: bool) -> str:
        """A URL that a value gives whole. What follows is put behind its path, so it has no query then."""
        if isinstance(value, Later):
            return _LATER_BASE
        fault = "" if isinstance(value, str) else f"expected text, found {kind(value)}"
        if not fault:
            try:
                urls.parse(value)
            except ValueError as error:
                fault = str(error)
        if not fault and not alone and "?" in value:
            fault = "expected no query"
        if fault:
            self.filling.add(self.pointer, f"base URL: {fault}")
            return _LATER_BASE
        return str(value) if alone else value.rstrip("/")

    def _head(self, marked: str) -> str:
        unknown = False

        def form(value: Json) -> str:
            nonlocal unknown
            unknown = unknown or isinstance(value, Later)
            return _host_piece(value)

        head = self._text(marked, form)
        return _LATER_BASE if unknown else head

    def _path(self, marked: str) -> str:
        return "/".join(self._segment(one) if _MARK in one else one for one in marked.split("/"))

    def _segment(self, marked: str) -> str:
        result = self._text(marked, lambda value: encoded(scalar_text(value)))
        if not result:
            self.filling.add(self.pointer, "expected something in each path segment, found empty text")
        elif {".", ".."} & set(re.split(r"[/\\]", unquote(result))):
            self.filling.add(self.pointer, "expected no . or .. as a path segment, found one")
        return result

    def _text(self, marked: str, form: Callable[[Json], str]) -> str:
        literals = marked.split(_MARK)
        found: list[str | Reference] = [literals[0]]
        for literal in literals[1:]:
            found += next(self.references), literal
        return self.filling.joined(tuple(found), self.pointer, form)


def _host_piece(value: Json) -> str:
    text = scalar_text(value)
    if not _HOST_PIECE.fullmatch(text):
        raise Unfit("expected a piece of a host or port: letters, digits, . _ - : [ ]")
    return text
