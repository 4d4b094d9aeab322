"""Which states a record of the manager's topics is about, once key, place and names are as they must be."""

from services.contracts import ids, topics
from services.contracts.codec import Record
from services.contracts.commands import (
    DefinitionState,
    ExecutionCommand,
    JobRequested,
    StepOutcome,
    StepReport,
)
from services.contracts.names import REQUEST_BYTES_MAX
from services.contracts.partition import partition_of
from services.executor.core import request
from services.runtime.processor.types import Input, Poison, Routed

COMMAND_BYTES_MAX = 16 * 1024


def routed(record: Input, message: Record) -> Routed:
    """Raises Poison for a record that is not where or what it must be."""
    try:
        return _routed(record, message)
    except request.NameRefused as error:
        raise Poison("bad_name", str(error)) from error


def _routed(record: Input, message: Record) -> Routed:
    match message:
        case DefinitionState():
            request.check_definition(message)
            _check_place(record, message.key)
            return Routed(message.key, message)
        case JobRequested():
            _check_execution(record, message.execution_id)
            request.check_names(message)
            read = (request.named_definition(message), request.original(message))
            return Routed(message.execution_id, message, tuple(key for key in read if key))
        case ExecutionCommand():
            _check_execution(record, message.execution_id)
            request.check_command(message)
            # A rerun may bring its definition, an amendment its values: what a request may hold.
            carries = message.definition is not None or message.values is not None
            most = REQUEST_BYTES_MAX if carries else COMMAND_BYTES_MAX
            if (size := len(record.value or b"")) > most:
                raise Poison("too_large", f"expected at most {most} bytes, found {size}")
            return Routed(message.execution_id, message)
        case StepReport() | StepOutcome():
            _check_execution(record, message.execution_id)
            return Routed(message.execution_id, message)
        case _:
            raise Poison("unexpected_record", f"{type(message).__name__} is not for the manager")


def _check_execution(record: Input, execution_id: str) -> None:
    if not ids.EXECUTION_ID.fullmatch(execution_id):
        raise Poison("bad_id", "execution_id: expected 40 hex digits")
    _check_place(record, execution_id)


def _check_place(record: Input, key: str) -> None:
    """A state has one home. A record elsewhere would have two owners fold it, each on its own."""
    if record.key != key.encode():
        raise Poison("key_mismatch", f"the record's key is not {key}; use it as the key")
    home = partition_of(key.encode(), topics.LOOP_PARTITIONS)
    if record.partition != home:
        raise Poison(
            "wrong_partition",
            f"key {key} belongs on partition {home}, found on {record.partition};"
            " set partitioner=murmur2_random in the producer",
        )
