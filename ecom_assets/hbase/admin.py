"""HBase's own Java Admin, driven from Python.

Thrift can't pre-split a table, load files, take snapshots, or compact and wait; the Admin can. A small JVM holds it for
as long as it is needed, and py4j, which comes with pyspark, carries the calls. Reading and writing cells does not
belong here.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self, TypeVar

from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway
from py4j.protocol import Py4JError, Py4JJavaError

from ecom_assets.core.context import Context
from ecom_assets.core.errors import HBaseError
from ecom_assets.core.home import hint
from ecom_assets.core.location import Location, hadoop_uri
from ecom_assets.hbase.thrift import TRANSIENT
from ecom_assets.java import jars
from ecom_assets.java.clients import hbase_client
from ecom_assets.java.program import JAVA, LOG4J, OPENS, class_archive

T = TypeVar("T")

VERSIONS = 1000
"""Versions of a cell that are kept: deliveries that may change a row before the first of them can be read no more."""

POLL_MS = 2
"""HBase's pause before the second look whether a table has been created, deleted or cloned; it grows to a hundredfold.

With HBase's own 100 ms, and even with 20, a swap took a second longer, all of it waiting.
"""


class HBaseAdmin:
    r"""HBase's Admin; a context manager, since its JVM must end.

        with HBaseAdmin(stack.addresses().hbase_zookeeper) as admin:
            admin.create_table("ecom_books", ["info"], splits=[b"\x40", b"\x80"])

    Args:
        zookeeper: HBase's quorum, ``host:port[,host:port]``.
        timeout: Seconds that one call may take before HBase's client gives up.
    """

    def __init__(self, zookeeper: str, timeout: float = 120) -> None:
        self.zookeeper = zookeeper
        self.timeout = timeout

    def __enter__(self) -> Self:
        """Start the JVM and connect.

        Raises:
            HBaseError: HBase does not respond at the quorum.
        """
        self._folder = TemporaryDirectory(prefix="ecom-hbase-admin-")
        folder = Path(self._folder.name)
        log4j = folder / "log4j2.properties"
        log4j.write_text(LOG4J.format(log=folder / "admin.log", level="error"), encoding="utf-8")
        port, process, token = self._launch(log4j)
        self._process = process
        parameters = GatewayParameters(port=port, auth_token=token, auto_convert=True)
        self._gateway = JavaGateway(gateway_parameters=parameters, java_process=process)
        self._jvm = self._gateway.jvm
        try:
            self._connect()
        except BaseException:
            self._close()
            raise
        return self

    def _launch(self, log4j: Path) -> tuple[int, Any, str]:
        small = ["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        path = jars.classpath("hbase")
        # An archive serves longer class paths too, so py4j's jar comes last and HBase's archive fits.
        archive = class_archive("hbase", os.pathsep.join(map(str, path)))
        if archive.exists():
            small.append(f"-XX:SharedArchiveFile={archive}")
        port, token, process = launch_gateway(
            jarpath=str(path[0]),
            classpath=os.pathsep.join(map(str, [*path[1:], _py4j_jar()])),
            javaopts=[*OPENS, *small, f"-Dlog4j2.configurationFile={log4j}"],
            java_path=JAVA,
            die_on_exit=True,
            enable_auth=True,
            return_proc=True,
        )
        return port, process, token

    def _connect(self) -> None:
        hadoop = self._jvm.org.apache.hadoop.hbase
        conf = hadoop.HBaseConfiguration.create()
        for name, value in hbase_client(self.zookeeper).items():
            conf.set(name, str(value))
        milliseconds = str(int(self.timeout * 1000))
        conf.set("hbase.client.operation.timeout", milliseconds)
        conf.set("hbase.client.meta.operation.timeout", milliseconds)
        conf.set("hbase.client.sync.wait.timeout.msec", milliseconds)  # ten minutes, if it were left alone
        conf.set("hbase.rpc.timeout", "30000")
        conf.set("hbase.client.pause", str(POLL_MS))
        # As many as fit into the timeout: HBase's 15 would be over within two seconds.
        conf.set("hbase.client.retries.number", str(int(self.timeout * 1000 / (100 * POLL_MS))))
        self._conf = conf
        try:
            self._connection = hadoop.client.ConnectionFactory.createConnection(conf)
            self._admin = self._connection.getAdmin()
            self._admin.getClusterMetrics()
        except Py4JError as error:
            raise HBaseError(
                f"HBase does not respond at the ZooKeeper quorum {self.zookeeper}: {_cause(error)}",
                f"run `{hint('status')}`; if HBase runs elsewhere, correct ECOM_HBASE_ZOOKEEPER",
                transient=True,
            ) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect and end the JVM."""
        self._close()

    def _close(self) -> None:
        self._gateway.close()  # no more: of a JVM that has ended, ``shutdown`` would try again without end
        with suppress(OSError):
            self._process.stdin.close()  # die_on_exit: the JVM ends with its standard input
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._folder.cleanup()

    def table_exists(self, name: str) -> bool:
        """Whether there is such a table."""
        return self._call(f"HBase table {name}", lambda: self._admin.tableExists(self._name(name)))

    def create_table(
        self,
        name: str,
        families: Iterable[str],
        splits: Iterable[bytes] = (),
        compression: str = "none",
        values: Mapping[str, str] | None = None,
    ) -> bool:
        """Create a table, unless it is there.

        Args:
            name: Its name.
            families: Its column families; ``VERSIONS`` of a cell are kept, and deleted cells for readers of the past.
            splits: First keys of the second, third, … region.
            compression: Of the files that HBase writes itself: ``none``, ``gz`` or ``snappy``.
            values: What its descriptor carries besides, by name.

        Returns:
            Whether it was created now; an existing table is left as it is.
        """
        if self.table_exists(name):
            return False
        client = self._jvm.org.apache.hadoop.hbase.client
        codecs = self._jvm.org.apache.hadoop.hbase.io.compress.Compression
        algorithm = codecs.getCompressionAlgorithmByName(compression)
        kept = self._jvm.org.apache.hadoop.hbase.KeepDeletedCells.TRUE
        descriptor = client.TableDescriptorBuilder.newBuilder(self._name(name))
        for family in families:
            column = client.ColumnFamilyDescriptorBuilder.newBuilder(family.encode())
            column.setCompressionType(algorithm).setMaxVersions(VERSIONS).setKeepDeletedCells(kept)
            descriptor.setColumnFamily(column.build())
        for key, value in (values or {}).items():
            descriptor.setValue(key, value)
        keys = sorted(set(splits))
        arguments = [descriptor.build()]
        if keys:
            arguments.append(self._gateway.new_array(self._jvm.byte, len(keys), 0))  # byte[n][]
            for i, key in enumerate(keys):
                arguments[1][i] = key
        self._call(f"HBase table {name}, creation", lambda: self._admin.createTable(*arguments))
        return True

    def disable(self, name: str) -> None:
        """Take a table out of service; its rows stay."""
        if self._is_enabled(name):
            self._call(f"HBase table {name}, disabling", lambda: self._admin.disableTable(self._name(name)))

    def enable(self, name: str) -> None:
        """Bring a table back into service."""
        if not self._is_enabled(name):
            self._call(f"HBase table {name}, enabling", lambda: self._admin.enableTable(self._name(name)))

    def delete_table(self, name: str) -> None:
        """Disable and delete a table, if it is there."""
        if self.table_exists(name):
            self.disable(name)
            self._call(f"HBase table {name}, deletion", lambda: self._admin.deleteTable(self._name(name)))

    def values(self, prefix: str, key: str) -> dict[str, str | None]:
        """What the descriptors of some tables carry.

        Args:
            prefix: What the tables' names begin with.
            key: Name of the value (see ``create_table``).

        Returns:
            Table -> value; ``None`` where its descriptor carries none of that name.
        """

        def work() -> list[Any]:
            pattern = self._jvm.java.util.regex.Pattern.compile(f"{re.escape(prefix)}.*")
            return list(self._admin.listTableDescriptors(pattern))

        found = self._call("HBase's tables", work)
        return {d.getTableName().getNameAsString(): d.getValue(key) for d in found}

    def kept_deleted_cells(self, name: str) -> dict[str, str]:
        """Family -> its ``KEEP_DELETED_CELLS``, which Thrift does not report; no family if there is no such table."""
        if not self.table_exists(name):
            return {}
        found = self._call(f"HBase table {name}, descriptor", lambda: self._admin.getDescriptor(self._name(name)))
        return {f.getNameAsString(): f.getKeepDeletedCells().toString() for f in found.getColumnFamilies()}

    def snapshots(self) -> set[str]:
        """Names of all complete snapshots."""
        return self._call("HBase's snapshots", lambda: {s.getName() for s in self._admin.listSnapshots()})

    def take_snapshot(self, snapshot: str, name: str) -> None:
        """Take a snapshot of a table."""
        self._call(f"HBase table {name}, snapshot", lambda: self._admin.snapshot(snapshot, self._name(name)))

    def clone_snapshot(self, snapshot: str, name: str) -> None:
        """Create a table of a snapshot; the two share their files."""
        self._call(
            f"HBase table {name}, clone of snapshot {snapshot}",
            lambda: self._admin.cloneSnapshot(snapshot, self._name(name)),
        )

    def delete_snapshot(self, snapshot: str) -> None:
        """Delete a snapshot, if it is there; tables that were cloned from it stay."""
        if snapshot in self.snapshots():
            self._call(f"HBase snapshot {snapshot}, deletion", lambda: self._admin.deleteSnapshot(snapshot))

    def regions(self, name: str) -> list[tuple[bytes, bytes]]:
        """First key and end (the first key after it) of each region, in order; empty means "no boundary"."""
        found = self._call(f"HBase table {name}, its regions", lambda: list(self._admin.getRegions(self._name(name))))
        return [(bytes(r.getStartKey()), bytes(r.getEndKey())) for r in found]

    def locations(self, name: str) -> list[str]:
        """The region server of each region, ``host:port``, in the order of ``regions``."""
        locator = self._connection.getRegionLocator(self._name(name))
        return [at.getServerName().getAddress().toString() for at in locator.getAllRegionLocations()]

    def bulk_load(self, name: str, folder: Location) -> None:
        """Let HBase load files; those of one region all at once.

        Args:
            name: The table.
            folder: Has a folder per column family with HFiles in it; HBase's servers must see it under this path.
                On a file system that is not HBase's own the files stay, else they are moved.

        Raises:
            HBaseError: HBase could not; nothing of a region that failed was loaded.
        """
        tool = self._jvm.org.apache.hadoop.hbase.tool.BulkLoadHFilesTool(self._conf)
        self._call(
            f"HBase table {name}, bulk load of {folder}",
            lambda: tool.bulkLoad(self._name(name), self._jvm.org.apache.hadoop.fs.Path(hadoop_uri(folder))),
            "if HBase runs elsewhere, its servers must see this folder under this path: set ECOM_HBASE_STAGING to a"
            " shared one, or load with ECOM_HBASE_LOADER=thrift",
        )

    def flush(self, name: str) -> None:
        """Write what is in memory to files, and wait for it."""
        self._call(f"HBase table {name}, flush", lambda: self._admin.flush(self._name(name)))

    def major_compact(self, name: str, timeout: float = 600) -> None:
        """Merge each region's files into one, and wait for it.

        Args:
            name: The table.
            timeout: Seconds to wait.

        Raises:
            HBaseError: It still runs after that.
        """
        # The call returns when every region has chosen its files, so "none" afterwards means done.
        self._call(f"HBase table {name}, compaction", lambda: self._admin.majorCompact(self._name(name)))
        end = time.monotonic() + timeout
        while self._admin.getCompactionState(self._name(name)).toString() != "NONE":
            if time.monotonic() > end:
                raise HBaseError(
                    f"{name}: expected the compaction to end within {timeout:.0f} s, but it still runs",
                    "wait longer; it continues by itself, and HBase's log shows how far it is",
                    transient=True,
                )
            time.sleep(0.1)

    def _is_enabled(self, name: str) -> bool:
        return self._call(f"HBase table {name}", lambda: self._admin.isTableEnabled(self._name(name)))

    def _call(self, what: str, work: Callable[[], T], remedy: str = "") -> T:
        """Make a call.

        Raises:
            HBaseError: HBase refused, or did not respond; names the last cause.
        """
        try:
            return work()
        except Py4JJavaError as error:
            cause = _cause(error)
            away = any(name in cause for name in TRANSIENT)
            raise HBaseError(
                f"{what}: expected it to succeed, got {cause}",
                remedy or (f"run `{hint('status')}`; see HBase's log" if away else ""),
                transient=away,
            ) from error
        except Py4JError as error:  # such a call fails in one of several ways, but the process shows which
            if not self._ended():
                raise
            self._close()
            self.__enter__()  # for the next attempt
            raise HBaseError(
                f"{what}: HBase's Java client had ended, so it was started again", transient=True
            ) from error

    def _ended(self) -> bool:
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _name(self, name: str) -> Any:
        return self._jvm.org.apache.hadoop.hbase.TableName.valueOf(name)


def _py4j_jar() -> str:
    """py4j's jar, among Spark's own."""
    return next(str(jar) for jar in jars.pyspark() if jar.name.startswith("py4j-"))


def _cause(error: Py4JError) -> str:
    """The last cause of an error of Java's, in one line."""
    if not isinstance(error, Py4JJavaError):
        return str(error)
    cause = error.java_exception
    while cause.getCause() is not None:
        cause = cause.getCause()
    return (cause.toString().splitlines() or ["an error without a word"])[0]


def admin_of(at: Context) -> HBaseAdmin:
    """The Admin of a context, for all who share it: its JVM takes seconds to start.

    Raises:
        HBaseError: HBase does not respond.
    """
    return at.opened(HBaseAdmin, lambda: HBaseAdmin(at.addresses.hbase_zookeeper))
