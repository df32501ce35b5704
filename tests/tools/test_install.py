"""Installing into a Debian's Orthanc, upgrading, and taking out again."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from covid_ct.phantom import PhantomOptions, make_phantom, write_folder
from tests.inference.tiny_models import write_all
from tests.orthanc.driving import upload, wait_for_job
from tools import install as tool
from tools.doctor import examine
from tools.install import CONFIGURATION, InstallError, install, uninstall
from tools.orthanc_configuration import ConfigurationFilesError, read_json_with_comments
from tools.orthanc_server import REPOSITORY, OrthancServer
from tools.ports import free_port

DEBIAN = Path("/etc/orthanc")

Contents = dict[str, tuple[bytes, int, int]]


class InstalledOrthanc(OrthancServer):
    """Orthanc with a configuration folder as Debian's, and nothing of orthanc.json."""

    def __init__(self, folder: Path, orthanc_config: Path, http_port: int, dicom_port: int) -> None:
        super().__init__(folder, http_port=http_port, dicom_port=dicom_port)
        self._orthanc_config = orthanc_config

    def write_configuration(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self._orthanc_config


def contents(folder: Path) -> Contents:
    """Every file with its bytes, mode and owner."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode, path.stat().st_uid)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return tmp_path / "opt/covid-ct"


@pytest.fixture
def ports() -> tuple[int, int]:
    return free_port(), free_port()


@pytest.fixture
def orthanc_config(tmp_path: Path, ports: tuple[int, int]) -> Path:
    """What Debian's packages put into /etc/orthanc, but for storage and ports."""
    if not (DEBIAN / "python.json").exists():
        pytest.skip("Orthanc and its Python plugin are not Debian's, or not as it installed them.")
    folder = tmp_path / "etc"
    shutil.copytree(DEBIAN, folder)
    main = folder / "orthanc.json"
    text = main.read_text().replace("/var/lib/orthanc/db-v6", str(tmp_path / "storage"))
    for old, new in (("8042", ports[0]), ("4242", ports[1])):
        text = text.replace(f'Port" : {old}', f'Port" : {new}')
    main.write_text(text)
    script = folder / "python.json"
    script.write_text(script.read_text().replace(str(DEBIAN), str(folder)))
    return folder


@pytest.fixture
def packages_at_hand(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The Python packages of the tests in place of a fresh copy; `make install` below makes one."""
    environment = REPOSITORY / ".venv"
    monkeypatch.setattr(tool, "add_python_packages", lambda folder, wheels: folder.symlink_to(environment))
    yield
    assert environment.is_dir()


@pytest.mark.usefixtures("packages_at_hand")
def test_orthancs_user_may_read_what_root_installs_for_its_own_eyes(
    tmp_path: Path, prefix: Path, orthanc_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the repository was cloned under umask 077."""
    clone = tmp_path / "clone"
    skipped = shutil.ignore_patterns(".*", "build", "tests", "docs")
    shutil.copytree(REPOSITORY, clone, ignore=skipped, copy_function=shutil.copyfile)
    for path in (clone, *clone.rglob("*")):
        path.chmod(0o700)
    monkeypatch.setattr(tool, "REPOSITORY", clone)
    install(prefix, orthanc_config, None)
    for path in prefix.rglob("*"):
        wanted = 0o055 if path.is_dir() else 0o044
        assert path.is_symlink() or path.stat().st_mode & wanted == wanted, path


def sentences(orthanc_config: Path, state: str) -> list[str]:
    """What the doctor finds wrong, or would have somebody know."""
    return [finding.sentence for finding in examine(orthanc_config) if finding.state == state]


@pytest.mark.usefixtures("packages_at_hand")
def test_uninstalling_leaves_every_byte_as_it_was(prefix: Path, orthanc_config: Path) -> None:
    before = contents(orthanc_config)
    install(prefix, orthanc_config, None)
    assert contents(orthanc_config) != before
    uninstall(prefix, orthanc_config)
    assert contents(orthanc_config) == before
    assert not prefix.exists()


@pytest.mark.usefixtures("packages_at_hand")
def test_jobs_and_settings_survive_an_upgrade_and_an_uninstall(
    tmp_path: Path, prefix: Path, orthanc_config: Path, ports: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(orthanc_config)
    install(prefix, orthanc_config, None)
    ours = orthanc_config / CONFIGURATION
    changed = read_json_with_comments(ours)
    changed["CovidCt"]["ModelsFolder"] = str(write_all(tmp_path / "models"))
    ours.write_text(json.dumps(changed))
    options = PhantomOptions(slices=20, spacing_mm=8.0, thickness_mm=8.0, matrix=129)
    files = write_folder(make_phantom(options), tmp_path / "ct")
    orthanc = InstalledOrthanc(tmp_path / "run", orthanc_config, *ports)
    with orthanc:
        assert orthanc.get("/covid/status")["Analysis"] == "on"
        job = orthanc.post("/covid/analyze", {"Series": upload(orthanc, files)})
        done = wait_for_job(orthanc, job["ID"])
        assert done["State"] == "Success"
        assert sentences(orthanc_config, "wrong") == []
    install(prefix, orthanc_config, None)
    assert read_json_with_comments(ours) == changed
    uninstall(prefix, orthanc_config)
    kept = f"{CONFIGURATION}.saved"
    assert {name: content for name, content in contents(orthanc_config).items() if name != kept} == before
    assert "kept as covid-ct.json.saved" in capsys.readouterr().out
    install(prefix, orthanc_config, None)
    assert read_json_with_comments(ours) == changed
    with orthanc:
        assert orthanc.get(f"/covid/jobs/{job['ID']}")["Content"]["Results"] == done["Content"]["Results"]
        assert len(orthanc.get("/instances")) == len(files) + len(done["Content"]["Results"])


@pytest.mark.usefixtures("packages_at_hand")
def test_settings_that_stand_elsewhere_are_left_there(prefix: Path, orthanc_config: Path) -> None:
    (orthanc_config / "site.json").write_text('{"Python": {"AllowThreads": true}, "CovidCt": {"Automatic": false}}')
    install(prefix, orthanc_config, None)
    assert set(read_json_with_comments(orthanc_config / CONFIGURATION)) == {"PythonScript", "PythonVerbose"}


@pytest.mark.usefixtures("packages_at_hand")
def test_a_configuration_in_latin_1_is_kept_byte_for_byte(prefix: Path, orthanc_config: Path) -> None:
    install(prefix, orthanc_config, None)
    ours = orthanc_config / CONFIGURATION
    changed = ours.read_bytes() + b"// f\xfcr uns\n"
    ours.write_bytes(changed)
    install(prefix, orthanc_config, None)
    uninstall(prefix, orthanc_config)
    install(prefix, orthanc_config, None)
    assert ours.read_bytes() == changed


def with_script(folder: Path) -> None:
    (folder / "python.json").write_text('{"PythonScript": "/srv/ours.py"}')


def with_sample_among_others(folder: Path) -> None:
    (folder / "python.json").write_text('{"PythonScript": "/etc/orthanc/sample.py", "Housekeeper": {}}')


def with_key_twice(folder: Path) -> None:
    (folder / "site.json").write_text('{"HttpPort": 80}')


def with_installation_elsewhere(folder: Path) -> None:
    (folder / "python.json").unlink()
    (folder / CONFIGURATION).write_text('{"PythonScript": "/opt/elsewhere/plugin/covid.py"}')


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (with_script, "already names /srv/ours.py"),
        (with_sample_among_others, "among other things"),
        (with_key_twice, 'The key "HttpPort" stands both in'),
        (with_installation_elsewhere, "/opt/elsewhere/plugin/covid.py"),
    ],
)
def test_nothing_is_changed_where_it_cannot_work(
    change: Callable[[Path], None], sentence: str, prefix: Path, orthanc_config: Path
) -> None:
    change(orthanc_config)
    before = contents(orthanc_config)
    with pytest.raises((InstallError, ConfigurationFilesError), match=sentence):
        install(prefix, orthanc_config, None)
    assert contents(orthanc_config) == before
    assert not prefix.exists()


def test_wheels_that_are_nowhere_are_told_before_anything_is_installed(prefix: Path, orthanc_config: Path) -> None:
    with pytest.raises(InstallError, match="There is no folder /nowhere of wheels"):
        install(prefix, orthanc_config, Path("/nowhere"))
    assert not prefix.parent.exists()


def test_what_is_not_installed_is_not_uninstalled(tmp_path: Path, orthanc_config: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(InstallError, match="holds no installation"):
        uninstall(tmp_path / "mine", orthanc_config)
    assert (tmp_path / "mine").is_dir()


@pytest.mark.parametrize("beside", ["", ".old", ".new"])
def test_a_folder_that_is_not_ours_is_not_replaced(prefix: Path, orthanc_config: Path, beside: str) -> None:
    """As /usr/local would be."""
    theirs = prefix.with_name(prefix.name + beside) / "bin/tool"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    with pytest.raises(InstallError, match="holds what is not ours"):
        install(prefix, orthanc_config, None)
    assert theirs.exists()


@pytest.mark.slow
def test_make_install_and_make_uninstall(prefix: Path, orthanc_config: Path, ports: tuple[int, int]) -> None:
    before = contents(orthanc_config)
    # Orthanc is started in another folder than make.
    where = [f"PREFIX={os.path.relpath(prefix, REPOSITORY)}", f"ORTHANC_CONFIG={orthanc_config}"]

    def make(*arguments: str) -> str:
        done: Any = subprocess.run(
            ["make", *arguments, *where], cwd=REPOSITORY, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)

    assert "0 wrong" in make("install")
    with InstalledOrthanc(prefix.parent / "run", orthanc_config, *ports) as orthanc:
        status = orthanc.get("/covid/status")
        assert status["Analysis"] == "on", status
        assert "is ready in it" in make("doctor")
    make("uninstall")
    assert contents(orthanc_config) == before
