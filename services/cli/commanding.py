"""Commands to executions: asked once, however often they are sent, and answered by the event they caused."""

import time
from collections.abc import Mapping
from typing import Any

from services.cli import output
from services.cli.rest import Api
from services.runtime import entropy

ASK_AGAIN_S = 1.0


def give(
    api: Api, path: str, body: Mapping[str, Any], watch: str, *, until_answered: bool = False
) -> dict[str, Any]:
    """What became of a command; `watch` is where to look when the answer takes its time.

    Raises Failed when it is refused.
    """
    given = {name: value for name, value in body.items() if value is not None}
    headers = {"Idempotency-Key": entropy.fresh_id()}

    def ask() -> dict[str, Any]:
        done: dict[str, Any] = api.request("POST", path, body=given, headers=headers).json()
        return done

    done = ask()
    if done["answer"] is None:
        as_new = f" as {done['rerun_id']}" if done["rerun_id"] else ""
        output.note(f"stored{as_new}, not done yet: the log will tell; {watch}")
    while until_answered and done["answer"] is None:
        time.sleep(ASK_AGAIN_S)
        done = ask()  # the same key: it waits for the same command, and hears of its refusal
    return done
