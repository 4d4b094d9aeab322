"""Who may command an execution: operators any of their tenant, authors what they asked for themselves.

A service or bot and the person behind its key count as one. Who decides about an approval is for the pipeline
to say.
"""

BY_APPROVERS = frozenset({"approve", "reject", "remark"})


def may_command(
    kind: str,
    *,
    is_operator: bool,
    asks: tuple[str | None, str | None],
    asked: tuple[str | None, str | None],
) -> bool:
    """`asks` and `asked`: principal and owner of the key, and of the one by which it was asked for."""
    if is_operator or kind in BY_APPROVERS:
        return True
    return bool({name for name in asks if name} & {name for name in asked if name})
