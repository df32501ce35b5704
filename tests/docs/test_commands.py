"""What the documentation says to type, open and configure is there and works."""

import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from covid_ct import __version__
from covid_ct.series.headers import SeriesRules
from covid_ct.server.configuration import KEYS, SECTION, ConfigurationError, read_configuration
from covid_ct.server.database import SqliteDatabase
from covid_ct.server.deliveries import DeliveryStore
from covid_ct.server.job_store import JobStore
from covid_ct.server.jobs import Job, Trigger
from tests.docs.conftest import REPOSITORY
from tools.orthanc_configuration import COMMENTED_JSON
from tools.orthanc_server import OrthancServer

PAGES = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md"), *(REPOSITORY / ".github").rglob("*.md"),
         *(REPOSITORY / "models").rglob("README.md")]  # fmt: skip

TARGETS = set(re.findall(r"^([a-z0-9-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))

RUNNABLE = re.compile(r"<!-- runs on a test server -->\n```sh\n(.*?)```", re.DOTALL)
"""Blocks that the tests run as they stand, but for the port."""


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(REPOSITORY)) for path in paths]


def code(text: str) -> str:
    """What is set as code: in backticks, indented, or in a block."""
    blocks = re.findall(r"```.*?```", text, re.DOTALL)
    rest = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`[^`\n]+`", rest), *re.findall(r"^    .*$", rest, re.MULTILINE)])


@pytest.mark.parametrize("page", names(PAGES))
def test_targets_links_and_settings_of_a_page_exist(page: str) -> None:
    path = REPOSITORY / page
    text = path.read_text()
    if "training" not in page:
        asked = set(re.findall(r"\bmake ([a-z][a-z0-9-]*)\b", code(text)))
        assert asked <= TARGETS
    for target in re.findall(r"\]\(([^)#\s]+)\)", text):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target
    for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL):
        plain = COMMENTED_JSON.sub(lambda match: match[1] or "", block).strip()
        document = json.loads(plain if plain.startswith(("{", "[")) else f"{{{plain}}}")
        if isinstance(document, dict):
            assert set(document.get("CovidCt", {})) <= KEYS


def test_a_series_jobs_are_erased(tmp_path: Path) -> None:
    statements = re.findall(r"```sql\n(.*?)```", (REPOSITORY / "docs/security.md").read_text(), re.DOTALL)
    file = tmp_path / "jobs.sqlite"
    database = SqliteDatabase(file)
    jobs, deliveries = JobStore(database, "here"), DeliveryStore(database, "here")
    for job, uid in (("erased", "1.2.3"), ("kept", "1.2.3.4")):
        jobs.add(Job(job, "series", uid, Trigger.REST))
        deliveries.add(job, ["pacs"])
    database.close()
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(*statements)
    database = SqliteDatabase(file)
    assert JobStore(database, "here").get("erased") is None
    assert DeliveryStore(database, "here").of_job("erased") == []
    assert len(DeliveryStore(database, "here").of_job("kept")) == 1
    database.close()
    assert not any(b"erased" in part.read_bytes() for part in tmp_path.iterdir())


def test_make_help_lists_every_target() -> None:
    # Under make, as in CI, an inner make says which folder it enters.
    quiet = ["make", "--no-print-directory", "help"]
    listed = subprocess.run(quiet, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    phony = set(re.findall(r"^\.PHONY: (\S+)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert {line.split()[0] for line in listed.splitlines()} == phony
    assert all(len(line.split(maxsplit=1)) == 2 for line in listed.splitlines())


CONFIGURATION, _, SERIES_RULES = (REPOSITORY / "docs/configuration.md").read_text().partition("\n`SeriesRules`:\n")


def test_every_key_is_listed_once_with_its_default_and_range() -> None:
    rows = re.findall(r"^\| `([A-Z]\w+)` \| (.*?) \| (.*?) \|", CONFIGURATION, re.MULTILINE)
    assert sorted(key for key, _, _ in rows) == sorted(KEYS)
    plain = {
        key: json.loads(default.strip("`"))
        for key, _, default in rows
        if re.fullmatch(r"`[^`a-z]*(true|false)?`", default)
    }
    assert len(plain) == 7
    for key, default in plain.items():
        assert read_configuration({SECTION: {key: default}}, REPOSITORY) == read_configuration({}, REPOSITORY), key
    ranges = {key: tuple(map(int, kind.split("–"))) for key, kind, _ in rows if "–" in kind}
    assert len(ranges) == 4
    for key, (low, high) in ranges.items():
        for number in (low, high):
            read_configuration({SECTION: {key: number}}, REPOSITORY)
        for number in (low - 1, high + 1):
            with pytest.raises(ConfigurationError, match=key):
                read_configuration({SECTION: {key: number}}, REPOSITORY)


def test_every_rule_is_listed_once_with_its_default() -> None:
    rows = re.findall(r"^\| `([A-Z]\w+)` \| (\d+) \|", SERIES_RULES, re.MULTILINE)
    assert len(rows) == len(fields(SeriesRules)) == len(dict(rows))
    rules = {key: int(default) for key, default in rows}
    assert read_configuration({SECTION: {"SeriesRules": rules}}, REPOSITORY).series_rules == SeriesRules()


def test_the_shipped_configuration_shows_every_key() -> None:
    text = (REPOSITORY / "orthanc.json").read_text().partition(f'"{SECTION}": {{')[2]
    assert sorted(re.findall(r'^ *(?:// )?"(\w+)":', text, re.MULTILINE)) == sorted(KEYS)


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("compose-spec", "compose.yaml"),
        ("github-workflows", ".github/workflows/ci.yml"),
        ("citation-file-format", "CITATION.cff"),
    ],
)
def test_files_of_other_programs_fit_their_schemas(schema: str, file: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", file]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_workflow_runs_what_ci_runs_and_the_citation_is_of_this_version() -> None:
    (job,) = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())["jobs"].values()
    assert job["steps"][-1] == {"run": ".ci/run"}
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert citation["license"] == "AGPL-3.0-or-later"


def test_marked_blocks_run(server: OrthancServer, series: str) -> None:
    blocks = [(path, block) for path in PAGES for block in RUNNABLE.findall(path.read_text())]
    assert blocks
    for path, block in blocks:
        script = block.replace("localhost:8042", f"127.0.0.1:{server.http_port}").replace("curl ", "curl --fail ")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], env={"SERIES": series, "PATH": "/usr/bin:/bin"},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (path, done.stderr)
        assert '"covid_probability"' in done.stdout
