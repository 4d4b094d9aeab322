"""Millstream: reports and pipelines, on demand or on schedule, over an immutable event log."""
