"""Reading untrusted bodies field by field: every fault is kept with its pointer, none stops it."""

import json
from collections.abc import Collection, Iterable, Mapping, Set
from decimal import Decimal
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from services.contracts.errors import FieldError
from services.jobs.refused import Refused

SHOWN_CHARS_MAX = 80
LISTED_MAX = 20
INTEGER_BITS_SHOWN_MAX = 256
UNKNOWN_FIELDS_MAX = 20
LIKENESS_MIN = 0.8


class Faults:
    """The faults found so far."""

    def __init__(self) -> None:
        self._errors: list[FieldError] = []

    def add(self, pointer: str, message: str) -> None:
        """Note one fault; `pointer` is the path as the sender wrote it."""
        self._errors.append(FieldError(pointer, message))

    def __len__(self) -> int:
        """How many there are."""
        return len(self._errors)

    @property
    def errors(self) -> tuple[FieldError, ...]:
        """Everything noted, in that order."""
        return tuple(self._errors)

    def raise_if_any(self) -> None:
        """Raise Refused with everything noted."""
        if self._errors:
            raise Refused(self.errors)


class Fields:
    """One JSON-like object of a body. Reading a field of the wrong shape notes a fault and gives None."""

    def __init__(
        self,
        body: Any,
        at: str,
        known: Collection[str],
        faults: Faults,
        hints: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`at` is the pointer of the object itself, "" for a whole body; unknown keys are faults at once.

        `hints` say of unknown keys what to write instead.
        """
        self.faults = faults
        self._at = at
        self._body: Mapping[str, Any] = {}
        self.unknown: tuple[str, ...] = ()
        if not isinstance(body, Mapping):
            faults.add(at or "body", f"expected an object, found {shown(body)}")
            return
        self._body = body
        allowed = known if isinstance(known, Mapping | Set) else frozenset(known)
        unknown = [key for key in body if key not in allowed]
        self.unknown = tuple(str(key) for key in unknown[:UNKNOWN_FIELDS_MAX])
        for key in self.unknown:
            hint = hints.get(key) or _did_you_mean(key, known)
            message = f"unknown field; known: {listed(known)}"
            faults.add(self.pointer(clean(key)), f"{message}; {hint}" if hint else message)
        if len(unknown) > UNKNOWN_FIELDS_MAX:
            faults.add(at or "body", f"{len(unknown) - UNKNOWN_FIELDS_MAX} more unknown fields")

    def pointer(self, name: str) -> str:
        """The path of one field."""
        return f"{self._at}.{name}" if self._at else name

    def get(self, name: str) -> Any:
        """The raw value; absent and null are the same thing: None."""
        return self._body.get(name)

    def holds(self, name: str) -> bool:
        """Whether the field is there at all; null is there."""
        return name in self._body

    def object(self, name: str, known: Collection[str]) -> "Fields":
        """The fields of an inner object; an absent one has none."""
        value = self.get(name)
        return Fields({} if value is None else value, self.pointer(name), known, self.faults)

    def text(self, name: str, *, required: bool = True, chars_max: int = 1000) -> str | None:
        """A text of at most `chars_max` characters."""
        value = self.get(name)
        if value is None:
            if required:
                self.faults.add(self.pointer(name), "expected text, found nothing")
            return None
        if not isinstance(value, str) or not storable(value) or len(value) > chars_max:
            wanted = f"text of at most {chars_max} characters without NUL"
            self.faults.add(self.pointer(name), f"expected {wanted}, found {shown(value)}")
            return None
        return value

    def items(
        self, name: str, *, required: bool = False, may_be_empty: bool = False, count_max: int
    ) -> list[tuple[str, Any]]:
        """The entries of a list, each with its pointer; a given list has 1 to `count_max` of them.

        `may_be_empty`: where an empty list cannot be meant otherwise than an absent one.
        """
        value = self.get(name)
        if value is None:
            if required:
                self.faults.add(self.pointer(name), f"expected a list of 1 to {count_max}, found nothing")
            return []
        if value == [] and may_be_empty:
            return []
        if not isinstance(value, list) or not 1 <= len(value) <= count_max:
            found = f"{len(value)} entries" if isinstance(value, list) else shown(value)
            self.faults.add(self.pointer(name), f"expected a list of 1 to {count_max}, found {found}")
            return []
        return [(f"{self.pointer(name)}[{i}]", item) for i, item in enumerate(value)]

    def names(
        self, name: str, what: str, known: Collection[str], *, count_max: int, hint: str = ""
    ) -> tuple[str, ...]:
        """A list of known names without repetition."""
        allowed = known if isinstance(known, Mapping | Set) else frozenset(known)
        chosen: dict[str, int] = {}
        for pointer, item in self.items(name, count_max=count_max):
            if not isinstance(item, str) or item not in allowed:
                self.faults.add(pointer, f"unknown {what} {shown(item)}; known: {listed(known)}{hint}")
            elif item in chosen:
                self.faults.add(pointer, f"{what} {shown(item)} is already at index {chosen[item]}")
            else:
                chosen[item] = len(chosen)
        return tuple(chosen)


def nearest(name: str, known: Collection[str]) -> str | None:
    """The known name that differs from this one by its case or a letter or two; None if there is none."""
    folded = {one.casefold(): one for one in known}
    found = get_close_matches(name[:SHOWN_CHARS_MAX].casefold(), folded, n=1, cutoff=LIKENESS_MIN)
    return folded[found[0]] if found else None


def _did_you_mean(name: str, known: Collection[str]) -> str:
    likely = nearest(name, known)
    return f"did you mean {likely}?" if likely else ""


def storable(text: str) -> bool:
    """Whether PostgreSQL and UTF-8 can hold the text: no NUL, no lone surrogate."""
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def clean(text: str) -> str:
    """The text cut to a length fit for a message, without characters that UTF-8 cannot hold."""
    cut = text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "..."
    return cut.encode("utf-8", "backslashreplace").decode()


def shown(value: Any) -> str:
    """A value as an error message shows it: texts in quotes, large things only by their kind."""
    match value:
        case None:
            return "nothing"
        case str():
            quoted = json.dumps(clean(value), ensure_ascii=False)
            # beside those that JSON escapes: what ends a line, turns the direction of text, or is not seen
            return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in quoted)
        case bool():
            return str(value).lower()
        case int() if value.bit_length() > INTEGER_BITS_SHOWN_MAX:
            return "a very large number"
        case int() | float() | Decimal():
            return clean(str(value))
        case list() | tuple():
            return "a list"
        case Mapping():
            return "an object"
        case _:  # YAML makes dates and times of unquoted texts
            return f"the {type(value).__name__} {clean(str(value))}: write texts in quotes"


def listed(names: Iterable[str]) -> str:
    """Names joined by commas; a long list ends in `...`."""
    every = [*names] or ["none"]
    return ", ".join([*every[:LISTED_MAX], "..."] if len(every) > LISTED_MAX else every)
