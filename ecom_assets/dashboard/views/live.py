"""Live: the stream as it happens, read from the streamed tables every two seconds."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

import polars as pl
import streamlit as st

from ecom_assets.core.home import hint
from ecom_assets.dashboard import charts
from ecom_assets.dashboard.common import across, ago, card, dataset, guarded, header, settings
from ecom_assets.dataset.model import Table
from ecom_assets.servers.stack import Stack
from ecom_assets.serving import live

EVERY = 2.0
"""Seconds between two looks."""


@st.fragment(run_every=EVERY)
def page() -> None:
    """The page; reruns automatically."""
    now = datetime.now(UTC)
    with guarded("The stream"):
        streams = {name: live.stream(table, settings()) for name, table in dataset().tables.items()}
        if not any(streams.values()):
            st.info(
                f"Nothing has been streamed yet. `{hint('run', settings())}` loads rows through Kafka into the streamed"
                " tables; this page then shows them as they arrive.",
                icon=":material/hourglass_empty:",
            )
            return
        with st.container(key="counters"):
            for column, (name, stream) in across(list(streams.items())):
                rate = stream.rate(now) if stream else 0.0
                column.metric(
                    dataset().tables[name].label,
                    f"{stream.rows if stream else 0:,}",
                    f"{rate:,.0f} rows/s" if rate else "idle",
                    delta_color="normal" if rate else "off",
                    delta_arrow="up" if rate else "off",
                    border=True,
                    help="Records in the streamed table, and how many arrived per second over the last minute",
                )
        home = settings()

        def newest(table: Table) -> datetime | None:
            return live.topic_newest(table, home, Stack(home).address("kafka"))

        with ThreadPoolExecutor(len(dataset().tables)) as pool:  # each mostly waits for Kafka
            latest = {name: pool.submit(newest, table) for name, table in dataset().tables.items()}
            place = st.container()
            arrivals(streams)
            largest = max(streams, key=lambda name: stream.rows if (stream := streams[name]) else 0)
            last_records(dataset().tables[largest], now)
            with place:
                behind(streams, latest)
    st.caption(f"Read from Delta's logs and newest files at {now:%H:%M:%S} UTC, again every {EVERY:.0f} s.")


def behind(streams: dict[str, live.Stream | None], latest: dict[str, Future[datetime | None]]) -> None:
    """How far the tables are behind their topics."""
    with card("lag", "Behind the topic", "Between the newest record in Kafka and the newest one in the table."):
        with st.container(key="counters-lag"):
            columns = [column for column, _ in across(list(streams))]
        for column, (name, stream) in zip(columns, streams.items(), strict=True):
            newest = latest[name].result()
            if newest is None:
                text = "no records"
            elif stream is None or stream.newest is None:
                text = "not streamed"
            else:
                lag = (newest - stream.newest).total_seconds()
                text = ago(lag) if lag > 0.001 else "0 s"
            column.metric(dataset().tables[name].label, text)


def arrivals(streams: dict[str, live.Stream | None]) -> None:
    """When records came, and how many."""
    with card("arrivals", "Arrivals", "Records of each of the last micro-batches, all tables."):
        batches = [(at, rows) for stream in streams.values() if stream for at, rows in stream.commits]
        frame = pl.DataFrame(batches, schema={"at": pl.Datetime("us", "UTC"), "rows": pl.Int64}, orient="row")
        if frame.is_empty():
            st.info("The tables' logs contain no micro-batch.", icon=":material/hourglass_empty:")
        else:
            st.html(charts.moments(frame.sort("at").tail(60), "rows", "records"))


def last_records(table: Table, now: datetime) -> None:
    """The newest records of a table."""
    with card("records", f"{table.label}: the last records"):
        records = live.last_records(table, settings(), 12)
        if not records:
            st.info("No record has been streamed yet.", icon=":material/hourglass_empty:")
            return
        rows = [
            {"arrived": f"{ago((now - record['_timestamp']).total_seconds())} ago"}
            | {name: record[name] for name in table.names}
            for record in records
        ]
        st.dataframe(rows, hide_index=True, height=35 * (len(rows) + 1) + 3)


header("Live", "What has just come through Kafka into the streamed tables.")
page()
