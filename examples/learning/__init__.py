"""A learning platform's data, generated, and the reports of S1's data-exhaust API over it."""
