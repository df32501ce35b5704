"""Tell what is missing or wrong in an installation, in sentences; exit status 1 if anything is wrong.

Whatever the plugin itself checks at its start is checked by its own code, from the folder in which it is installed.
"""

import argparse
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tools.installation import MAX_PORT, Installation, is_port, version
from tools.orthanc_configuration import ConfigurationFilesError, read_configuration_files
from tools.ports import is_free

ORTHANC_CONFIG = Path("/etc/orthanc")

OLDEST_ORTHANC = (1, 10, 1)
"""The oldest Orthanc that the tests run on."""

ALLOWS_THREADS = (4, 3)
"""First version of Orthanc's Python plugin that knows Python.AllowThreads."""

NEEDED_BYTES = 1_000_000_000
"""Room that the state folder should have: the results of some analyses wait there when Orthanc cannot store them."""


class Finding(NamedTuple):
    """What a check found."""

    state: str
    """fine, note (works, but somebody should know) or wrong."""

    sentence: str


def fine(sentence: str) -> Finding:
    """All is well."""
    return Finding("fine", sentence)


def note(sentence: str) -> Finding:
    """Works, but somebody should know."""
    return Finding("note", sentence)


def wrong(sentence: str) -> Finding:
    """Has to be put right."""
    return Finding("wrong", sentence)


def examine(orthanc_config: Path) -> Iterator[Finding]:
    """All findings, as they come; nothing is checked that hangs on what is missing."""
    try:
        files = read_configuration_files(orthanc_config)
    except ConfigurationFilesError as error:
        yield wrong(str(error))
        return
    yield fine(f"{orthanc_config} can be read, and no key stands in two files.")
    installation = Installation(files)
    yield check_orthanc(installation)
    yield check_python_plugin(installation)
    yield from check_safety(files.values)
    yield from check_running(installation)
    if (finding := check_script(installation)).state == "wrong":
        yield finding
        return
    yield finding
    yield from check_product(installation)


def check_orthanc(installation: Installation) -> Finding:
    """Program and version."""
    found = installation.orthanc_version
    if not found:
        return wrong("The program Orthanc is not installed: apt-get install orthanc.")
    if version(found) < OLDEST_ORTHANC:
        oldest = ".".join(map(str, OLDEST_ORTHANC))
        return wrong(f"Orthanc is {found}; this plugin was tried on {oldest} and later.")
    return fine(f"Orthanc is {found}.")


def check_python_plugin(installation: Installation) -> Finding:
    """Orthanc's Python plugin, and its threads."""
    if installation.python_plugin is None:
        return wrong(
            'Orthanc\'s Python plugin is missing: apt-get install orthanc-python, and have "Plugins" name its folder, '
            "/usr/share/orthanc/plugins/."
        )
    found = installation.python_plugin_version
    text = ".".join(map(str, found)) or "of unknown version"
    python = installation.files.values.get("Python", {})
    allows = isinstance(python, dict) and python.get("AllowThreads") is True
    if found >= ALLOWS_THREADS and not allows:
        return wrong(
            f'Orthanc\'s Python plugin is {text}: set "Python": {{"AllowThreads": true}}, or Orthanc stands still '
            "while this plugin reads or stores images."
        )
    return fine(f"Orthanc's Python plugin is {text}, with Python {installation.python_version}.")


def check_safety(values: dict[str, Any]) -> Iterator[Finding]:
    """Settings that open Orthanc to anybody, or keep COVIDAET from being called."""
    if values.get("RemoteAccessAllowed") is True:
        if values.get("AuthenticationEnabled") is False:
            yield wrong(
                "RemoteAccessAllowed is true and AuthenticationEnabled false: whoever reaches the HTTP port sees and "
                "deletes all images. Set AuthenticationEnabled to true and name RegisteredUsers."
            )
        elif not values.get("RegisteredUsers"):
            yield wrong(
                "RemoteAccessAllowed is true and RegisteredUsers names nobody: older versions of Orthanc then let in "
                'the user "orthanc" with that password. Name users of your own.'
            )
    if values.get("DicomAlwaysAllowStore", True):
        yield note(
            "Orthanc takes images from any DICOM node that reaches its port, which is its default. Set "
            "DicomAlwaysAllowStore to false, DicomCheckModalityHost to true and name the nodes in DicomModalities."
        )
    if values.get("DicomCheckCalledAet") is True:
        yield wrong(
            "DicomCheckCalledAet is true: no node can ask for an analysis by calling the AE titles of CovidCt. Set it "
            "to false."
        )


def check_running(installation: Installation) -> Iterator[Finding]:
    """The running Orthanc and what it says of this plugin; or whether its ports are free for it."""
    values = installation.files.values
    ports = {key: values.get(key, usual) for key, usual in (("HttpPort", 8042), ("DicomPort", 4242))}
    if none := [f"{key} {port!r}" for key, port in ports.items() if not is_port(port)]:
        yield wrong(f"{' and '.join(none)} is no port; ports go from 1 to {MAX_PORT}.")
        return
    if installation.crashes_by_https:
        yield wrong(
            "SslEnabled is true: Debian's Orthanc then ends by SIGSEGV at the first request, so it was not asked. Set "
            "it to false, and put a reverse proxy with HTTPS in front, on this machine."
        )
        return
    if installation.system is None:
        answer = installation.ask("/system")
        if answer in (401, 403):
            yield note("Orthanc runs and asks for credentials that its configuration does not name; it was not asked.")
            return
        yield note("Orthanc does not run, or not with HTTP on this machine; start it and ask again.")
        for key, port in ports.items():
            if not is_free(port):
                yield wrong(f"{key} {port} is used by another program: stop that, or choose another port.")
        return
    yield fine(f"Orthanc {installation.system['Version']} runs and answers.")
    status = installation.ask("/covid/status")
    if not isinstance(status, dict):
        yield wrong(
            "The running Orthanc has not loaded this plugin: restart it; if that does not help, its log says why."
        )
    elif status["Analysis"] != "on":
        yield wrong(f"Analysis is off in the running Orthanc: {status['Problem']}")
    else:
        yield fine(f"covid-ct {status['Version']} is ready in it.")
        for warning in status["ProviderWarnings"]:
            yield note(warning)
        for delivery in status["FailingDeliveries"]:
            yield note(f"Results have not arrived at {delivery['Destination']} yet: {delivery['Error']}")


def check_script(installation: Installation) -> Finding:
    """The script that Orthanc loads, and the Python packages that it needs."""
    script, packages = installation.script, installation.packages
    if script is None or packages is None:
        return wrong('No "PythonScript" is configured, so that Orthanc does not load this plugin: make install.')
    if not (script.parent / "covid_ct").is_dir():
        origin = installation.files.origins["PythonScript"]
        return wrong(f"{origin} has Orthanc load {script}, which is not this plugin's covid.py.")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if installation.python_version not in ("", here):
        return wrong(
            f"Orthanc's Python plugin embeds Python {installation.python_version} and this check runs on {here}: run "
            f"it as python{installation.python_version} -m tools.doctor."
        )
    sys.path.insert(0, str(script.parent))
    site.addsitedir(str(packages))
    try:
        import covid_ct.server.application  # noqa: F401
    except ImportError as error:
        return wrong(f"A Python package is missing or broken: {error}. They belong in {packages}; make install.")
    return fine(f"Orthanc loads {script}, and its Python packages are complete.")


def check_product(installation: Installation) -> Iterator[Finding]:
    """Keys, models and GPU, by the plugin's own code."""
    import onnxruntime

    from covid_ct.analysis.analyzer import Analyzer
    from covid_ct.errors import CovidCtError
    from covid_ct.inference.providers import CPU, TENSORRT
    from covid_ct.server.configuration import PROVIDERS, configuration_folder, read_configuration

    values = installation.files.values
    try:
        configuration = read_configuration(values, configuration_folder(installation.files.path))
    except CovidCtError as error:
        yield wrong(str(error))
        return
    yield fine("CovidCt has no unknown key and no wrong value.")
    yield from check_destinations(installation, configuration.destinations)
    yield from check_folder(installation, configuration.state_folder)
    available = onnxruntime.get_available_providers()
    for name, provider in PROVIDERS.items():
        if provider in configuration.providers and provider not in available:
            yield wrong(f"CovidCt.Providers asks for {name}, which the installed ONNX Runtime was built without.")
    try:
        # Building TensorRT's engines takes minutes and is the server's work.
        wanted = tuple(one for one in configuration.providers if one in available and one != TENSORRT) or (CPU,)
        analyzer = Analyzer(configuration.models_folder, wanted, configuration.threads, gpu=configuration.gpu)
    except (CovidCtError, OSError) as error:
        yield wrong(str(error))
        return
    for model in analyzer.identities:
        yield fine(
            f"Model for {model.role}: {model.name} {model.version} has its sha256, and runs on {model.provider}."
        )
    for warning in analyzer.warnings:
        yield wrong(warning)


def check_destinations(installation: Installation, destinations: Sequence[str]) -> Iterator[Finding]:
    """Whether Orthanc knows the DICOM nodes that get the results."""
    values = installation.files.values
    if not values.get("DicomModalitiesInDatabase", False):
        nodes, where = values.get("DicomModalities", {}), "DicomModalities"
    else:
        nodes, where = installation.ask("/modalities"), "the running Orthanc's database"
    for name in destinations:
        if not isinstance(nodes, dict | list):
            yield note(f'Only a running Orthanc can tell whether its database has "{name}" of CovidCt.Destinations.')
        elif name not in nodes:
            yield wrong(f'CovidCt.Destinations names "{name}", which {where} does not have.')


def check_folder(installation: Installation, folder: Path) -> Iterator[Finding]:
    """Whether the one who runs Orthanc may write the state folder, and has room there."""
    existing = folder if folder.exists() else next(parent for parent in folder.parents if parent.exists())
    storage = installation.files.resolve(str(installation.files.values.get("StorageDirectory", "OrthancStorage")))
    # Orthanc's storage belongs to whoever runs it.
    owner = storage if storage.exists() else next(parent for parent in storage.parents if parent.exists())
    user = owner.stat().st_uid
    try:
        asked = subprocess.run(["/usr/bin/test", "-w", existing, "-a", "-x", existing], user=user, check=False)
    except PermissionError:
        yield note(f"Only root can tell whether Orthanc's user may write {folder}.")
    else:
        if asked.returncode:
            yield wrong(f"{existing} cannot be written by user {owner.owner()}, who runs Orthanc; jobs are kept there.")
    free = shutil.disk_usage(existing).free
    if free < NEEDED_BYTES:
        yield wrong(f"{existing} has {free / 1e6:.0f} MB free; {NEEDED_BYTES / 1e6:.0f} MB should be.")
    else:
        yield fine(f"Jobs are kept in {folder}, with {free / 1e9:.0f} GB free.")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--orthanc-config", type=Path, default=ORTHANC_CONFIG, help="Orthanc's configuration: a folder or a file"
    )
    counts = {"fine": 0, "note": 0, "wrong": 0}
    for finding in examine(parser.parse_args().orthanc_config):
        counts[finding.state] += 1
        print(f"{finding.state:6}{finding.sentence}", flush=True)
    print(f"{counts['wrong']} wrong, {counts['note']} to know, {counts['fine']} fine.")
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
