"""Apache Kafka's own jars, fetched once by Maven into the build directory."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from benchmarks.kafka.load import BUILD

VERSION = "4.3.1"
SCALA = "2.13"
FETCH_WITHIN_S = 600  # s until the download is given up

POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>oncelog</groupId><artifactId>kafka-jars</artifactId><version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_{SCALA}</artifactId>
      <version>{VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId>
      <version>{VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


class NoKafka(RuntimeError):
    """Apache Kafka cannot be run here; the text says why in one line."""


def java() -> str:
    """The path of the Java machine; raises NoKafka where there is none."""
    found = shutil.which("java")
    if found is None:
        raise NoKafka("there is no java (Debian: apt-get install default-jre-headless)")
    return found


def jars() -> Path:
    """The directory of all jars, fetched if it is not there yet; raises NoKafka if that fails."""
    java()
    home = BUILD / f"jars-{VERSION}"
    if (home / f"kafka_{SCALA}-{VERSION}.jar").exists():
        return home
    maven = shutil.which("mvn")
    if maven is None:
        raise NoKafka("there is no mvn to fetch its jars (Debian: apt-get install maven)")
    home.mkdir(parents=True, exist_ok=True)
    pom = BUILD / "pom.xml"
    pom.write_text(POM)
    command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
    try:
        subprocess.run(
            [*command, f"-DoutputDirectory={home}"],
            capture_output=True,
            text=True,
            check=True,
            timeout=FETCH_WITHIN_S,
        )
    except subprocess.CalledProcessError as error:
        said = (error.stdout + error.stderr).strip().splitlines() or [f"status {error.returncode}"]
        raise NoKafka(f"its jars could not be fetched: {said[0]}") from None
    except subprocess.TimeoutExpired:
        raise NoKafka(f"its jars could not be fetched within {FETCH_WITHIN_S} s") from None
    return home
