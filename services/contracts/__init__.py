"""What crosses a process boundary: records, topics, ids, status words, errors. Pure."""
