"""CSV exactly as PostgreSQL writes it, so that a file equals psql's own COPY byte for byte.

RFC 4180 quoting, UTF-8, line feeds, a header; NULL is an empty field and the empty text is `""`.
"""

from services.executor.formats.format import Format

CSV = Format(extension="csv", content_type="text/csv; charset=utf-8", copy_options=b"FORMAT csv, HEADER")
