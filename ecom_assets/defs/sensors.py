"""What starts automatically: sensors that compare the state of the outside world with what it should be.

Each sensor decides by ``gate``: a goal is a state of the outside world (what a layer would be built from, offsets,
table versions), named in the run's tags, and is reached only when a run for it has succeeded. State decides, never an
event, so a restart of the daemon, a reload of the code or a failure that was fixed needs no click: the next tick finds
what is due. No run builds on what a blocking check has rejected; see ``forbidden``.
"""

import hashlib
import inspect
import json
import time
from collections.abc import Callable, Iterable, Mapping

import dagster as dg

from ecom_assets.core.context import Context
from ecom_assets.core.errors import EcomError
from ecom_assets.dataset.model import Table
from ecom_assets.defs import deliveries, state
from ecom_assets.defs.names import Names
from ecom_assets.defs.resources.home import HomeResource
from ecom_assets.paths import INGESTION, LAYERS, TOPIC, path_used
from ecom_assets.serving import publication
from ecom_assets.source import upcoming, waiting

GOAL = "ecom/goal"
"""Run tag: what the run is to reach."""
BACKOFF = 30
LONGEST_BACKOFF = 600
"""Seconds before the second run for a goal; doubles with each, up to the longest."""
OBSERVE_EVERY = 60
LOOK_EVERY = 5

UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

HISTORY = 12
"""Runs for one goal that are looked at."""

BUILDING = ("pipeline", "bulk_load", "ingest", "stream", "publish")
"""Jobs that sensors wait for: they build layers."""

CHOSEN = "__ASSET_JOB"
"""Dagster's job for assets that somebody has chosen."""

Tick = Callable[[dg.SensorEvaluationContext, HomeResource, Names], dg.SensorResult | dg.RunRequest | dg.SkipReason]
"""What a sensor does at each tick; its docstring is what the UI shows."""


class NotNowError(Exception):
    """Why no run is requested now."""


def idle(instance: dg.DagsterInstance, names: Names) -> None:
    """Check that no run builds layers of a data set, whatever started it.

    Raises:
        NotNowError: One does.
    """
    for run in instance.get_runs(dg.RunsFilter(statuses=UNDER_WAY)):
        if _builds(run, names):
            raise NotNowError(f"run {run.run_id[:8]} ({run.job_name}) is under way")


def _builds(run: dg.DagsterRun, names: Names) -> bool:
    if run.job_name == CHOSEN and run.asset_selection is not None:
        return any(names.group_of(key) for key in run.asset_selection)
    return run.job_name in (CHOSEN, *map(names.of, BUILDING))


def forbidden(
    instance: dg.DagsterInstance,
    graph: "dg.AssetGraph",
    names: Names,
    layers: Iterable[str],
    tables: Iterable[Table],
) -> str:
    """The first blocking check of some layers whose last evaluation failed; empty if there is none.

    Args:
        instance: Knows the evaluations.
        graph: Knows which checks block.
        names: What the data set's assets are called.
        layers: Names of the layers that would be built upon.
        tables: Which tables.
    """
    assets = {names.asset_key(layer, table) for layer in layers for table in tables}
    keys = [k for k in graph.asset_check_keys if k.asset_key in assets and graph.get(k).blocking]
    last = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    for key, record in last.items():
        found = record.event.dagster_event if record.event else None
        if found is None or found.event_type != dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            continue
        evaluation = found.asset_check_evaluation_data
        if not evaluation.passed and evaluation.severity == dg.AssetCheckSeverity.ERROR:
            return f"the last check {key.name} of {key.asset_key.to_user_string()} failed"
    return ""


def gate(
    instance: dg.DagsterInstance, job: str, goal: str, selection: list[dg.AssetKey], tags: Mapping[str, str]
) -> dg.RunRequest:
    """Decide on the next run for a goal.

    Args:
        instance: Knows the runs.
        job: What is to run.
        goal: The goal, in words: it begins the run's key, and its digest is one of its tags.
        selection: The assets to be built.
        tags: Further tags.

    Raises:
        NotNowError: A run for it has succeeded or is under way, or the last one failed a moment ago.
    """
    name = digest(goal)
    runs = instance.get_run_records(dg.RunsFilter(job_name=job, tags={GOAL: name}), limit=HISTORY)
    statuses = [record.dagster_run.status for record in runs]
    if dg.DagsterRunStatus.SUCCESS in statuses:
        raise NotNowError(f"a run for this state has succeeded, yet it is due: {goal}")
    if any(status in UNDER_WAY for status in statuses):
        raise NotNowError(f"run {runs[0].dagster_run.run_id[:8]} is under way for it")
    if runs:
        last = runs[0].dagster_run.run_id[:8]
        pause = min(BACKOFF * 2 ** (len(runs) - 1), LONGEST_BACKOFF)
        if (wait := pause - (time.time() - (runs[0].end_time or 0))) > 0:
            raise NotNowError(
                f"{len(runs)} runs have failed, the last is {last}; the next attempt is in {wait:.0f} s"
                f" (or start the job `{job}`)"
            )
    attempt = int(runs[0].dagster_run.tags.get("ecom/attempt", "0")) + 1 if runs else 1
    return dg.RunRequest(
        run_key=f"{goal}, attempt {attempt}",
        asset_selection=selection,
        tags={GOAL: name, "ecom/attempt": str(attempt), **tags},
    )


def digest(goal: str) -> str:
    """A goal's name in tags."""
    return hashlib.sha256(goal.encode()).hexdigest()[:24]


def _decided(decide: Callable[[], dg.RunRequest]) -> dg.RunRequest | dg.SkipReason:
    """What a sensor returns: a decision, or why there is none, be it that a server is away."""
    try:
        return decide()
    except (NotNowError, EcomError) as error:
        return dg.SkipReason(str(error))


def _accepted(
    context: dg.SensorEvaluationContext, names: Names, layers: Iterable[str], tables: Iterable[Table]
) -> None:
    """See that no blocking check of some layers has failed.

    Raises:
        NotNowError: One has.
    """
    if reason := forbidden(context.instance, _graph(context), names, layers, tables):
        raise NotNowError(f"{reason}: nothing is built on it")


def _graph(context: dg.SensorEvaluationContext) -> "dg.AssetGraph":
    assert context.repository_def, "a sensor belongs to a code location"
    return context.repository_def.asset_graph


def topic_observations(
    context: dg.SensorEvaluationContext, home: HomeResource, names: Names
) -> dg.SensorResult | dg.SkipReason:
    """Observe each topic: end offsets, rows, what is not in Delta yet, age of the last record."""
    try:
        found = state.progress(home.at)
    except EcomError as error:
        return dg.SkipReason(str(error))
    known = json.loads(context.cursor or "{}")
    seen = {}
    events = []
    for name, table in found.items():
        if table.offsets is None:
            continue
        ends = {str(p): end for p, end in table.offsets.ends.items()}
        seen[name] = [ends, table.unread]
        if seen[name] == known.get(name):
            continue
        shown: dict[str, dg.MetadataValue] = {
            "end_offsets": dg.MetadataValue.json(ends),
            "rows": dg.MetadataValue.int(table.own),
            "replayed": dg.MetadataValue.int(table.replayed),
            "simulated": dg.MetadataValue.int(table.simulated),
            "unread_offsets": dg.MetadataValue.int(table.unread),
            "rows_in_delta": dg.MetadataValue.int(table.streamed),
        }
        if table.offsets.last is not None:
            shown["last_record"] = dg.MetadataValue.timestamp(table.offsets.last)
            shown["seconds_since_last_record"] = dg.MetadataValue.float(round(time.time() - table.offsets.last, 1))
        events.append(dg.AssetObservation(names.asset_key("topic", home.at.dataset.tables[name]), metadata=shown))
    cursor = json.dumps(seen)
    if not events:
        return dg.SensorResult(skip_reason="nothing has changed in the topics", cursor=cursor)
    return dg.SensorResult(asset_events=events, cursor=cursor)


def due_files(context: dg.SensorEvaluationContext, home: HomeResource, names: Names) -> dg.RunRequest | dg.SkipReason:
    """Raw files are there and a later layer up to the topic is not built from them: build it."""
    return _decided(lambda: _ingestion(context, home, names))


def _ingestion(context: dg.SensorEvaluationContext, home: HomeResource, names: Names) -> dg.RunRequest:
    idle(context.instance, names)
    at, engine = home.at, home.engine("stream")
    tables = [t for t in at.dataset.tables.values() if at.books.build(LAYERS[0], t.name)]
    if not tables:
        jobs = " or ".join(f"`{names.of(job)}`" for job in ("ingest", "pipeline"))
        raise NotNowError(f"no raw file is loaded yet: start the job {jobs}")
    if path_used(at) != "stream":
        raise NotNowError(f"this home uses the path {path_used(at)}, which has no topics")
    selection, goals = [], []
    for table in tables:
        for number, name in enumerate(INGESTION):
            if engine.due(name, table):
                selection += [names.asset_key(later, table) for later in INGESTION[number:]]
                made_from = engine.layer(name).fingerprint(at, table)
                goals.append(f"{name}/{table.name} {made_from} after {_built(at, name, table)}")
                break
    if not selection:
        raise NotNowError("every file is in the topics")
    built = {names.group_of(key) for key in selection}
    _accepted(context, names, [name for name in (LAYERS[0], *INGESTION[:-1]) if name not in built], tables)
    return gate(context.instance, names.of("ingest"), ", ".join(goals), selection, deliveries.tags(at.settings))


def new_files(context: dg.SensorEvaluationContext, home: HomeResource, names: Names) -> dg.RunRequest | dg.SkipReason:
    """Further files are complete in the source: accept them as deliveries, and carry them into the topics.

    The run is for the first of these deliveries; those after it are reported as they pass each layer. If its files turn
    out to be no delivery, the run materializes nothing, and the next tick removes the partition.
    """
    deliveries.announce(context.instance, home.at, names)
    return _decided(lambda: _arrivals(context, home, names))


def _arrivals(context: dg.SensorEvaluationContext, home: HomeResource, names: Names) -> dg.RunRequest:
    idle(context.instance, names)
    at = home.at
    if context.cursor:
        deliveries.settle(context.instance, at, names, context.cursor)
        context.update_cursor("")
    try:
        found, first = waiting(at.settings, at.dataset), upcoming(at.settings, at.dataset)
    except OSError as error:
        raise NotNowError(f"the source cannot be read: {error}") from error
    if not found or not first:
        raise NotNowError("every complete file of the source is loaded")
    if path_used(at) != "stream":
        raise NotNowError(f"this home uses the path {path_used(at)}: start the job `{names.of('bulk_load')}`")
    tables = [at.dataset.tables[name] for name in dict.fromkeys(table for table, _ in found)]
    keys = [names.asset_key(layer, table) for layer in (LAYERS[0], *INGESTION) for table in tables]
    goal = ", ".join(name for _, name in found)
    expected = deliveries.expected(*first)
    requested = gate(context.instance, names.of("ingest"), goal, keys, expected)
    partition = expected[deliveries.PARTITION]
    context.instance.add_dynamic_partitions(names.of("deliveries"), [partition])
    context.update_cursor(partition)
    return requested


def unread_records(
    context: dg.SensorEvaluationContext, home: HomeResource, names: Names
) -> dg.RunRequest | dg.SkipReason:
    """Unread records in a topic: stream them. Of a live topic, at most every so often (`ECOM_STREAM_SECONDS`)."""
    return _decided(lambda: _stream(context, home, names))


def _stream(context: dg.SensorEvaluationContext, home: HomeResource, names: Names) -> dg.RunRequest:
    idle(context.instance, names)
    at = home.at
    behind = {n: p for n, p in state.progress(at).items() if p.offsets and p.unread and not p.ingesting}
    followed = [n for n in behind if state.is_live(at, n)]
    due = {n: p for n, p in behind.items() if n not in followed}
    if not due:
        raise NotNowError(
            f"`ecom stream` is reading {', '.join(followed)}" if followed else "every committed record is in Delta"
        )
    if all(not p.streaming for p in due.values()):
        wait = _pause(context.instance, names.of("stream"), at.settings.stream_seconds)
        if wait > 0:
            raise NotNowError(f"only live records are unread; they are streamed in {wait:.0f} s")
    tables = [at.dataset.tables[n] for n in due]
    _accepted(context, names, ["topic"], tables)
    ends = {TOPIC.stored_as(at.settings, at.dataset.tables[n]): p.offsets.ends for n, p in due.items() if p.offsets}
    goal = ", ".join(f"{topic}[{p}] to {end}" for topic, to in ends.items() for p, end in sorted(to.items()))
    goal += f" after {', '.join(p.version or 'nothing' for p in due.values())}"
    keys = [names.asset_key("streamed", table) for table in tables]
    offsets = json.dumps({topic: {str(p): end for p, end in to.items()} for topic, to in ends.items()})
    return gate(
        context.instance, names.of("stream"), goal, keys, {"ecom/offsets": offsets, **deliveries.tags(at.settings)}
    )


def _pause(instance: dg.DagsterInstance, job: str, seconds: float) -> float:
    """Seconds until the next run of a job, counted from the end of the last one."""
    last = instance.get_run_records(dg.RunsFilter(job_name=job), limit=1)
    return seconds - (time.time() - (last[0].end_time or 0)) if last else 0.0


def unpublished_versions(
    context: dg.SensorEvaluationContext, home: HomeResource, names: Names
) -> dg.RunRequest | dg.SkipReason:
    """What was ingested is streamed: merge it, load HBase, reconcile, publish. Live records, at most every so often."""
    return _decided(lambda: _publication(context, home, names))


def _publication(context: dg.SensorEvaluationContext, home: HomeResource, names: Names) -> dg.RunRequest:
    idle(context.instance, names)
    at, engine = home.at, home.engine("stream")
    asked = {n: p for n, p in state.progress(at).items() if p.expected is not None}
    waits = [reason for p in asked.values() if (reason := p.streaming)]
    if waits or not asked:
        raise NotNowError("pending: " + "; ".join(waits or ["a table to be chunked and produced"]))
    tables = [at.dataset.tables[n] for n in asked]
    due = [t for t in tables if asked[t.name].merged != asked[t.name].version or engine.due(LAYERS[-1], t)]
    if not due and publication.is_current(at.settings, at.dataset, at.books):
        raise NotNowError("everything that was streamed is published")
    if due and publication.same_ingestion(at.books, asked) and all(engine.layer(LAYERS[-1]).exists(at, t) for t in due):
        age = state.published_for(at)
        wait = at.settings.publish_seconds - age.total_seconds() if age else 0.0
        if wait > 0:
            raise NotNowError(f"only live records are unpublished; they are published in {wait:.0f} s")
    _accepted(context, names, ["topic", "streamed"], tables)
    versions = {n: p.version for n, p in asked.items()}
    goal = ", ".join(f"streamed/{n} {version}" for n, version in versions.items())
    goal += f" after {', '.join(_built(at, LAYERS[-1], table) for table in tables)}"
    keys = [names.asset_key(layer, t) for layer in ("merged", LAYERS[-1]) for t in due]
    keys += [names.report, *map(names.index_key, at.dataset.indexes.values()), names.precomputed, names.publication]
    tags = {"ecom/versions": json.dumps(versions), **deliveries.tags(at.settings)}
    return gate(context.instance, names.of("publish"), goal, keys, tags)


def _built(at: Context, layer: str, table: Table) -> str:
    """When a layer was built last: without it, a goal that was reached once could never be one again."""
    build = at.books.build(layer, table.name)
    return build.at.isoformat() if build else "nothing"


def sensors(names: Names) -> list[dg.SensorDefinition]:
    """The sensors of a data set."""
    return [
        _sensor("topic_observations", topic_observations, names, OBSERVE_EVERY),
        _sensor("new_files", new_files, names, LOOK_EVERY, job="ingest"),
        _sensor("due_files", due_files, names, LOOK_EVERY, job="ingest"),
        _sensor("unread_records", unread_records, names, LOOK_EVERY, job="stream"),
        _sensor("unpublished_versions", unpublished_versions, names, LOOK_EVERY, job="publish"),
    ]


def _sensor(name: str, tick: Tick, names: Names, seconds: int, *, job: str = "") -> dg.SensorDefinition:
    @dg.sensor(
        name=names.of(name),
        description=inspect.getdoc(tick),
        job_name=names.of(job) if job else None,
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={names.home},
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.RunRequest | dg.SkipReason:
        return tick(context, names.home_of(context), names)

    return sensor
