"""The five fragments of Mistral's blueprint as it wrote them: the examples hold each, keys unchanged."""

from pathlib import Path
from typing import Any

import pytest

from services.jobs import documents

EXAMPLES = Path(__file__).parents[3] / "examples" / "pipelines"
LEFT_OUT = "..."  # what the blueprint does not show of Nova

FRAGMENTS = {
    "service.yaml": """
  Service:
    Nova:
      ...
    Logger:
      type: HTTP
      parameters:
        baseUrl: {$.LoggerURL}
        actions:
          start:
            parameters:
              url: /log
              method: GET
              query:
                task: {$.execution.task}
                executon: {$.execution.id}
                type: 'enter'
          success:
            parameters:
              url: /log
              method: GET
              query:
                task: {$.execution.task}
                executon: {$.execution.id}
                type: 'done'
          error:
            parameters:
              url: /log
              method: GET
              query:
                task: {$.execution.task}
                executon: {$.execution.id}
                type: 'failed'
                error: {$.execution.error}
""",
    "workbook-utility-tasks.yaml": """
  Workbook:
    tasks:
      startLog:
        action: Logger:start
      successLog:
        action: Logger:success
      errorLog:
        action: Logger:error
      task1:
        on-enter: startLog
        action: Nova:some
        on-success:
          - task2
          - successLog
        on-error:
          - task3
          - errorLog
""",
    "workbook-actions.yaml": """
  Workbook:
    tasks:
      task1:
        on-enter: Logger:start
        action: Nova:some
        on-exit:
         - 'Logger:success' : $.execution.error = null
         - 'Logger:error' : $.execution.error != null
        on-success: task2
        on-error: task3
""",
    "workbook-gotos.yaml": """
  Workbook:
    tasks:
      task1:
        on-enter: Logger:start
        action: Nova:some
        on-exit:
         - 'std:goto(task2)' : $.execution.error = null
         - 'Logger:success' : $.execution.error = null
         - 'std:goto(task3)' : $.execution.error != null
         - 'Logger:error' : $.execution.error != null
""",
    "workflow-error-handling.yaml": """
  Workflow:
    tasks:
      task1:
        action: Nova:some # here comes the error
        on-exit: task2
      task2:
        action: Nova:else
        on-exit: handleError
      handleError:
        action: std:no-op
        on-exit:
          - 'Logger:success' : $.execution.error = null
          - 'Logger:error' : $.execution.error != null
""",
}


def missing(fragment: Any, whole: Any, at: str = "") -> list[str]:
    """What of the fragment the whole does not have."""
    if fragment == LEFT_OUT:
        return []
    if isinstance(fragment, dict) and isinstance(whole, dict):
        absent = [f"{at}.{key}" for key in fragment if key not in whole]
        shared = [key for key in fragment if key in whole]
        return absent + [one for key in shared for one in missing(fragment[key], whole[key], f"{at}.{key}")]
    return [] if fragment == whole else [at]


@pytest.mark.parametrize("name", FRAGMENTS)
def test_an_example_holds_its_fragment_with_keys_unchanged(name: str) -> None:
    fragment = documents.parse_yaml(FRAGMENTS[name].encode())
    assert missing(fragment, documents.parse_yaml((EXAMPLES / name).read_bytes())) == []


def test_the_fragments_are_read_as_they_were_meant() -> None:
    service = documents.parse_yaml(FRAGMENTS["service.yaml"].encode())["Service"]
    assert service["Nova"] == LEFT_OUT
    query = service["Logger"]["parameters"]["actions"]["start"]["parameters"]["query"]
    assert query == {
        "task": {"$.execution.task": None},
        "executon": {"$.execution.id": None},
        "type": "enter",
    }
    tasks = documents.parse_yaml(FRAGMENTS["workbook-gotos.yaml"].encode())["Workbook"]["tasks"]
    assert tasks["task1"]["on-exit"][0] == {"std:goto(task2)": "$.execution.error = null"}
