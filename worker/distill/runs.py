"""Which run this is: found or made in the service, written down in its folder, checked against both."""

import logging

from paced.client import Client
from paced.wire import CheckpointCreate, Curriculum, Run, RunCreate, RunState
from worker.distill.checkpoint import RunRecord, check_identity, read_record, write_record
from worker.distill.config import DistillConfig
from worker.distill.errors import ConfigRefused
from worker.distill.teachers.teacher import fingerprint

log = logging.getLogger(__name__)


def open_run(config: DistillConfig, client: Client, curriculum: Curriculum) -> RunRecord:
    """The run that these settings name, begun or taken up again.

    Raises ConfigRefused when the folder or the service knows it with other settings, or another student.
    """
    known = read_record(config.out)
    seen = fingerprint(config.student)
    if known is not None:
        check_identity(known.identity, config.identity(), f"the run in {config.out}")
        if known.student_fingerprint != seen:
            raise ConfigRefused(
                f"the weights in {config.student} are not those that the run in {config.out} began with: "
                "put them back, or begin a new run with another --run and --out"
            )
    run = _run(config, client)
    if known is not None and known.run_id != run.run_id:
        raise ConfigRefused(
            f"{config.out} belongs to run {known.run_id} of another service, or to one that was removed there "
            f"(this one is {run.run_id}): give another --out"
        )
    client.update_run(run.run_id, RunState.RUNNING)
    if known is not None:
        return known
    if run.last_step is not None:
        log.warning("%s holds no state of run %s: its steps are done again, on the same batches", config.out, run.name)
    record = RunRecord(run.run_id, _base_index(config, client, curriculum, run.run_id), config.identity(), seen)
    write_record(config.out, record)
    return record


def check_alone(client: Client, curriculum_id: str, run_id: str) -> None:
    """Refuse to end stages of a curriculum that another run is trained on. Raises ConfigRefused."""
    others = [r for r in client.runs(curriculum_id) if r.run_id != run_id and r.state == RunState.RUNNING]
    if others:
        raise ConfigRefused(
            f"stage_ends changes the schedule of curriculum {curriculum_id}, on which run {others[0].name!r} trains "
            f"too: give each run a curriculum of its own, or let stages end by steps. If {others[0].name!r} has ended, "
            f'say so: PATCH /v1/runs/{others[0].run_id} with {{"state": "failed"}}'
        )


def _run(config: DistillConfig, client: Client) -> Run:
    """The service's run of that name; one that was made without a configuration is taken as it is."""
    for run in client.runs(config.curriculum_id):
        if run.name == config.run_name:
            if run.config:
                check_identity(run.config, config.identity(), f"run {run.name!r} of curriculum {run.curriculum_id}")
            return run
    body = RunCreate(curriculum_id=config.curriculum_id, name=config.run_name, config=config.identity())
    return client.create_run(body)


def _base_index(config: DistillConfig, client: Client, curriculum: Curriculum, run_id: str) -> int:
    """The checkpoint that the run starts from: the newest of the student's folder, else its newest of others."""
    others = [made for made in client.checkpoints(curriculum.student) if made.run_id != run_id]
    if others:
        newest, folder = others[-1], str(config.student.resolve())
        found = next((made for made in reversed(others) if made.uri == folder), None)
        if found is None:
            log.warning("%s is taken for checkpoint %d of %s, %s", folder, newest.index, curriculum.student, newest.uri)
        elif found.index != newest.index:
            log.warning(
                "the run begins at checkpoint %d of %s; until it makes one of its own, draws follow what is known of "
                "checkpoint %d",
                found.index, curriculum.student, newest.index,
            )  # fmt: skip
        return (found or newest).index
    body = CheckpointCreate(uri=str(config.student.resolve()))
    log.info("student %s has no checkpoint yet: registering %s", curriculum.student, config.student)
    return client.register_checkpoint(curriculum.student, body, key=f"{run_id}:ckpt:base").index
