"""Lists: keyset cursors, at most 200 entries a page, the next page as a link (RFC 8288)."""

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Query, Response

from services.api.bodies import reply

LIMIT_MAX = 200
Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="entries a page, 1 to 200")]
CursorText = Annotated[
    str | None, Query(max_length=300, description="where the former page ended; see its Link header")
]


def page(
    path: str,
    items: Sequence[Any],
    limit: int,
    next_cursor: str | None,
    filters: Sequence[tuple[str, str]] = (),
) -> Response:
    """`{items, next}`; `next_cursor` None: this is the last page. `filters` stand in the link as well."""
    following = None
    if next_cursor is not None:
        following = f"{path}?{urlencode([*filters, ('limit', limit), ('cursor', next_cursor)])}"
    headers = {} if following is None else {"Link": f'<{following}>; rel="next"'}
    return reply({"items": items, "next": following}, headers=headers)
