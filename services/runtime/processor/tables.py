"""The loop's tables, the same in every schema that has a loop."""

FENCED_STATE = "MS001"
"""SQLSTATE raised when a commit's ownership guard fails."""


def ddl(schema: str) -> str:
    """SQL that creates the tables. `part` is a partition index, not tied to one topic.

    part_owner: who may write (epoch) and how far (batch_no). part_offset: the resume point of each topic,
    with the UUID of the log it belongs to; outputs stand here too, with offset 0, so that a lost log is
    noticed. part_outbox: the records of the last batch, as bytes. state: what the handler folds; memo is the
    little that it keeps in memory of a state with a timer, read when an index changes hands.
    """
    return f"""
CREATE TABLE {schema}.part_owner (
    part integer PRIMARY KEY, epoch bigint NOT NULL, batch_no bigint NOT NULL);
CREATE TABLE {schema}.part_offset (
    topic text NOT NULL, part integer NOT NULL, topic_id text NOT NULL, next_offset bigint NOT NULL,
    PRIMARY KEY (topic, part));
CREATE TABLE {schema}.part_outbox (
    part integer PRIMARY KEY, batch_no bigint NOT NULL, records bytea NOT NULL) WITH (fillfactor = 10);
ALTER TABLE {schema}.part_outbox ALTER COLUMN records SET STORAGE EXTERNAL;
CREATE TABLE {schema}.state (
    key text PRIMARY KEY, part integer NOT NULL, body bytea NOT NULL,
    due_at timestamptz, waits_for text, memo bytea);
CREATE INDEX state_due ON {schema}.state (part, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX state_waits_for ON {schema}.state (waits_for) WHERE waits_for IS NOT NULL;
CREATE FUNCTION {schema}.assert_owner(written bigint, expected bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF written < expected THEN
        RAISE EXCEPTION 'fenced: % of % indexes are still ours', written, expected
            USING ERRCODE = '{FENCED_STATE}';
    END IF;
    RETURN true;
END $$;
"""
