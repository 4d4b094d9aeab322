"""EXPORT: rows of a source table as sealed files in the blob store, one per batch, all of one snapshot.

The parameters are those of the plan (services/jobs/export.py). Files are `reports-<batch>.csv`, or
`report.csv` without batches, and at last `manifest.json`, which lists them. In a pipeline each tells its step
(services/contracts/file_names.py).
"""

from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from services.contracts import file_names, places
from services.contracts.commands import File, StepRequested
from services.executor.formats import FORMATS
from services.executor.formats.format import Format
from services.executor.steps import batches, query, sink
from services.executor.steps.outcome import Done, Fail, Outcome, Retry
from services.executor.steps.source import Ended, Snapshot, snapshot
from services.executor.steps.step import Context, Totals
from services.jobs.fields import shown
from services.jobs.filters import WITHOUT_VALUE
from services.runtime import crash
from services.runtime.blobs import BlobsUnavailable


class Export:
    """See the module."""

    def run(self, request: StepRequested, context: Context) -> Outcome:
        """Done with the files and totals; Retry when source or store is away; Fail for all else."""
        parameters = request.parameters
        source, table = parameters["source"], parameters["table"]
        try:
            url = context.sources.url(source, request.tenant)
            with (
                snapshot(url, source, table, request.timeout_s, context.log) as snap,
                context.cancelled.calling(snap.cancel),
            ):
                _check_filters(snap, request.parameters)
                request = batches.resolve(snap, request)
                _check_rows(snap, request.parameters)
                return _Take(request, context, FORMATS[parameters["format"]], snap).files()
        except Ended as ended:
            return ended.outcome
        except BlobsUnavailable as error:
            context.log.warning("blobs_unavailable", error=str(error))
            return Retry("blobs_unavailable", "the blob store cannot take the files now")


def _check_filters(snap: Snapshot, parameters: query.Parameters) -> None:
    """Whether the source takes each value for its column, which the dataset's catalogue cannot know."""
    for entry in parameters["filters"]:
        op, value, column = entry["op"], entry["value"], entry["column"]
        given = f"{len(value)} values" if isinstance(value, list) else shown(value)
        what = f"filter {op} on column {column}" + ("" if op in WITHOUT_VALUE else f", {given}")
        snap.check(query.render(snap.cursor, query.filtered(parameters, entry)), what)
    if time := parameters["time"]:
        snap.check(
            query.render(snap.cursor, query.timed(parameters)), f"timeRange on column {time['column']}"
        )
    batch = parameters["batch"]
    if batch is not None and "values" in batch:
        entry = {"column": batch["column"], "type": "string", "op": "in", "value": batch["values"]}
        what = f"batches of column {batch['column']}"
        snap.check(query.render(snap.cursor, query.filtered(parameters, entry)), what)


def _check_rows(snap: Snapshot, parameters: query.Parameters) -> None:
    """Before the first byte is written; the snapshot keeps the answer true."""
    limit = parameters["max_rows"]
    if limit is None:
        return
    select = query.count_up_to(parameters, limit + 1)
    if snap.count(query.render(snap.cursor, select)) > limit:
        message = f"more than {limit} rows, the dataset's limit; narrow it by batches, filters or timeRange"
        raise Ended(Fail("row_limit", message))


@dataclass(slots=True)
class _Take:
    """One run of the step."""

    request: StepRequested
    context: Context
    format: Format
    snap: Snapshot

    def files(self) -> Done:
        batch = self.request.parameters["batch"]
        files: list[File] = []
        for value in batch["values"] if batch else [None]:
            files.append(self._file(value))
            self.context.progress(_totals(files), files[-1].name)
            self.context.log.info("file_written", file=files[-1].name, rows=files[-1].rows)
        output = {"snapshot_at": self.snap.taken_at.isoformat(), **asdict(_totals(files))}
        return Done({**output, **batches.found(self.request)}, (*files, self._manifest(files)))

    def _file(self, batch: str | None) -> File:
        stem = "report" if batch is None else f"reports-{batch}"
        name = f"{stem}.{self.format.extension}"
        statement = query.render(self.snap.cursor, query.rows(self.request.parameters, batch))
        with self.context.files.create(self.request.tenant, self._key(name)) as writer:
            with sink.rows(writer, self._before_chunk) as rows:
                count = self.snap.copy(statement, self.format.copy_options, rows)
            crash.reach("worker.blob")
            writer.finish()
        return File(
            name=self._shown(name),
            key=self._key(name),
            batch=batch,
            rows=count,
            bytes=writer.bytes,
            sha256=writer.sha256,
            content_type=self.format.content_type,
        )

    def _manifest(self, files: list[File]) -> File:
        body = {
            "execution_id": self.request.execution_id,
            "step": self.request.step,
            "visit": self.request.visit,
            "snapshot_at": self.snap.taken_at.isoformat(),
            "format": self.request.parameters["format"],
            "columns": self.request.parameters["columns"],
            "totals": asdict(_totals(files)),
            "files": [_listed(file) for file in files],
        }
        with self.context.files.create(self.request.tenant, self._key(file_names.MANIFEST)) as writer:
            writer.write(msgspec.json.format(msgspec.json.encode(body), indent=2))
            writer.finish()
        return File(
            name=self._shown(file_names.MANIFEST),
            key=self._key(file_names.MANIFEST),
            batch=None,
            rows=0,
            bytes=writer.bytes,
            sha256=writer.sha256,
            content_type="application/json",
        )

    def _shown(self, name: str) -> str:
        """Other steps of its execution write files too."""
        request = self.request
        if not request.parameters.get("among_steps"):
            return name
        return file_names.of_step(request.step, name, request.visit)

    def _key(self, name: str) -> str:
        request, take = self.request, self.context.take_id
        folder = places.take_folder(
            request.tenant, request.execution_id, request.step, request.attempt_id, take
        )
        return places.file_key(folder, name)

    def _before_chunk(self) -> None:
        crash.reach("worker.copy")
        if self.context.cancelled.is_set():
            raise Ended(Retry("worker_stopped", "the worker was stopped in the middle of the export"))


def _totals(files: list[File]) -> Totals:
    return Totals(len(files), sum(file.rows for file in files), sum(file.bytes for file in files))


def _listed(file: File) -> dict[str, Any]:
    """A file as the manifest shows it: everything but its key, which is no reader's business."""
    fields: dict[str, Any] = msgspec.to_builtins(file)
    fields.pop("key")
    return fields
