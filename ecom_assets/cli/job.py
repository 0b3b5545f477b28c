"""Executing a Dagster job: in this process on the home's own instance, or by another Dagster.

What belongs here: starting a job, following it, and what it came to. What does not: what a job does (``defs.jobs``),
and what people are shown of it (``pipeline``).
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any, TypeVar

from ecom_assets.cli.console import console
from ecom_assets.cli.interrupts import INTERRUPTS, detach_log_helpers, repeated_interrupts
from ecom_assets.core import settings as settings_module
from ecom_assets.core.errors import ServiceError
from ecom_assets.core.settings import Settings

T = TypeVar("T")

FINISHED = ("SUCCESS", "FAILURE", "CANCELED")
"""How a run can have ended."""

PROCESS_TAG = "ecom/process"
"""Run tag that names the process which executes the run: its id and the time of its start."""


class Outcome:
    """What a run came to.

    Attributes:
        success: Whether all steps and blocking checks succeeded.
        interrupted: Whether it was stopped by a signal.
        unchanged: Whether every layer was up to date before.
        errors: A sentence for each step that failed.
        checks: Evaluations of asset checks: asset, check, state, found.
        verdicts: Table -> its reconciliation.
    """

    def __init__(self) -> None:
        self.success = False
        self.interrupted = False
        self.unchanged = False
        self.errors: list[str] = []
        self.checks: list[dict[str, str]] = []
        self.verdicts: dict[str, Any] = {}


def meanwhile(work: Callable[[], T]) -> Callable[[], T]:
    """Begin some work in a thread that the process does not wait for; what is returned waits for its result."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001  raised where the result is asked for
            done.set_exception(error)

    Thread(target=run, daemon=True).start()
    return done.result


def definitions() -> Any:
    """The code location's definitions; their import takes seconds."""
    from ecom_assets.definitions import defs

    return defs()


def execute(
    job_name: str,
    settings: Settings,
    load: Callable[[], Any] = definitions,
    *,
    path: str = "",
    repair: bool = False,
) -> Outcome:
    """Execute a job in this process, on the home's own Dagster instance.

    Args:
        job_name: Its name.
        settings: The home; ``DAGSTER_HOME`` must be its own.
        load: Gives the definitions, which may be loading already.
        path: The path whose layers it builds; empty if it builds none.
        repair: Rebuild what is known to be damaged.
    """
    # First of all: a thread may be importing them, and packages whose modules import one another (pyspark's do) break
    # when two threads begin at different ends.
    loaded = load()
    import dagster as dg
    from dagster._core.errors import DagsterExecutionInterruptedError

    from ecom_assets.core.disk import room_for
    from ecom_assets.core.progress import bars
    from ecom_assets.defs import deliveries
    from ecom_assets.paths import LAYERS
    from ecom_assets.serving import history

    # Ctrl-C may fall into the closing of a connection to the event log, which then prints a traceback.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL + 1)
    detach_log_helpers()
    outcome = Outcome()
    job = loaded.resolve_job_def(job_name)
    # Dagster's event log is stored in the home too.
    with room_for("the run", settings.home), dg.DagsterInstance.get() as instance, bars(console):
        fail_orphaned_runs(instance)
        tags = {"ecom/source": settings.source, "ecom/path": settings.path, PROCESS_TAG: process_tag(os.getpid())}
        tags |= deliveries.tags(settings)
        try:
            with repeated_interrupts():
                result = job.execute_in_process(
                    instance=instance,
                    raise_on_error=False,
                    run_config={
                        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
                        "ops": _layers_config(path, repair=repair),
                    },
                    tags=tags,
                )
        except (KeyboardInterrupt, DagsterExecutionInterruptedError):
            outcome.interrupted = True
            outcome.errors.append("interrupted; run again to resume")
            result = None
    outcome.verdicts = _verdicts(settings)
    if result is None:
        return outcome
    outcome.success = result.success
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            while error and error.cause:
                error = error.cause
            if error and error.cls_name in INTERRUPTS:
                outcome.interrupted = True
                outcome.errors.append(f"{event.step_key}: interrupted; run again to resume")
                continue
            outcome.errors.append(f"{event.step_key}: {sentence(error.message) if error else 'failed'}")
    made = result.get_asset_materialization_events()
    flags = [m.materialization.metadata.get("skipped") for m in made if m.asset_key and m.asset_key.path[0] in LAYERS]
    outcome.unchanged = outcome.success and all(f is not None and f.value for f in flags)
    layers = [*LAYERS, "reconciliation", "serving"]
    found = [history.describe(e) for e in result.get_asset_check_evaluations()]
    outcome.checks = sorted(found, key=lambda c: layers.index(c["asset"].split("/")[0]))
    return outcome


def sentence(message: str) -> str:
    """The text of an error, without the name of its class and without a count of those in its group."""
    text = re.sub(r"^[\w.]*(?:Error|Exception|ExceptionGroup): ", "", message.strip())
    return re.sub(r" \(\d+ sub-exceptions?\)$", "", text)


def _layers_config(path: str, *, repair: bool) -> dict[str, Any]:
    """The configuration of the layers of a path."""
    from ecom_assets.paths import PATHS

    return {layer.name: {"config": {"path": path, "repair": repair}} for layer in PATHS.get(path, ())}


def _verdicts(settings: Settings) -> dict[str, Any]:
    """The last verdict on every table."""
    from ecom_assets.core.books import Books
    from ecom_assets.dataset.loader import named
    from ecom_assets.paths import PATHS
    from ecom_assets.reconcile import report

    with Books.open(settings) as books:
        return report.recorded(books, [layer.name for layer in PATHS[settings.path]], named(settings.dataset).tables)


def submit(job_name: str, settings: Settings, through: str, *, repair: bool = False) -> Outcome:
    """Submit a job to another Dagster, which shares the home, and wait for its end.

    Args:
        job_name: Its name.
        settings: The home.
        through: ``host:port`` of its webserver.
        repair: Rebuild what is known to be damaged.

    Raises:
        ServiceError: It did not accept the job.
    """
    import dagster as dg
    from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError

    from ecom_assets.core.addresses import split

    host, port = split(through)
    settings_module.remember(settings)
    outcome = Outcome()
    try:
        client = DagsterGraphQLClient(host, port_number=port)
        config = {"ops": _layers_config(settings.path, repair=repair)}
        run_id = client.submit_job_execution(job_name, run_config=config)
        console.print(f"run {run_id} of {job_name}, at http://{through}/runs/{run_id}", highlight=False)
        try:
            while (status := client.get_run_status(run_id)).value not in FINISHED:
                time.sleep(1)
        except KeyboardInterrupt:
            client.terminate_run(run_id)
            outcome.interrupted = True
            status = dg.DagsterRunStatus.CANCELED
    except DagsterGraphQLClientError as error:
        raise ServiceError(
            f"Dagster at {through}: expected it to run {job_name}, got {error}",
            "see that its webserver, code server and daemon run, and read their logs",
        ) from error
    outcome.success = status == dg.DagsterRunStatus.SUCCESS
    if not outcome.success:
        outcome.errors.append(f"the run ended as {status.value}; the reason is at http://{through}/runs/{run_id}")
    outcome.verdicts = _verdicts(settings)
    return outcome


def process_tag(pid: int) -> str:
    """What names a process in a run's tags; empty if there is none."""
    import psutil

    from ecom_assets.core.process import created

    try:
        return f"{pid}-{created(pid):.0f}"
    except psutil.NoSuchProcess:
        return ""


def is_alive(tag: str) -> bool:
    """Whether the process of a run's tag still runs; a recycled id belongs to another that started later."""
    from ecom_assets.core.process import running

    pid, _, created = tag.partition("-")
    return running(int(pid), float(created)) is not None


def fail_orphaned_runs(instance: Any) -> None:
    """Mark orphaned runs as failed: their process was killed, and the UI would show them as running for ever."""
    import dagster as dg

    under_way = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=under_way)):
        tag = run.tags.get(PROCESS_TAG)
        if tag and not is_alive(tag):
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            instance.report_run_failed(run, f"its process {tag.split('-')[0]} was killed")
