"""The worker as a real process on a real broker; the test plays the manager."""

import signal

import pytest
from msgspec.structs import replace

from services.cli.dev.folder import free_port
from services.contracts import places
from services.contracts.commands import StepReport, StepRequested
from services.runtime import entropy
from services.runtime.processor.letters import HEAD_BYTES, LETTER_BYTES_MAX
from services.runtime.schemas import codec
from tests import exporting
from tests.exporting import AT
from tests.stack import OwnStack, transaction
from tests.waiting import until
from tests.working import REJOIN_S, Gate, Manager, Read, Workers, committed, slow_source

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]


@pytest.fixture(scope="module")
def stack(own: OwnStack) -> OwnStack:
    """The worker uses the fixed topic names, and one test restarts the broker."""
    return own


@pytest.fixture(params=["classic", "consumer"])
def both(workers: Workers, request: pytest.FixtureRequest) -> Workers:
    """Workers under either group protocol."""
    workers.protocol = request.param
    return workers


# ---------------------------------------------------------------- the path


def settled(manager: Manager, count: int, queue: str = "step.requested") -> None:
    until(lambda: committed(manager.stack, queue) == count, 10, f"{count} settled records")


def test_a_short_step_is_run_and_ended_without_a_claim(manager: Manager, both: Workers) -> None:
    before = committed(manager.stack)
    both.started()
    request = manager.request()
    manager.dispatch(request)
    outcome = manager.outcome(request)
    assert (outcome.outcome, outcome.execution_id, outcome.tenant) == ("done", request.execution_id, "acme")
    settled(manager, before + 1)
    assert manager.reports(request, "claim") == []


@pytest.mark.parametrize("why", ["it waited when the worker came", "it is a later attempt"])
def test_what_may_have_killed_a_worker_is_claimed_first(manager: Manager, workers: Workers, why: str) -> None:
    before = committed(manager.stack)
    request = replace(manager.request(), attempt=2 if why == "it is a later attempt" else 1)
    if request.attempt == 1:
        manager.dispatch(request)
    workers.started()
    if request.attempt == 2:
        manager.dispatch(request)
    outcome = manager.outcome(request)
    (claim,) = manager.reports(request, "claim")
    assert claim.take_id == outcome.take_id
    assert len(claim.take_id) == 20
    assert (claim.lease_s, claim.worker) == (20, outcome.worker)
    settled(manager, before + 1)


def test_a_long_step_is_claimed_then_committed_then_run(
    manager: Manager, workers: Workers, gate: Gate
) -> None:
    before = committed(manager.stack, "step.requested.long")
    workers.started()
    request = manager.request("EXPORT", slow_source(workers))
    manager.dispatch(request)
    until(lambda: gate.waiting() == 1, REJOIN_S, "a running step")
    assert committed(manager.stack, "step.requested.long") == before + 1
    assert len(manager.reports(request, "claim")) == 1
    gate.open()
    assert manager.outcome(request).outcome == "done"


@pytest.mark.parametrize("named", [("attempt_id",), ()])
def test_a_revocation_reaches_a_query_within_2_s(
    manager: Manager, workers: Workers, gate: Gate, named: tuple[str, ...]
) -> None:
    workers.started(MILLSTREAM_WORKER__LONG_LANES="1")
    request = manager.request("EXPORT", slow_source(workers))
    manager.dispatch(request)
    until(lambda: gate.waiting() == 1, REJOIN_S, "a running query")
    manager.revoke(request, **{name: getattr(request, name) for name in named})
    until(lambda: gate.waiting() == 0, 2, "the end of the query")
    gate.open()
    following = manager.request("EXPORT", request.parameters)
    manager.dispatch(following)
    assert manager.outcome(following).outcome == "done"
    assert manager.outcomes(request) == []


def test_what_was_revoked_before_a_worker_came_never_begins(manager: Manager, workers: Workers) -> None:
    before = committed(manager.stack)
    requests = [manager.request() for _ in range(3)]
    manager.dispatch(*requests)
    manager.revoke(requests[0])
    manager.revoke(requests[1], attempt_id=requests[1].attempt_id)
    workers.started()
    assert manager.outcome(requests[2]).outcome == "done"
    settled(manager, before + 3)
    assert manager.outcomes(requests[0]) == manager.outcomes(requests[1]) == []


def test_an_export_reports_its_parts_and_names_its_files(manager: Manager, workers: Workers) -> None:
    with transaction(workers.source_url) as cursor:
        cursor.execute("CREATE TABLE things AS SELECT n AS id, n % 2 AS half FROM generate_series(1, 10) n")
    columns = [{"name": "id", "type": "integer"}, {"name": "half", "type": "integer"}]
    batch = {"column": "half", "values": ["0", "1"]}
    dataset = {"source": "main", "table": "public.things", "columns": columns, "batch": batch}
    request = manager.request("EXPORT", exporting.step(dataset).parameters)
    manager.dispatch(request)
    workers.started()
    outcome = manager.outcome(request)
    assert [file.name for file in outcome.files] == ["reports-0.csv", "reports-1.csv", "manifest.json"]
    for file in outcome.files:
        content = workers.content(file.key)
        assert (exporting.sha256(content), len(content)) == (file.sha256, file.bytes)
    parts = manager.reports(request, "part")
    assert [(part.files, part.rows, part.detail) for part in parts] == [
        (1, 5, "reports-0.csv"),
        (2, 10, "reports-1.csv"),
    ]
    log = (workers.folder / "executor_logs" / request.execution_id / f"{request.step}.log").read_text()
    said = [line.split()[2] for line in log.splitlines()]
    assert said == ["step_began", "file_written", "file_written", "step_ended"]
    folder = places.take_folder(
        "acme", request.execution_id, request.step, request.attempt_id, outcome.take_id
    )
    parts_of_log = sorted((workers.folder / "blobs" / places.log_prefix(folder)).iterdir())
    assert "".join(part.read_text() for part in parts_of_log) == log


def test_an_unknown_kind_fails_by_name(manager: Manager, workers: Workers) -> None:
    request = manager.request("TELEPORT")
    manager.dispatch(request)
    workers.started()
    outcome = manager.outcome(request)
    assert (outcome.outcome, outcome.reason) == ("fail", "unknown_step_kind")
    assert outcome.message is not None and "knows no kind 'TELEPORT'" in outcome.message


def test_a_step_that_raises_is_tried_again(manager: Manager, workers: Workers) -> None:
    request = manager.request("EXPORT", {"nothing": "of use"})
    manager.dispatch(request)
    workers.started()
    outcome = manager.outcome(request)
    assert (outcome.outcome, outcome.reason) == ("retry", "internal_error")
    assert outcome.message == "KeyError in the worker; its log has the details"


def poison() -> dict[str, bytes | None]:
    good = codec().encode(
        StepRequested(
            attempt_id="a",
            execution_id="b",
            tenant="t",
            step="s",
            kind="NOOP",
            attempt=1,
            parameters={},
            timeout_s=1,
            requested_at=AT,
        )
    )
    return {
        "wrong magic": b"\x01" + good[1:],
        "unknown schema": b"\x00\x7f\xff\xff\xff" + good[5:],
        "truncated": good[:-4],
        "trailing bytes": good + b"x",
        "json": b'{"attempt_id": "a"}',
        "empty": b"",
        "tombstone": None,
        "not for this topic": codec().encode(
            StepReport(
                execution_id="b",
                tenant="t",
                attempt_id="a",
                take_id="t",
                worker="w",
                kind="claim",
                lease_s=1,
                reported_at=AT,
            )
        ),
        "nearly 1 MB": b"\x01" * 995_000,
    }


def test_poison_goes_to_the_dead_letters_and_the_queue_goes_on(manager: Manager, workers: Workers) -> None:
    before = committed(manager.stack)
    values = poison()
    for name, value in values.items():
        manager.send(value, [("name", name.encode()), ("bad", b"\xff\xfe")])
    request = manager.request()
    manager.dispatch(request)
    workers.started()
    manager.outcome(request)

    def letters() -> list[Read]:
        manager.read()
        found = manager.records.get("step.requested.dlq", [])
        return found if len(found) == len(values) else []

    for letter in until(letters, 30, f"{len(values)} dead letters"):
        assert letter.headers["ms_reason"] == b"undecodable"
        assert letter.headers["ms_service"] == b"executor-worker"
        assert letter.headers["ms_origin"].startswith(b"step.requested/")
        if b"cut" in letter.headers["ms_error"]:
            assert letter.value == b""
        else:
            whole = values[letter.headers["name"].decode()] or b""
            assert letter.value == (whole if len(whole) <= LETTER_BYTES_MAX else whole[:HEAD_BYTES])
            assert ("ms_claim" in letter.headers) == (len(whole) > LETTER_BYTES_MAX)
            assert letter.headers["bad"] == b"\xff\xfe"
    settled(manager, before + len(values) + 1)


# ---------------------------------------------------------------- full, stopped, killed


def test_a_worker_that_is_full_leaves_its_work_to_others_and_loses_nothing(
    manager: Manager, both: Workers, gate: Gate
) -> None:
    parameters = slow_source(both)
    slow = [manager.request("EXPORT", parameters) for _ in range(8)]
    manager.dispatch(*slow)
    _, ready = both.start(MILLSTREAM_WORKER__LONG_LANES="2")
    until(lambda: gate.waiting() == 2, REJOIN_S, "two busy lanes")
    quick = [manager.request() for _ in range(20)]
    manager.dispatch(*quick)
    for request in quick:  # short steps never wait behind long ones
        assert manager.outcome(request).outcome == "done"
    until(lambda: '"action": "full"' in both.log(), 10, "the worker to leave the group")
    assert ready()
    both.started(MILLSTREAM_WORKER__LONG_LANES="3")
    until(lambda: gate.waiting() == 5, REJOIN_S, "three more busy lanes")
    assert sum(len(manager.reports(request, "claim")) for request in slow) == 5
    gate.open()
    for request in slow:
        assert manager.outcome(request).outcome == "done"
        assert len(manager.reports(request, "claim")) == 1


def test_sigterm_lets_running_steps_end_and_takes_no_more(
    manager: Manager, workers: Workers, gate: Gate
) -> None:
    running = manager.request("EXPORT", slow_source(workers))
    manager.dispatch(running)
    process = workers.started()
    until(lambda: gate.waiting() == 1, REJOIN_S, "a running step")
    process.send_signal(signal.SIGTERM)
    until(lambda: '"action": "revoked"' in workers.log(), 10, "the worker to leave the group")
    later = manager.request()
    manager.dispatch(later)
    gate.open()
    assert manager.outcome(running).outcome == "done"
    assert process.wait(10) == 0
    assert manager.outcomes(later) == []
    workers.started()
    assert manager.outcome(later).outcome == "done"


def test_workers_that_come_and_go_lose_nothing(manager: Manager, both: Workers) -> None:
    first = both.started()
    requests = [manager.request() for _ in range(150)]
    manager.dispatch(*requests[:50])
    second = both.started()
    manager.dispatch(*requests[50:100])
    first.send_signal(signal.SIGTERM)
    manager.dispatch(*requests[100:])
    assert first.wait(REJOIN_S) == 0
    for request in requests:
        assert manager.outcome(request).outcome == "done"
    assert second.poll() is None


def test_a_worker_that_was_frozen_hears_what_it_missed(
    manager: Manager, workers: Workers, gate: Gate
) -> None:
    frozen = workers.started(MILLSTREAM_WORKER__LONG_LANES="1")
    request = manager.request("EXPORT", slow_source(workers))
    manager.dispatch(request)
    until(lambda: gate.waiting() == 1, REJOIN_S, "a running step")
    (claim,) = until(lambda: manager.reports(request, "claim"), 10, "its claim")
    frozen.send_signal(signal.SIGSTOP)
    # Its lease ran out: the manager revokes the take and asks for the next attempt.
    manager.revoke(request, attempt_id=request.attempt_id, take_id=claim.take_id)
    again = replace(request, attempt=2, attempt_id=entropy.fresh_id())
    workers.started()
    manager.dispatch(again)
    until(lambda: gate.waiting() == 2, REJOIN_S, "the second attempt")
    frozen.send_signal(signal.SIGCONT)
    until(lambda: gate.waiting() == 1, 5, "the end of the frozen worker's query")
    gate.open()
    assert manager.outcome(again).outcome == "done"
    until(lambda: '"outcome": "revoked"' in workers.log(), 10, "the end of the first take")
    assert manager.outcomes(request) == []


@pytest.mark.parametrize("point", ["worker.outcome", "worker.outcome.acknowledged"])
def test_an_unclaimed_step_survives_a_kill(manager: Manager, workers: Workers, point: str) -> None:
    mark = workers.folder / "mark"
    process = workers.started(MILLSTREAM_CRASH__POINT=point, MILLSTREAM_CRASH__MARK=str(mark))
    request = manager.request()
    manager.dispatch(request)
    assert process.wait(REJOIN_S) == -signal.SIGKILL
    assert mark.read_text() == f"{point}\n"
    workers.started()
    # It was not committed and comes again, now with a claim: it may have been what killed the process.
    (claim,) = until(lambda: manager.reports(request, "claim"), 30, "a claim")
    ended = 2 if point == "worker.outcome.acknowledged" else 1
    until(lambda: len(manager.outcomes(request)) == ended, 30, f"{ended} outcomes")
    assert claim.take_id == manager.outcomes(request)[-1].take_id


@pytest.mark.parametrize("point", ["worker.claim", "worker.outcome", "worker.outcome.acknowledged"])
def test_a_claimed_step_survives_a_kill(manager: Manager, workers: Workers, point: str) -> None:
    mark = workers.folder / "mark"
    request = manager.request()
    manager.dispatch(request)
    process, _ = workers.start(MILLSTREAM_CRASH__POINT=point, MILLSTREAM_CRASH__MARK=str(mark))
    assert process.wait(REJOIN_S) == -signal.SIGKILL
    assert mark.read_text() == f"{point}\n"
    workers.started()
    if point == "worker.claim":  # killed before the commit: the record comes again, to be fenced by its claim
        outcome = manager.outcome(request)
        first, second = manager.reports(request, "claim")
        assert outcome.take_id == second.take_id != first.take_id
    else:  # killed after it: the lease expires, and the manager sends the next attempt
        following = manager.request()
        manager.dispatch(following)
        manager.outcome(following)
        assert len(manager.reports(request, "claim")) == 1
        assert len(manager.outcomes(request)) == (1 if point == "worker.outcome.acknowledged" else 0)


@pytest.mark.parametrize("point", ["worker.copy", "worker.blob"])
def test_a_kill_in_the_middle_of_an_export_shows_no_file(
    manager: Manager, workers: Workers, point: str
) -> None:
    with transaction(workers.source_url) as cursor:
        cursor.execute("CREATE TABLE things AS SELECT n AS id FROM generate_series(1, 200000) n")
    dataset = {"source": "main", "table": "public.things", "columns": [{"name": "id", "type": "integer"}]}
    request = manager.request("EXPORT", exporting.step(dataset).parameters)
    manager.dispatch(request)
    mark = str(workers.folder / "mark")
    process, _ = workers.start(MILLSTREAM_CRASH__POINT=point, MILLSTREAM_CRASH__MARK=mark)
    assert process.wait(REJOIN_S) == -signal.SIGKILL
    assert [*(workers.folder / "blobs").glob("executions/**/*.csv")] == []


def test_an_outcome_waits_for_a_broker_that_is_away(
    own: OwnStack, manager: Manager, workers: Workers, gate: Gate
) -> None:
    request = manager.request("EXPORT", slow_source(workers))
    manager.dispatch(request)
    process, ready = workers.start()
    until(lambda: gate.waiting() == 1, REJOIN_S, "a running step")
    own.broker.kill()
    gate.open()
    blobs = workers.folder / "blobs"
    until(lambda: [*blobs.glob("executions/**/manifest.json")], 10, "the finished files")
    until(lambda: not ready(), 20, "a worker that says it is not ready")
    own.broker.start()
    assert manager.outcome(request, 60).outcome == "done"
    until(ready, REJOIN_S, "a ready worker")
    following = manager.request()
    manager.dispatch(following)
    assert manager.outcome(following).outcome == "done"
    assert process.poll() is None


def test_no_secret_of_a_source_is_logged(manager: Manager, workers: Workers) -> None:
    dataset = {"source": "main", "table": "public.nothing", "columns": [{"name": "id", "type": "integer"}]}
    requests = [
        manager.request("EXPORT", exporting.step({**dataset, "source": source}).parameters)
        for source in ("main", "down")
    ]
    manager.dispatch(*requests)
    down = f"postgresql://someone:canary-secret@127.0.0.1:{free_port(0, set())}/db"
    workers.started(MILLSTREAM_SOURCES__DOWN=down, MILLSTREAM_SOURCES__DOWN__TENANTS="acme")
    assert manager.outcome(requests[0]).outcome == "fail"
    assert manager.outcome(requests[1]).outcome == "retry"
    written = workers.log() + "".join(str(record) for read in manager.records.values() for record in read)
    assert "canary-secret" not in written
    assert "test-only" not in written
