"""Series as they come to a real Orthanc: compressed, growing, beside others that cannot be analysed."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import JPEG2000Lossless

from tests.orthanc.driving import ORTHANC_ROOT, upload, wait_for_job, wait_for_jobs
from tests.orthanc.series import coarse, encode, renamed, upload_images
from tools.orthanc_server import OrthancServer


@pytest.fixture(scope="module")
def images(small_files: list[Path]) -> list[Dataset]:
    return coarse(small_files)


@pytest.fixture
def node(tmp_path: Path, tiny_models: Path) -> Iterator[OrthancServer]:
    """A server that analyses what comes, in no time."""
    # Longer than any pause between two images on a busy machine: a series in parts would be another job.
    changes = {"StableAge": 3, "CovidCt": {"ModelsFolder": str(tiny_models)}}
    with OrthancServer(tmp_path / "node", changes=changes, root=ORTHANC_ROOT) as started:
        yield started


def localizer(images: list[Dataset]) -> list[Dataset]:
    spoilt = renamed(images, "localizer")
    for image in spoilt:
        image.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    return spoilt


def test_compressed_images(node: OrthancServer, images: list[Dataset], tmp_path: Path) -> None:
    """JPEG Lossless, made by DCMTK, and JPEG 2000, which Debian's Orthanc cannot decode: the findings of the images."""
    compressed = []
    for number, image in enumerate(renamed(images, "compressed")):
        plain, lossless = tmp_path / f"{number}.dcm", tmp_path / f"{number}-jpeg.dcm"
        plain.write_bytes(encode(image))
        subprocess.run(["dcmcjpeg", "+e1", plain, lossless], check=True)
        compressed.append(lossless)
    wavelets = renamed(images, "wavelets")
    for image in wavelets:
        image.compress(JPEG2000Lossless, generate_instance_uid=False)
    series = [
        upload_images(node, renamed(images, "plain")),
        upload(node, compressed),
        upload_images(node, wavelets),
    ]
    findings = {job["Content"]["Series"]: job["Content"]["Findings"] for job in wait_for_jobs(node, 3)}
    assert findings[series[0]]["lesion_volume_ml"]["total"] > 0
    assert findings[series[0]] == findings[series[1]] == findings[series[2]]


def test_a_grown_series_is_analysed_anew_and_earlier_results_stay(node: OrthancServer, images: list[Dataset]) -> None:
    grown = renamed(images, "grown")
    series = upload_images(node, grown[:-2])
    (first,) = wait_for_jobs(node, 1)
    earlier = set(node.get("/instances"))
    upload_images(node, grown[-2:])
    jobs = {job["ID"]: job for job in wait_for_jobs(node, 2)}
    assert len(jobs) == 2
    assert {(job["State"], job["Content"]["Series"]) for job in jobs.values()} == {("Success", series)}
    assert jobs[first["ID"]]["Content"]["Results"] == first["Content"]["Results"]
    assert earlier < set(node.get("/instances"))


def test_what_cannot_be_analysed_makes_no_job_unasked(node: OrthancServer, images: list[Dataset]) -> None:
    upload_images(node, localizer(images))
    gap = renamed(images, "gap")
    upload_images(node, [*gap[:9], *gap[10:]])
    good = upload_images(node, renamed(images, "good"))
    (job,) = wait_for_jobs(node, 1)
    assert (job["State"], job["Content"]["Series"]) == ("Success", good)
    # Its own results have become stable by the time that another series has been analysed.
    another = upload_images(node, renamed(images, "another"))
    assert {job["Content"]["Series"] for job in wait_for_jobs(node, 2)} == {good, another}


def test_a_study_makes_a_job_for_each_series_that_may_be_analysed(node: OrthancServer, images: list[Dataset]) -> None:
    several = [renamed(images, "one"), renamed(images, "two"), localizer(images)]
    for one in several:
        for image in one:
            image.StudyInstanceUID = several[0][0].StudyInstanceUID
    series = [upload_images(node, one) for one in several]
    study = node.get(f"/series/{series[0]}")["ParentStudy"]
    asked = node.post("/covid/analyze", {"Study": study})
    jobs = [wait_for_job(node, one["ID"]) for one in asked]
    assert sorted(job["Content"]["Series"] for job in jobs) == sorted(series[:2])
    assert {job["State"] for job in jobs} == {"Success"}


def test_a_series_that_was_deleted_and_sent_again_gets_its_findings_back(
    node: OrthancServer, images: list[Dataset]
) -> None:
    again = renamed(images, "again")
    series = upload_images(node, again)
    (job,) = wait_for_jobs(node, 1)
    findings = node.get(f"/covid/series/{series}")
    results = sorted(node.get("/instances"))
    node.request("DELETE", f"/series/{series}")
    upload_images(node, again)
    assert node.post("/covid/analyze", {"Series": series})["ID"] == job["ID"]
    wait_for_job(node, job["ID"])
    assert node.get(f"/covid/series/{series}") == findings
    assert sorted(node.get("/instances")) == results


IDENTITIES = {
    "as the standard wants it": ("ISO_IR 100", "Müller^J".encode("latin-1"), b"4711"),
    "several character sets": ("\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", b"JP1"),
    "an ID with blanks before it": ("ISO_IR 100", b"A^B", b"    12345"),
    "an ID with a backslash": ("ISO_IR 100", b"A^B", b"12 \\ 34"),
    "an ID with control characters": ("ISO_IR 100", b"A^B", b"12\t3\x7f"),
    "no character set": (None, "Иванов^Пётр".encode("cp1251"), "ИВ12".encode("cp1251")),
    "another character set than it says": ("ISO_IR 192", "Müller^J".encode("latin-1"), "Ü12".encode("latin-1")),
    "a character set that nobody knows": ("WINDOWS-1252", "Müller^J".encode("latin-1"), "Ü13".encode("latin-1")),
}


def named(images: list[Dataset], character_set: str | None, name: bytes, patient_id: bytes) -> list[Dataset]:
    """The same images as of somebody whose name and ID are these bytes."""
    new = renamed(images, (character_set, name, patient_id))
    for image in new:
        del image.SpecificCharacterSet
        if character_set is not None:
            image.SpecificCharacterSet = character_set
        for keyword, vr, value in (("PatientName", "PN", name), ("PatientID", "LO", patient_id)):
            padded = value + b" " * (len(value) % 2)
            image[keyword] = RawDataElement(Tag(keyword), vr, len(padded), padded, 0, False, True)
        named_so = image.get("SpecificCharacterSet")
        image.set_original_encoding(False, True, convert_encodings(named_so) if named_so else default_encoding)
    return new


def test_results_lie_where_orthanc_put_their_source(
    start: Callable[..., OrthancServer], images: list[Dataset], tiny_models: Path
) -> None:
    """In the same patient and study, by the same name, whatever Orthanc makes of the bytes."""
    server = start(DefaultEncoding="Windows1251", CovidCt={"ModelsFolder": str(tiny_models)})

    def owners(instance: str) -> dict[str, Any]:
        levels = {level: server.get(f"/instances/{instance}/{level}") for level in ("patient", "study")}
        return {level: (found["ID"], found["MainDicomTags"]) for level, found in levels.items()}

    for what, identity in IDENTITIES.items():
        series = upload_images(server, named(images, *identity))
        source = server.get(f"/series/{series}")["Instances"][0]
        job = wait_for_job(server, server.post("/covid/analyze", {"Series": series})["ID"])
        assert job["State"] == "Success", (what, job)
        assert len(job["Content"]["Results"]) > 4
        for result in job["Content"]["Results"]:
            assert owners(result["ID"]) == owners(source), (what, result)
