"""structlog without rich, which it imports where it finds it, for colours that no service shows: 80 modules
and 4 MB in each process."""

import sys

_HIDDEN = "rich" not in sys.modules
if _HIDDEN:
    sys.modules["rich"] = None  # type: ignore[assignment]  # how the import system is told "not there"

import structlog  # noqa: E402

if _HIDDEN:
    del sys.modules["rich"]

__all__ = ["structlog"]
