"""Install this plugin into a Debian's Orthanc, upgrade it, or take it out again.

The program goes to /opt/covid-ct, which the Filesystem Hierarchy Standard keeps for add-on software: /usr belongs to
dpkg, and what Orthanc's service must read does not belong in anyone's home. Jobs and results are in Orthanc's storage,
which nothing here touches.
"""

import argparse
import compileall
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tools.installation import orthanc_program
from tools.orthanc_configuration import (
    ConfigurationFiles,
    ConfigurationFilesError,
    read_configuration_files,
    read_json_with_comments,
)

REPOSITORY = Path(__file__).resolve().parents[1]

PREFIX = Path("/opt/covid-ct")
ORTHANC_CONFIG = Path("/etc/orthanc")

DEBIAN_PACKAGES = ("orthanc-python", "python3-venv", "fonts-dejavu-core")

CONFIGURATION = "covid-ct.json"
"""The one file that is put into Orthanc's configuration."""

KEPT = ".saved"
"""What an uninstalled configuration file that someone has changed is called from then on."""

SET_ASIDE = ".before-covid-ct"
"""What a file that named another Python script is called meanwhile; Orthanc reads *.json only."""

SAMPLE = "sample.py"
"""Debian's orthanc-python comes with a script that only says hello."""

PYTHON_KEYS = {"PythonScript", "PythonVerbose", "Python"}
"""Keys of Orthanc's Python plugin."""

NEEDED_BYTES = 1_500_000_000
"""Room for the old and the new program beside each other during an upgrade."""

RESTART_TIMEOUT_S = 90.0
"""Longest time that Orthanc's service may take to end and start, in seconds."""


AS_IT_IS = {"encoding": "utf-8", "errors": "surrogateescape"}
"""How a text of somebody else's is read and written, so that no byte of it changes."""

RECORD = "installed.json"
"""File of the program's folder that tells what was installed; a folder without it is not ours."""


class InstallError(Exception):
    """Raised if nothing can be installed here; the sentence says why and what to do."""


def install(prefix: Path, orthanc_config: Path, wheels: Path | None) -> None:
    """Install, or upgrade what is installed.

    Raises
    ------
    InstallError, ConfigurationFilesError
        Raised before anything was changed, but for Debian packages that were added.
    """
    check_before(prefix, orthanc_config, wheels)
    added = add_debian_packages()
    # The package of the Python plugin has put its own file into the configuration.
    text = configure(read_configuration_files(orthanc_config), prefix)
    put_program(prefix, wheels, added, text)
    apply_configuration(orthanc_config, prefix, text)
    print(f"Installed in {prefix}; {orthanc_config / CONFIGURATION} is yours to change, upgrades keep it.")


def check_before(prefix: Path, orthanc_config: Path, wheels: Path | None) -> None:
    """Whether it can work at all.

    Raises
    ------
    InstallError, ConfigurationFilesError
    """
    if shutil.which("dpkg-query") is None:
        raise InstallError("This is no Debian: put the folders plugin and models in place as docs/install.md says.")
    if orthanc_program() is None:
        raise InstallError("There is no Orthanc here to install into: apt-get install orthanc, or try make demo.")
    if wheels is not None and not wheels.is_dir():
        raise InstallError(f"There is no folder {wheels} of wheels; docs/install.md says how to make one.")
    for folder in (prefix, *_beside(prefix)):
        # It will be replaced as a whole.
        if folder.exists() and any(folder.iterdir()) and not (folder / RECORD).exists():
            raise InstallError(f"{folder} holds what is not ours and would be removed; choose another PREFIX=.")
    files = read_configuration_files(orthanc_config)
    if not orthanc_config.is_dir():
        raise InstallError(f"{orthanc_config} is no folder; put the keys of docs/install.md into that file by hand.")
    parent = next(folder for folder in prefix.resolve().parents if folder.exists())
    for folder in (parent, orthanc_config):
        if not os.access(folder, os.W_OK):
            raise InstallError(f"{folder} cannot be written; run this as root.")
    if (free := shutil.disk_usage(parent).free) < NEEDED_BYTES:
        raise InstallError(
            f"{parent} has {free / 1e6:.0f} MB free; installing takes up to {NEEDED_BYTES / 1e6:.0f} MB for a while."
        )
    configure(files, prefix)
    print(f"{orthanc_config} can be read, and {len(files.values)} keys of it overlap nowhere.")


def configure(files: ConfigurationFiles, prefix: Path) -> str:
    """The text of our configuration file.

    Raises
    ------
    InstallError
        Raised if Orthanc, which loads one Python script, already loads another.
    """
    ours = files.path / CONFIGURATION
    script = prefix / "plugin/covid.py"
    current = files.values.get("PythonScript")
    if ours.exists():
        if current != str(script):
            raise InstallError(
                f'{ours} loads {current}, and the program would be in {prefix}. Install with PREFIX="<where it is>", '
                "or make uninstall first."
            )
        return ours.read_text(**AS_IT_IS)
    kept = ours.with_name(ours.name + KEPT)
    if kept.exists() and str(script) in (text := kept.read_text(**AS_IT_IS)):
        return text
    others = {}
    if current is not None:
        origin = files.origins["PythonScript"]
        if Path(str(current)).name != SAMPLE:
            raise InstallError(
                f'Orthanc loads one Python script, and {origin} already names {current}. Remove "PythonScript" there, '
                "or load both scripts from one of your own."
            )
        if not is_about_python(origin):
            raise InstallError(
                f'{origin} names the sample script {current} among other things. Remove "PythonScript" there.'
            )
        others = read_json_with_comments(origin)
    document = {
        "PythonScript": str(script),
        # Lets other requests go on during long calls of the plugin; known from Python plugin 4.3 on, ignored before.
        **({} if "Python" in files.values and "Python" not in others else {"Python": {"AllowThreads": True}}),
        **{key: value for key, value in others.items() if key != "PythonScript"},
        **({} if "CovidCt" in files.values else {"CovidCt": {}}),
    }
    return f"""// COVID-19 chest-CT analysis, for research and teaching only. Yours to change, upgrades keep it.
// docs/configuration.md explains the keys of CovidCt.
{json.dumps(document, indent=2)}
"""


def is_about_python(file: Path) -> bool:
    """Whether a configuration file holds nothing but the settings of Orthanc's Python plugin."""
    return set(read_json_with_comments(file)) <= PYTHON_KEYS


def add_debian_packages() -> list[str]:
    """Install the packages that are missing; their names."""
    before = [name for name in DEBIAN_PACKAGES if not is_installed(name)]
    subprocess.run([REPOSITORY / "tools/debian-packages.sh", *DEBIAN_PACKAGES], check=True)
    return before


def is_installed(package: str) -> bool:
    """Whether dpkg has a package installed."""
    query = ["dpkg-query", "-W", "-f", "${Status}", package]
    return "ok installed" in subprocess.run(query, capture_output=True, text=True, check=False).stdout


def put_program(prefix: Path, wheels: Path | None, added: list[str], text: str) -> None:
    """Put program, models and Python packages in place, in one step.

    A running Orthanc goes on with the files that it has open; nothing is ever half replaced.
    """
    os.umask(0o022)
    new, old = _beside(prefix)
    for rest in (new, old):
        shutil.rmtree(rest, ignore_errors=True)
    record = read_record(prefix)
    new.mkdir(parents=True)
    # First of all, so that an installation that is interrupted is known for ours.
    (new / RECORD).write_text("{}\n", encoding="utf-8")
    skipped = shutil.ignore_patterns("__pycache__", "training")
    for name in ("plugin", "models"):
        shutil.copytree(REPOSITORY / name, new / name, ignore=skipped, copy_function=shutil.copyfile)
    shutil.copyfile(REPOSITORY / "LICENSE", new / "LICENSE")
    for path in new.rglob("*"):
        if path.is_dir():
            # A copied folder has the mode of its source, which may be for root's eyes only.
            path.chmod(0o755)
    record = {"debian_packages": sorted({*record.get("debian_packages", []), *added})} | {
        "configuration": record.get("configuration", text)
    }
    (new / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    add_python_packages(new / ".venv", wheels)
    compileall.compile_dir(new / "plugin", quiet=1, stripdir=str(new), prependdir=str(prefix))
    if list(prefix.glob(".venv/lib/python*/site-packages/onnxruntime_gpu-*")):
        print("ONNX Runtime for GPUs was there; put it in place again by the two lines of docs/install.md.")
    if prefix.exists():
        prefix.rename(old)
    new.rename(prefix)
    shutil.rmtree(old, ignore_errors=True)


def _beside(prefix: Path) -> tuple[Path, Path]:
    """Where a new program is put together, and where the one before it waits to be removed."""
    return prefix.with_name(f"{prefix.name}.new"), prefix.with_name(f"{prefix.name}.old")


def add_python_packages(environment: Path, wheels: Path | None) -> None:
    """Install the pinned Python packages into a folder of ours, from PyPI or from a folder of wheels."""
    print("Installing Python packages; nothing outside that folder changes.", flush=True)
    subprocess.run(["/usr/bin/python3", "-m", "venv", environment], check=True)
    pip = [environment / "bin/python", "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    source = ["--no-index", "--find-links", wheels] if wheels else []
    subprocess.run([*pip, *source, "-r", REPOSITORY / "requirements.txt"], check=True)
    subprocess.run([*pip, *source, "--no-deps", "-r", REPOSITORY / "requirements-no-deps.txt"], check=True)
    # All but the interpreter name the folder that this one was made in.
    for script in (environment / "bin").iterdir():
        if not script.name.startswith("python"):
            script.unlink()


def read_record(prefix: Path) -> dict[str, object]:
    """What an earlier installation noted; nothing where there was none."""
    record = prefix / RECORD
    return json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}


def apply_configuration(orthanc_config: Path, prefix: Path, text: str) -> None:
    """Put our file in place, and the one that names the sample script aside."""
    ours = orthanc_config / CONFIGURATION
    if ours.exists():
        return
    for file in sorted(orthanc_config.glob("*.json")):
        if "PythonScript" in read_json_with_comments(file):
            file.rename(file.with_name(file.name + SET_ASIDE))
            print(f"{file} is set aside as {file.name}{SET_ASIDE}: Orthanc loads one Python script.")
    ours.write_text(text, **AS_IT_IS)
    ours.with_name(ours.name + KEPT).unlink(missing_ok=True)


def uninstall(prefix: Path, orthanc_config: Path) -> None:
    """Leave Orthanc as it was; images, results and the plugin's jobs stay where they are.

    Raises
    ------
    InstallError
        Raised if nothing is installed there.
    """
    record = read_record(prefix)
    if not record:
        raise InstallError(f"{prefix} holds no installation of this plugin; PREFIX= says where it is.")
    ours = orthanc_config / CONFIGURATION
    if ours.exists() and ours.read_text(**AS_IT_IS) != record["configuration"]:
        ours.rename(ours.with_name(ours.name + KEPT))
        print(f"{ours} was changed since; it is kept as {ours.name}{KEPT} for a later installation.")
    else:
        ours.unlink(missing_ok=True)
    for file in sorted(orthanc_config.glob(f"*{SET_ASIDE}")):
        file.rename(file.with_name(file.name.removesuffix(SET_ASIDE)))
    shutil.rmtree(prefix)
    print(
        f"{prefix} is removed, and {orthanc_config} is as it was. Images, results and the folder of jobs in Orthanc's "
        "storage (StateFolder, by default covid-ct) are kept; a later installation goes on with them."
    )
    if record["debian_packages"]:
        print(f"Debian packages that came with it: apt-get purge {' '.join(record['debian_packages'])}")


def restart(orthanc_config: Path) -> None:
    """Restart Debian's service where systemd runs it; otherwise say that somebody has to."""
    service = orthanc_config == ORTHANC_CONFIG and Path("/run/systemd/system").exists()
    if not service or subprocess.run(["systemctl", "is-active", "--quiet", "orthanc"], check=False).returncode:
        print("Orthanc's service does not run here; what was changed holds from its next start on.")
        return
    print("Restarting Orthanc's service", flush=True)
    subprocess.run(["systemctl", "restart", "orthanc"], check=True, timeout=RESTART_TIMEOUT_S)
    # The service counts as started before Orthanc answers.
    time.sleep(5)


def main() -> int:
    """Command line; exit status 1 with a sentence where it cannot be done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("install", "uninstall"))
    parser.add_argument("--prefix", type=Path, default=PREFIX, help="folder for the program")
    parser.add_argument("--orthanc-config", type=Path, default=ORTHANC_CONFIG, help="Orthanc's configuration folder")
    parser.add_argument("--wheels", type=Path, help="folder of wheels, for a machine without internet")
    arguments = parser.parse_args()
    # Orthanc is started from other folders.
    prefix, orthanc_config = arguments.prefix.absolute(), arguments.orthanc_config.absolute()
    try:
        if arguments.action == "install":
            install(prefix, orthanc_config, arguments.wheels)
        else:
            uninstall(prefix, orthanc_config)
        restart(orthanc_config)
    except (InstallError, ConfigurationFilesError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except subprocess.SubprocessError as error:
        print(f"This failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
