"""The `millstream` command: one file per group of commands."""

import typer

from services.cli import doctor, topics
from services.cli.dev import command as dev

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Run and look after Millstream.",
)
app.command("dev")(dev.dev)
app.command("doctor")(doctor.doctor)
app.add_typer(topics.app, name="topics")


def main() -> None:
    """The entry point."""
    app()


if __name__ == "__main__":
    main()
