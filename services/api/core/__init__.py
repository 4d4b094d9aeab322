"""Pure decisions of api: what a body, a request, a link and an event mean."""
