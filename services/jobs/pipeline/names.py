"""Names of steps: each names a log file (S3: `<step name>.log`), on whatever file system a reader has."""

import re
import unicodedata
from typing import Any

from services.jobs.fields import shown, storable

NAME_BYTES_MAX = 100
_SEPARATORS = frozenset('/\\:*?"<>|')
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", *(f"com{n}" for n in range(1, 10)), *(f"lpt{n}" for n in range(1, 10))]
)
_HOOK = re.compile(r".+\.(enter|exit|success|error)\.[0-9]+\.[0-9]+", re.DOTALL)


def fault_of(name: Any) -> str | None:
    """Why this is no name of a step; None when it is one. Spaces inside are fine: `Make API Call`."""
    if not isinstance(name, str) or not name or not storable(name):
        return f"expected a name, found {shown(name)}"
    if len(name.encode()) > NAME_BYTES_MAX:
        return f"expected at most {NAME_BYTES_MAX} bytes (it names a log file), found {len(name.encode())}"
    # A full-width slash is a slash again for whoever normalises names.
    folded = unicodedata.normalize("NFKC", name)
    if found := sorted(_SEPARATORS.intersection(name + folded)):
        return f"expected a name without {' '.join(found)} (it names a log file), found {shown(name)}"
    if any(unicodedata.category(char)[0] == "C" or char in "\u2028\u2029" for char in name):
        return f"expected a name without invisible characters (it names a log file), found {name!a}"
    if name != name.strip() or name.startswith(".") or name.endswith("."):
        return f"expected a name that neither begins nor ends with a dot or space, found {shown(name)}"
    if _HOOK.fullmatch(name):
        return f"{shown(name)} is how an execution names a step's action; choose another name"
    if folded.partition(".")[0].strip().lower() in _RESERVED:
        return f"{shown(name)} is reserved: some file systems keep no file of that name"
    return None


def collision_key(name: str) -> str:
    """Names with the same key are one file on some file systems: they differ by case or composition only."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
