"""`make demo`: one real export, from the first process to a verified webhook, over public HTTP only."""
