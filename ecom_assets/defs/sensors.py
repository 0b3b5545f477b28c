"""What starts by itself: sensors at the Kafka edge, where the outside world begins.

Before Kafka and at the end of the graph, automation conditions carry on (see ``factory``). Each
sensor decides by ``_gate``: a goal is a state of the outside world (offsets, table versions),
named in the run's tags, and is reached only when a run for it has succeeded.
"""

import hashlib
import json
import time
from collections.abc import Mapping

import dagster as dg

from ecom_assets.core.errors import ServiceError, TopicError
from ecom_assets.dataset.shop import TABLES
from ecom_assets.defs import factory
from ecom_assets.defs.jobs import publish, stream
from ecom_assets.defs.resources.home import HomeResource
from ecom_assets.flow import Flow, Standing
from ecom_assets.lake import merged, streamed

GOAL = "ecom/goal"
"""Run tag: what the run is to reach."""
ATTEMPTS = 3
"""Runs for one goal before people are asked."""
BACKOFF = 30
"""Seconds before the second run for a goal; doubles with each."""
OBSERVE_EVERY = 60
LOOK_EVERY = 5

UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def _standings(flow: Flow) -> dict[str, Standing] | dg.SkipReason:
    try:
        return flow.standings()
    except (ServiceError, TopicError) as error:
        return dg.SkipReason(str(error))


def _busy(instance: dg.DagsterInstance) -> dg.SkipReason | None:
    """A run is at work on the layers behind Kafka, whoever started it."""
    for run in instance.get_runs(dg.RunsFilter(statuses=UNDER_WAY)):
        if run.job_name in {"pipeline", stream.name, publish.name}:
            return dg.SkipReason(f"run {run.run_id[:8]} ({run.job_name}) is under way")
    return None


def _gate(
    instance: dg.DagsterInstance, job: str, state: str, selection: list[dg.AssetKey], tags: Mapping[str, str]
) -> dg.RunRequest | dg.SkipReason | None:
    """Decide on the next run for a goal.

    Args:
        instance: Knows the runs.
        job: What is to run.
        state: The goal, in words: it begins the run's key, and names the goal in its tags.
        selection: The assets to be made.
        tags: More of them.

    Returns:
        The run; or why there is none now; or ``None`` if one has succeeded.
    """
    goal = _name(state)
    runs = instance.get_run_records(dg.RunsFilter(tags={GOAL: goal}), limit=ATTEMPTS)
    statuses = [record.dagster_run.status for record in runs]
    if dg.DagsterRunStatus.SUCCESS in statuses:
        return None
    if any(status in UNDER_WAY for status in statuses):
        return dg.SkipReason(f"run {runs[0].dagster_run.run_id[:8]} is under way for it")
    if len(runs) >= ATTEMPTS:
        return dg.SkipReason(
            f"gave up after {len(runs)} failed runs, the last of which is {runs[0].dagster_run.run_id[:8]};"
            f" see why it failed, then start the job `{job}` by hand"
        )
    if runs and (wait := BACKOFF * 2 ** (len(runs) - 1) - (time.time() - (runs[0].end_time or 0))) > 0:
        return dg.SkipReason(f"run {runs[0].dagster_run.run_id[:8]} failed; the next try is in {wait:.0f} s")
    attempt = len(runs) + 1
    return dg.RunRequest(
        run_key=f"{state}, attempt {attempt}",
        asset_selection=selection,
        tags={GOAL: goal, "ecom/attempt": str(attempt), **tags},
    )


def _name(state: str) -> str:
    return hashlib.sha256(state.encode()).hexdigest()[:24]


@dg.sensor(minimum_interval_seconds=OBSERVE_EVERY, default_status=dg.DefaultSensorStatus.RUNNING)
def topic_observations(context: dg.SensorEvaluationContext, home: HomeResource) -> dg.SensorResult | dg.SkipReason:
    """Observe each topic: end offsets, rows, what of it is not in Delta yet, age of the last record."""
    standings = _standings(home.flow)
    if isinstance(standings, dg.SkipReason):
        return standings
    known = json.loads(context.cursor or "{}")
    seen = {}
    events = []
    for name, standing in standings.items():
        position = standing.position
        if position is None:
            continue
        seen[name] = [position.ends, standing.unread]
        if json.loads(json.dumps(seen[name])) == known.get(name):
            continue
        told: dict[str, dg.MetadataValue] = {
            "end_offsets": dg.MetadataValue.json({str(p): end for p, end in position.ends.items()}),
            "rows": dg.MetadataValue.int(position.rows),
            "replayed": dg.MetadataValue.int(position.replayed),
            "unread_offsets": dg.MetadataValue.int(standing.unread),
            "rows_in_delta": dg.MetadataValue.int(standing.streamed),
        }
        if position.last is not None:
            told["last_record"] = dg.MetadataValue.timestamp(position.last)
            told["seconds_since_last_record"] = dg.MetadataValue.float(round(time.time() - position.last, 1))
        events.append(dg.AssetObservation(factory.asset_key("topic", TABLES[name]), metadata=told))
    cursor = json.dumps(seen)
    if not events:
        return dg.SensorResult(skip_reason="nothing has changed in the topics", cursor=cursor)
    return dg.SensorResult(asset_events=events, cursor=cursor)


@dg.sensor(job=stream, minimum_interval_seconds=LOOK_EVERY, default_status=dg.DefaultSensorStatus.RUNNING)
def unread_records(context: dg.SensorEvaluationContext, home: HomeResource) -> dg.RunRequest | dg.SkipReason:
    """Unread records in a topic: stream them."""
    if busy := _busy(context.instance):
        return busy
    standings = _standings(home.flow)
    if isinstance(standings, dg.SkipReason):
        return standings
    behind = {n: s for n, s in standings.items() if s.position and s.unread}
    live = [n for n in behind if streamed.is_followed(TABLES[n], home.flow.settings)]
    due = {n: s for n, s in behind.items() if n not in live}
    if not due:
        told = f"`ecom stream` is reading {', '.join(live)}" if live else "every committed record is in Delta"
        return dg.SkipReason(told)
    offsets = {TABLES[n].topic(home.flow.settings.namespace): s.position.ends for n, s in due.items() if s.position}
    state = ", ".join(f"{topic}[{p}] to {end}" for topic, ends in offsets.items() for p, end in sorted(ends.items()))
    keys = [factory.asset_key("streamed", TABLES[n]) for n in due]
    decided = _gate(context.instance, stream.name, state, keys, {"ecom/offsets": json.dumps(offsets)})
    return decided or dg.SkipReason(f"a run for these offsets has succeeded, yet {', '.join(due)} has unread offsets")


@dg.sensor(job=publish, minimum_interval_seconds=LOOK_EVERY, default_status=dg.DefaultSensorStatus.RUNNING)
def finished_ingestions(
    context: dg.SensorEvaluationContext, home: HomeResource
) -> dg.SensorResult | dg.RunRequest | dg.SkipReason:
    """All that ingestion put into the topics is in Delta: merge it and load HBase."""
    if busy := _busy(context.instance):
        return busy
    flow = home.flow
    standings = _standings(flow)
    if isinstance(standings, dg.SkipReason):
        return standings
    asked = {n: s for n, s in standings.items() if s.due is not None}
    waits = [said for s in asked.values() if (said := s.waits_for)]
    if waits or not asked:
        return dg.SkipReason("waits for " + "; ".join(waits or ["a table to be chunked and produced"]))
    versions = {n: merged.version(streamed.folder(TABLES[n], flow.settings)) for n in asked}
    state = ", ".join(f"streamed/{n} {version}" for n, version in versions.items())
    goal = _name(state)
    if goal == context.cursor:
        return dg.SkipReason("everything that was streamed is published")
    due = [n for n in asked if flow.due("merged", TABLES[n]) or flow.due("hbase", TABLES[n])]
    if not due:  # another run, say of the job `pipeline`, has done it
        return dg.SensorResult(skip_reason="everything that was streamed is published", cursor=goal)
    keys = [factory.asset_key(layer, TABLES[n]) for layer in ("merged", "hbase") for n in due]
    decided = _gate(context.instance, publish.name, state, keys, {"ecom/versions": json.dumps(versions)})
    # The cursor moves only here and above: when a run for this state has succeeded.
    return decided or dg.SensorResult(skip_reason="everything that was streamed is published", cursor=goal)


carry_on = dg.AutomationConditionSensorDefinition(
    "carry_on",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=LOOK_EVERY,
    description="Inside the graph: makes what has an automation condition when what it is made from was made.",
)
