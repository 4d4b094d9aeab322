"""What executions and service requests have in common on the command line: the same runs by two names."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

import typer

from services.cli import commanding, output, targets, views, watching
from services.cli.failure import Exit
from services.cli.rest import Api

PAGE_MAX = 200

Reason = Annotated[str | None, typer.Option(help="Why; kept in the log.")]
Limit = Annotated[int, typer.Option(min=1, help="How many, the newest first.")]
ExitStatus = Annotated[bool, typer.Option("--exit-status", help="Exit code 1 unless it completes.")]


@dataclass(frozen=True, slots=True)
class Runs:
    """One of the names: what a run is called, its group of commands, where runs are, how one is shown.

    `completed` are the statuses of a run that ended well.
    """

    noun: str
    group: str
    path: str
    show: Callable[[Mapping[str, Any]], None]
    completed: frozenset[str]

    def at(self, id: str, *below: str) -> str:
        """The path of a run, or of something of it."""
        return "/".join((self.path, id, *below))

    def newest(self, api: Api, limit: int, filters: Mapping[str, str | None]) -> Iterator[Any]:
        """At most `limit` runs that pass the filters, the newest first."""
        return islice(api.pages(self.path, limit=min(limit, PAGE_MAX), **filters), limit)

    def get(self, api: Api, id: str, as_json: bool) -> Any:
        """Show one run and return it."""
        found = api.get(self.at(id))
        output.one(found, as_json, self.show)
        return found

    def created(self, api: Api, id: str, accepted: Any, wait: bool, as_json: bool) -> None:
        """What follows an accepted run: its id, or with `wait` its end, which exit code 1 tells if bad."""
        if wait:
            self._awaited(api, id, as_json)
        elif as_json:
            output.json_document(accepted)
        else:
            typer.echo(id)
            output.note(f"accepted; follow it: {self._watch(id)}")

    def _awaited(self, api: Api, id: str, as_json: bool) -> None:
        events = watching.follow(api, id)
        if as_json:
            watching.silently(events)
        else:
            output.note(f"{self.noun} {id}")
            watching.watch(events)
            typer.echo("")
        self._fail_unless_completed(self.get(api, id, as_json))

    def watch(self, api: Api, id: str, exit_status: bool, as_json: bool, as_lines: bool) -> None:
        """Follow a run from its first event to its last; `as_lines` prints events, `as_json` the result."""
        events = watching.follow(api, id)
        if as_lines:
            for event in events:
                output.json_line(event)
        elif as_json:
            watching.silently(events)
            output.json_document(api.get(self.at(id)))
        else:
            if waits := views.waiting(api.get(self.at(id))["waiting"]):
                output.note(f"waits for {waits}")
            watching.watch(events)
        if exit_status:
            self._fail_unless_completed(api.get(self.at(id)))

    def command(self, api: Api, id: str, verb: str, body: Any, said: str, as_json: bool) -> None:
        """Give a command and tell, in the word `said`, that it was done."""
        done = commanding.give(api, self.at(id, verb), body, self._watch(id))
        if as_json:
            output.json_document(done)
        elif done["answer"] is not None:
            typer.echo(f"{id} {said}")

    def rerun(self, api: Api, id: str, body: Any, wait: bool, as_json: bool) -> None:
        """Run an ended one again; what follows is as with one that was created."""
        done = commanding.give(api, self.at(id, "rerun"), body, self._watch(id), until_answered=wait)
        if done["answer"] is None and not as_json:
            typer.echo(done["rerun_id"])
        else:
            self.created(api, done["rerun_id"], done, wait, as_json)

    def _watch(self, id: str) -> str:
        return targets.command(f"{self.group} watch {id}")

    def _fail_unless_completed(self, found: Mapping[str, Any]) -> None:
        if found["status"] not in self.completed:
            raise typer.Exit(Exit.FAILED)
