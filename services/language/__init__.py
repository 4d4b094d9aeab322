"""The small languages of definitions, pure: expressions and placeholders.

Both read one context, described in `scope`: `$.steps.fetch.result.id` in an expression and
`${steps.fetch.result.id}` in a text name the same value.
"""
