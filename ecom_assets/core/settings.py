"""Every setting of the project, read once from the environment (``ECOM_*``).

What belongs here: names, defaults and meanings of settings, and the layout of a
home folder. What does not: anything that starts, reads or writes a system.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from typing_extensions import override

from ecom_assets.core.errors import HomeError
from ecom_assets.core.expansion import Target
from ecom_assets.core.files import read_json, write_json
from ecom_assets.core.home import create, unusable

if TYPE_CHECKING:
    from ecom_assets.core.location import Location

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds the package: the project's root, or ``site-packages`` where the package is installed."""


DATASET = "shop"
"""The data set of a home that names none: one that comes along."""


BUCKET = "s3://"
"""What the address of a bucket begins with."""

SMALL_SCALE = 0.02
"""Synthetic data up to this scale count as small."""


SECRETS = ("books", "postgres", "redis", "password", "kafka_config")
"""Settings that hold passwords: each may be in the file that ``ECOM_<FIELD>_FILE`` names."""


class SecretFileError(ValueError):
    """A secret was to be read from a file, and that cannot be done."""


class _SecretFiles(EnvSettingsSource):
    """Reads secrets from files, as is usual in containers: variables are visible to all who may inspect one."""

    @override
    def _load_env_vars(self) -> Mapping[str, str | None]:
        named = {name: f"ECOM_{name.upper()}" for name in SECRETS}
        return {
            f"ecom_{name}": _secret(variable) for name, variable in named.items() if os.environ.get(f"{variable}_FILE")
        }


def _secret(variable: str) -> str:
    if os.environ.get(variable):
        raise SecretFileError(f"expected {variable} or {variable}_FILE, got both; take one of them out")
    file = Path(os.environ[f"{variable}_FILE"])
    try:
        text = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SecretFileError(
            f"{variable}_FILE: expected a file that can be read at {file}, got {error.strerror}; correct the path or"
            " the file's rights"
        ) from None
    if not text:
        raise SecretFileError(f"{variable}_FILE: expected a secret in {file}, got an empty file; write it there")
    return text


class Settings(BaseSettings):
    """Settings of one home; each field is the variable ``ECOM_<FIELD>``.

    An address that is set points to a server elsewhere, and the embedded stack
    then does not start that server. An empty address means "start our own".
    """

    model_config = SettingsConfigDict(env_prefix="ECOM_", frozen=True, extra="ignore")

    home: Path = Field(Path(".ecom"), description="Folder for all data, logs and state")
    host: str = Field("127.0.0.1", description="Interface the embedded servers listen on")

    profile: str = Field(
        "",
        pattern="^(embedded|cluster|)$",
        description="embedded (one server of each kind) or cluster (several); empty: what the home was started with",
    )

    dataset: str = Field(
        DATASET, description="Data set: the name of one that comes along, or a folder with its dataset.yaml"
    )
    source: str = Field(
        "synthetic", description="synthetic, kaggle, or a folder or bucket (s3://bucket/folder) with the CSV files"
    )
    delivery: str = Field("", description="Name of the only delivery whose files are accepted; empty: all that wait")
    scale: float = Field(0.01, gt=0, description="Size of the synthetic data; 1.0 is the full 13.8M rows")
    seed: int = Field(20220731, description="Seed of the synthetic data")
    expand: str = Field("none", description="none, a size per table (500MB), 3GB in all, or a factor (2.5)")
    chunk_bytes: int = Field(100 * 1024, ge=1024, description="Target size of a chunk file")
    path: str = Field("stream", pattern="^(stream|bulk)$", description="stream (through Kafka) or bulk")
    csv_engine: str = Field(
        "local",
        pattern="^(local|spark)$",
        description="Who expands and splits CSV files: local (the run itself, into the home) or spark (its tasks, into"
        " the lake)",
    )
    namespace: str = Field("ecom", pattern="^[a-z][a-z0-9_]*$", description="Prefix of topics and HBase tables")

    lake_uri: str = Field(
        "",
        pattern="^(hdfs://[^/]+(/.*)?|)$",
        description="Folder in HDFS for the lake, hdfs://host:port/folder; empty: lake/ in the home",
    )
    kafka: str = Field("", description="Bootstrap servers, host:port[,host:port]; empty: embedded")
    hbase_thrift: str = Field("", description="HBase Thrift server, host:port; empty: embedded")
    hbase_zookeeper: str = Field("", description="HBase's ZooKeeper quorum, host:port; empty: embedded")
    spark: str = Field("", description="Spark Connect address, sc://host:port; empty: embedded")
    postgres: str = Field(
        "", repr=False, description="PostgreSQL URL, postgresql://user:password@host:port/database; empty: embedded"
    )
    books: str = Field(
        "",
        repr=False,
        description="PostgreSQL URL of the books, in a schema per namespace; empty: books.sqlite in the home",
    )
    redis: str = Field("", repr=False, description="Redis URL, redis://:password@host:port/0; empty: embedded")
    kafka_config: dict[str, str] = Field(
        default_factory=dict,
        repr=False,
        description='Further librdkafka settings as JSON, e.g. {"security.protocol": "SASL_SSL"}',
    )
    partitions: int = Field(2, ge=1, description="Partitions of each topic")
    replication: int = Field(
        0, ge=0, description="Copies of each topic's partitions; 0: as many as there are brokers, but at most three"
    )
    producers: int = Field(
        0, ge=0, le=4, description="Processes that produce a topic; 0: one for two cores, but at most four"
    )
    regions: int = Field(4, ge=1, description="Regions an HBase table is pre-split into")
    hbase_loader: str = Field(
        "",
        pattern="^(hfile|spark|importtsv|thrift|)$",
        description="How rows enter HBase: hfile (bulk load), spark (the same, by its tasks), importtsv (MapReduce)"
        " or thrift; empty: hfile, or spark if the lake is in HDFS and rows come from it",
    )
    hbase_compression: str = Field(
        "snappy", pattern="^(none|gz|snappy)$", description="Compression of HBase's files: none, gz or snappy"
    )
    yarn: str = Field("", description="YARN's resource manager for importtsv, host:port; empty: one process here")
    hadoop_conf: Path | None = Field(
        None, description="Folder with Hadoop's own settings (mapred-site.xml, …) for importtsv, in place of yarn"
    )
    hbase_staging: Path | None = Field(
        None,
        description="Folder for HFiles before the bulk load; HBase's servers must see it; none: next to the lake's"
        " tables in HDFS, else in the home",
    )

    quarantine_limit: float = Field(0.01, ge=0, le=1, description="Share of a file's records that may be quarantined")
    stream_seconds: float = Field(
        60, ge=0, description="Least seconds between two streams of records that come in live; ingestions never wait"
    )
    publish_seconds: float = Field(
        900, ge=0, description="Least seconds between two publications of live records; ingestions never wait"
    )
    fresh_hours: float = Field(168, gt=0, description="Age in hours up to which a topic's last record is fresh")

    class_archives: bool = Field(
        True,
        description="Whether a server, when it first ends, records its Java classes to start in half the time",
    )
    dashboard: bool = Field(True, description="Whether `ecom run` starts the dashboard")

    kafka_memory: str = Field("512m", pattern="^[1-9][0-9]*[mg]$", description="Heap of the embedded Kafka")
    hbase_memory: str = Field(
        "",
        pattern="^([1-9][0-9]*[mg]|)$",
        description="Heap of the embedded HBase; empty: chosen by the data's size and the machine's memory",
    )
    thrift_memory: str = Field("512m", pattern="^[1-9][0-9]*[mg]$", description="Heap of the embedded Thrift server")
    spark_memory: str = Field(
        "",
        pattern="^([1-9][0-9]*[mg]|)$",
        description="Heap of the embedded Spark; empty: chosen by the data's size and the machine's memory",
    )
    postgres_memory: str = Field("256m", pattern="^[1-9][0-9]*[mg]$", description="Buffers of the embedded PostgreSQL")
    redis_memory: str = Field("256m", pattern="^[1-9][0-9]*[mg]$", description="Most that the embedded Redis keeps")

    # What follows is of one server of several, which `ecom serve` runs; see servers/nodes.
    node: int = Field(0, ge=0, description="Number of this server among those of its kind; 0: it is the only one")
    advertise: str = Field("", description="Name under which others reach this server; empty: its host")
    ports: dict[str, int] = Field(
        default_factory=dict, description='Ports in place of the usual ones, by purpose, as JSON: {"broker": 19092}'
    )
    memory: str = Field("", pattern="^([1-9][0-9]*[mg]|)$", description="Heap of this server; empty: its kind's own")
    cluster: str = Field("ecom", pattern="^[a-z][a-z0-9-]*$", description="Name of the cluster it belongs to")
    controllers: str = Field("", description="Kafka's brokers, number@host:port[,number@host:port]")
    namenode: str = Field("", description="HDFS's namenode, hdfs://host:port")
    spark_master: str = Field("", description="Spark's master, spark://host:port")
    code_location: str = Field("", description="Dagster's code server, host:port, for its webserver and daemon")
    worker_cores: int = Field(2, ge=1, description="Tasks that one Spark worker does at a time")
    worker_memory: str = Field("1g", pattern="^[1-9][0-9]*[mg]$", description="Heap of the executor on each worker")
    copies: int = Field(2, ge=1, description="Copies of each block in HDFS")
    password: str = Field("", repr=False, description="Password of this PostgreSQL or Redis; empty: one is generated")
    upgrade: bool = Field(False, description="Whether a server may start on data that another version has written")
    spark_config: dict[str, str] = Field(
        default_factory=dict,
        description='Further settings of our Spark as JSON: {"spark.eventLog.enabled": "true"}',
    )

    java_compiler: str = Field(
        "auto",
        pattern="^(auto|quick|full)$",
        description="Java's compilers in the embedded servers: quick for small data, full for large; auto decides",
    )

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments come first, then the environment, then the files that it names."""
        return init_settings, env_settings, _SecretFiles(settings_cls)

    @property
    def quick_java(self) -> bool:
        """Whether the embedded servers do without Java's optimizing compiler.

        On few rows it never earns back what it costs: with 41,000 rows Spark took 163 s of processor
        time with it and 89 s without. From some hundred thousand rows on it is the other way round.
        """
        return self.java_compiler == "quick" or (self.java_compiler == "auto" and self.has_small_data)

    @property
    def has_small_data(self) -> bool:
        """Whether the data are known to be few, some hundred thousand rows at most."""
        return self.source == "synthetic" and self.scale <= SMALL_SCALE and self.expand == "none"

    @property
    def raw(self) -> Path:
        """CSV files as published."""
        return self.home / "raw"

    @property
    def expanded(self) -> Location:
        """CSV files grown to the target size, bad records quarantined."""
        return self._csv / "expanded"

    @property
    def chunked(self) -> Location:
        """Row-aligned CSV parts, a folder per table."""
        return self._csv / "chunked"

    @property
    def _csv(self) -> Location:
        return self.lake if self.csv_engine == "spark" else self.home

    @property
    def quarantine(self) -> Path:
        """Rows that could not be read, a JSON-lines file per table."""
        return self.home / "quarantine"

    @property
    def lake(self) -> Location:
        """Delta tables: ``streamed/``, ``merged/``, ``quarantine/``, ``checkpoints/``."""
        if not self.lake_uri:
            return self.home / "lake"
        from ecom_assets.core.location import HdfsPath

        # Of each namespace its own, as with topics and HBase tables: several homes may share a cluster.
        return HdfsPath(self.lake_uri) / self.namespace

    @property
    def staging(self) -> Location:
        """HFiles before the bulk load, in a folder that their writers and HBase's servers share."""
        if self.hbase_staging:
            return self.hbase_staging.resolve()
        return self.lake / "staging" if self.lake_uri else (self.home / "staging").resolve()

    @property
    def stack(self) -> Path:
        """Data, logs and pids of the embedded servers, a folder per service."""
        return self.home / "stack"

    @property
    def dagster(self) -> Path:
        """The home's own Dagster instance (``DAGSTER_HOME``)."""
        return self.home / "dagster"


REMEMBERED = (
    *("dataset", "source", "scale", "seed", "expand"),
    *("chunk_bytes", "csv_engine", "namespace", "partitions", "lake_uri"),
)
"""Settings that decide what a home's data are and where they are stored: fixed by its first run."""

SERVERS = ("kafka", "hbase_zookeeper", "postgres", "books")
"""Addresses of servers elsewhere that hold a home's data: fixed too; they are remembered without passwords."""


BEGUN = "begun"
"""In a home's memory: nothing in the home was complete when it was written."""


class SettingsError(HomeError, ValueError):
    """A setting has a value that it cannot have."""


class HomeMismatchError(HomeError):
    """A setting was given that contradicts what the home was built with."""


def load(**overrides: object) -> Settings:
    """Read the settings: arguments, else the environment, else what the home remembers, else the default.

    Args:
        **overrides: Fields given on the command line; ``None`` means none.

    Returns:
        The settings, with ``home`` made absolute.

    Raises:
        SettingsError: A value has the wrong type or is out of range.
        HomeError: The size to grow to is invalid, or the home cannot be read.
        HomeMismatchError: A given value contradicts the home's.
    """
    given: dict[str, Any] = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        raise SettingsError("; ".join(_sentence(each, given) for each in error.errors())) from None
    Target.parse(settings.expand)  # noticed here, it costs nobody a minute, and no home remembers it
    settings = settings.model_copy(update={"home": settings.home.expanduser().resolve()})
    folder = Path(settings.dataset).expanduser()
    is_path = "/" in settings.dataset or settings.dataset.startswith((".", "~"))
    if is_path or (folder / "dataset.yaml").is_file():  # any other name is that of a bundled one
        settings = settings.model_copy(update={"dataset": str(folder.resolve())})
    if settings.source not in ("synthetic", "kaggle"):
        settings = settings.model_copy(update={"source": _resolved(settings.source)})
    known = _known(settings.home)
    if known:  # a home from before there were others holds the default
        known = {"dataset": DATASET} | known
    begun = known.pop(BEGUN, False)
    for name in (n for n in (*REMEMBERED, *SERVERS) if n in known):
        asked = getattr(settings, name)
        if begun and (name in SECRETS or name in settings.model_fields_set):
            continue
        if name in settings.model_fields_set and (asked or name not in {*SERVERS, "lake_uri"}):
            if not _agree(name, asked, known[name]):
                raise _mismatch(settings.home, name, known[name], f"got {_shown(name, asked)!r}")
        elif name in SECRETS and known[name]:
            raise _mismatch(settings.home, name, known[name], f"got no ECOM_{name.upper()}")
        else:
            settings = settings.model_copy(update={name: known[name]})
    return settings


def _resolved(source: str) -> str:
    """A folder or bucket by its one full name.

    Raises:
        SettingsError: It is another address, or one with more than bucket and folder; errors and logs name it whole.
    """
    if "://" not in source:
        return str(Path(source).expanduser().resolve())
    if not re.fullmatch(r"s3://[a-zA-Z0-9._-]+(/[^?#]*)?", source):
        scheme = source.partition("://")[0]
        raise SettingsError(
            f"source (ECOM_SOURCE): expected a folder or s3://bucket/folder, got another address ({scheme}://…)",
            "server, region and keys are set by AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY",
        )
    return source.rstrip("/")


def remember(settings: Settings, *, begun: bool = False) -> None:
    """Let the home remember what its data are and where they are stored; what it knows already stays.

    Args:
        settings: What it was asked to hold.
        begun: Its first files are only being written. A run without options continues with these settings, but other
            ones may still be given.
    """
    known = _known(settings.home)
    if known.get(BEGUN):
        known = {}
    now = {name: _shown(name, getattr(settings, name)) for name in (*REMEMBERED, *SERVERS)}
    if begun and not known:
        now[BEGUN] = True
    if now.keys() - known.keys():
        create(settings)
        write_json(settings.home / "home.json", now | known, mode=0o600)


def _known(home: Path) -> dict[str, Any]:
    """What a home remembers; nothing if there is none."""
    try:
        if home.exists() and not home.is_dir():
            raise NotADirectoryError(20, "it is not a folder")
        return read_json(home / "home.json") or {}
    except OSError as error:
        raise unusable(home, error) from None


def _agree(name: str, asked: Any, known: Any) -> bool:
    if name in ("kafka", "hbase_zookeeper"):  # one server that both name is enough: they form one cluster
        return bool(set(str(asked).split(",")) & set(str(known).split(",")))
    return _shown(name, asked) == known


def _shown(name: str, value: Any) -> Any:
    """A value without a password."""
    return re.sub(r"//[^/@]*@", "//", value) if name in SECRETS else value


def _mismatch(home: Path, name: str, known: Any, got: str) -> HomeMismatchError:
    """The error that names both values; an empty address means the servers of the home."""
    own = name in SERVERS and not known
    return HomeMismatchError(
        f"{home}: expected {name} {'to be empty, for its own server' if own else repr(known)}, with which it was built,"
        f" {got}",
        f"take another folder (--home), or {'leave it out' if own or name not in SECRETS else 'set it'}"
        + ("" if own or name not in SERVERS else f"; if the same server has moved, correct {home / 'home.json'}"),
    )


def _sentence(error: Any, given: Mapping[str, Any]) -> str:
    name = str(error["loc"][0]) if error["loc"] else "settings"
    shown = f"--{name.replace('_', '-')}" if name in given else f"ECOM_{name.upper()}"
    got = "" if name in SECRETS else f", got {error['input']!r}"
    message = error["msg"][0].lower() + error["msg"][1:]
    return f"{shown}: expected {message.removeprefix('input should be ')}{got}"
