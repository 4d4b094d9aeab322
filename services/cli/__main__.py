"""The `millstream` command: one file per group of commands."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from services.cli import (
    asyncapi,
    config,
    context,
    decrypt,
    dlq,
    doctor,
    events,
    job,
    pipeline,
    request,
    topics,
    whoami,
)
from services.cli.dev import command as dev
from services.cli.failure import Exit, Failed
from services.cli.targets import CHOICE, Choice

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Run, use and look after Millstream.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or interrupted, 4 no valid API key.",
)
app.command("dev", rich_help_panel="Run on this machine")(dev.dev)
app.command("doctor", rich_help_panel="Run on this machine")(doctor.doctor)
app.add_typer(job.app, name="job", rich_help_panel="Use")
app.add_typer(pipeline.app, name="pipeline", rich_help_panel="Use")
app.add_typer(request.app, name="request", rich_help_panel="Use")
app.command("whoami", rich_help_panel="Use")(whoami.whoami)
app.add_typer(events.app, name="events", rich_help_panel="Look after")
app.add_typer(dlq.app, name="dlq", rich_help_panel="Look after")
app.command("asyncapi", rich_help_panel="Look after")(asyncapi.asyncapi)
app.command("decrypt", rich_help_panel="Look after")(decrypt.decrypt)
app.add_typer(context.app, name="context", rich_help_panel="Set up")
app.add_typer(config.app, name="config", rich_help_panel="Set up")
app.add_typer(topics.app, name="topics", rich_help_panel="Look after")


@app.callback()
def choose(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Option("--context", "-c", help="Talk to this context (see `millstream context`).")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Talk to the `millstream dev` with this data folder.")
    ] = None,
) -> None:
    """Run, use and look after Millstream."""
    context.obj = Choice(name, data)
    CHOICE.set(context.obj)


def main() -> None:
    """The entry point. SIGTERM ends a command as Ctrl-C does, also where SIGINT was ignored at its start."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    run()


def run(words: Sequence[str] | None = None) -> None:
    """Run one command; `words` None is the command line. Always ends with SystemExit."""
    try:
        app(words, prog_name="millstream")
    except Failed as error:
        typer.secho(str(error), err=True, fg=typer.colors.RED)
        sys.exit(error.code)
    except KeyboardInterrupt:  # a second one, while typer says goodbye to the first
        sys.exit(Exit.USAGE_OR_CANCELLED)
    except SystemExit as end:
        # typer's 130 is an interrupt (Ctrl-C)
        sys.exit(Exit.USAGE_OR_CANCELLED if end.code == 130 else end.code)


if __name__ == "__main__":
    main()
