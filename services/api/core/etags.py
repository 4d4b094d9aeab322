"""Entity tags in conditional requests (RFC 9110, section 13.1)."""


def matched(header: str, etag: str | None) -> bool:
    """Whether `If-Match` names the tag, None: of nothing. Weak tags never match."""
    if header.strip() == "*":
        return etag is not None
    return etag in [tag.strip() for tag in header.split(",")]


def none_matched(header: str | None, etag: str | None) -> bool:
    """Whether `If-None-Match` names the tag, None: of nothing. A weak tag stands for its strong one."""
    if header is None:
        return False
    return matched(", ".join(tag.strip().removeprefix("W/") for tag in header.split(",")), etag)
