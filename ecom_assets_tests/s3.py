"""A store that speaks S3, S3Proxy on a folder: where tests put the objects of a shop that exports to a bucket."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from unittest.mock import patch

from pyarrow.fs import S3FileSystem

from ecom_assets.java import jars
from ecom_assets.java.program import JAVA, property_value
from ecom_assets_tests.ports import free_port

S3PROXY = jars.Jar(
    "tests", "org.gaul", "s3proxy", "2.6.0", "jar-with-dependencies",
    41503250, "12e5e88d805cfed07f7d88b4a44a0d8ecb9f9d3cebeb544bb34fbc4ded1049d8",
)  # fmt: skip
"""For tests alone, so it is in no lock of the servers'."""

KEY, SECRET = "a-tester", "a-secret-of-the-tests"
BUCKET = "exports"
SECONDS = 60

LOGBACK = """\
<configuration>
  <appender name="console" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d %level %logger{0}: %msg%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="console"/></root>
</configuration>
"""


class S3:
    """The server, with one bucket.

    Args:
        folder: Where it keeps its data.

    Attributes:
        uri: The bucket.
        env: The variables by which Amazon's tools find it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.uri = folder, f"s3://{BUCKET}"
        self.at = f"http://127.0.0.1:{free_port()}"
        self.env = {
            "AWS_ENDPOINT_URL": self.at,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            # S3Proxy knows no checksums that follow the data.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        jars.bring([S3PROXY])
        (self.folder / "data" / BUCKET).mkdir(parents=True, exist_ok=True)
        (self.folder / "logback.xml").write_text(LOGBACK)
        given = {
            "s3proxy.endpoint": self.at,
            "s3proxy.authorization": "aws-v2-or-v4",
            "s3proxy.identity": KEY,
            "s3proxy.credential": SECRET,
            "s3proxy.ignore-unknown-headers": "true",
            "jclouds.provider": "filesystem-nio2",
            "jclouds.filesystem.basedir": self.folder / "data",
            "jclouds.identity": "any",
            "jclouds.credential": "any",
        }
        conf = self.folder / "s3proxy.conf"
        conf.write_text("".join(f"{name}={property_value(value)}\n" for name, value in given.items()))
        options = ["-Xmx256m", "-XX:TieredStopAtLevel=1", f"-Dlogback.configurationFile={self.folder / 'logback.xml'}"]
        command = [JAVA, *options, "-jar", str(S3PROXY.path), "--properties", str(conf)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + SECONDS
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, f"expected S3Proxy within {SECONDS} s"
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.at, timeout=5)
        except urllib.error.HTTPError:  # it wants a signature
            return True
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """Kill it."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def put(self, key: str, data: bytes) -> None:
        """Write an object."""
        with self._named(), self._files.open_output_stream(f"{BUCKET}/{key}", compression=None) as out:
            out.write(data)

    def delete(self, key: str) -> None:
        """Delete an object."""
        with self._named():
            self._files.delete_file(f"{BUCKET}/{key}")

    def _named(self) -> AbstractContextManager[object]:
        """The variables, for as long as the block lasts: there is no other way to name how checksums are sent."""
        return patch.dict(os.environ, self.env)

    @cached_property
    def _files(self) -> S3FileSystem:
        return S3FileSystem(endpoint_override=self.at)


@contextmanager
def s3_in(folder: Path) -> Generator[S3]:
    """A store in a folder, up; killed at the end."""
    server = S3(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
