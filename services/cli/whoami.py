"""`millstream whoami`: whose key the commands send, and to which api."""

import typer

from services.cli import output, rest
from services.cli.output import AsJson


def whoami(context: typer.Context, as_json: AsJson = False) -> None:
    """Show who you are to the api: tenant, name, role and groups of your key."""
    api = rest.connect(context)
    me = api.get("/v1/me")
    if as_json:
        output.json_document(me)
        return
    output.fields(
        (
            ("tenant", me["tenant"]),
            ("principal", me["principal"]),
            ("owner", me["owner"]),
            ("role", me["role"]),
            ("groups", ", ".join(me["groups"]) or None),
            ("key", f"ms_{me['key_id']}_..."),
            ("API", api.url),
        )
    )
