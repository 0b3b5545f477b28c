"""Developer's command: ``python -m ecom_assets.java.jars lock`` turns the poms into ``jars.lock``.

Needs Maven on the PATH. The only place where dependencies are resolved.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from ecom_assets.java import jars

LIST = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:list"


def resolve(name: str) -> list[jars.Jar]:
    """Resolve one pom with Maven, which also downloads its jars.

    Args:
        name: The set, and the pom's name without ``.xml``.

    Returns:
        Its jars with size and digest.

    Raises:
        subprocess.CalledProcessError: Maven failed; its own words are on the terminal.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "list"
        repo = f"-Dmaven.repo.local={jars.repository()}"
        pom = str(jars.FOLDER / f"{name}.xml")
        subprocess.run(
            ["mvn", "-B", "-q", repo, "-f", pom, LIST, "-DincludeScope=runtime", f"-DoutputFile={out}"], check=True
        )
        # group:artifact:jar[:classifier]:version:scope, then perhaps the module's name
        found = re.findall(
            r"^ +([\w.-]+):([\w.-]+):jar:(?:([\w.-]+):)?([\w.-]+):(?:compile|runtime)", out.read_text(), re.MULTILINE
        )
    resolved = []
    for group, artifact, classifier, version in found:
        jar = jars.Jar(name, group, artifact, version, classifier, 0, "")
        resolved.append(replace(jar, size=jar.path.stat().st_size, sha256=jars.digest(jar.path)))
    return resolved


def lock() -> None:
    """Write ``jars.lock``."""
    # A second version of a jar that pyspark brings would break Spark.
    shipped = {re.sub(r"-\d[\w.-]*$", "", path.stem) for path in jars.pyspark()}
    lines = ["# Written by `python -m ecom_assets.java.jars lock`: set, coordinate, bytes, sha256."]
    for name in jars.SETS:
        wanted = [j for j in resolve(name) if name != "spark" or j.artifact not in shipped]
        lines += [f"{name}\t{j.coordinate}\t{j.size}\t{j.sha256}" for j in wanted]
    jars.LOCK.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{jars.LOCK}: {len(lines) - 1} jars")


if __name__ == "__main__":
    if sys.argv[1:] != ["lock"]:
        sys.exit("usage: python -m ecom_assets.java.jars lock")
    lock()
