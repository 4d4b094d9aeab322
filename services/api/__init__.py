"""REST ingress: accepts requests and definitions, and answers from tables derived from `execution.events`."""
