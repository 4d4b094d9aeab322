"""The published description of pipelines and service requests: bodies and answers."""

from typing import Any

_TEXT = {"type": "string"}

_HOOK = {
    "type": "object",
    "properties": {
        "on": {"enum": ["enter", "exit", "success", "error"]},
        "action": {"type": "string", "examples": ["Logger:start", "std:goto(task2)", "std:no-op"]},
        "when": {"type": "string", "description": "a condition, for example $.execution.error = null"},
        "wait": {"type": "boolean", "description": "awaited: its error fails the step; default: it is cast"},
        "timeout_s": {"type": "integer", "minimum": 1},
        "max_attempts": {"type": "integer", "minimum": 1},
        "parameters": {"type": "object", "description": "what this hook adds to the action's own"},
    },
    "required": ["on", "action"],
    "additionalProperties": False,
}


def _body(schema: Any, *media_types: str) -> dict[str, Any]:
    content = {media_type: {"schema": schema} for media_type in media_types}
    return {"requestBody": {"required": True, "content": content}}


HOOK_BODY = _body(_HOOK, "application/json", "application/yaml")
