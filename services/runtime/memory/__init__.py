"""In-memory bodies of the ports, for fast tests; each passes its port's conformance suite."""
