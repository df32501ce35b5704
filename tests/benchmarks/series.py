"""The series that are measured: the phantom with more or fewer slices, and copies of it."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import generate_uid

from covid_ct.parallel import cores
from covid_ct.phantom import PhantomOptions, make_phantom, write_folder
from tests.benchmarks.report import BUILD

LENGTH_MM = 300.0
"""Extent of a chest; more slices lie closer together."""


def phantom_series(slices: int, matrix: int = 512) -> list[Path]:
    """The phantom's files, made where they are not there yet."""
    folder = BUILD / f"series/{slices}x{matrix}"
    if not (folder / "complete").exists():
        spacing = max(0.3, LENGTH_MM / slices)
        write_folder(make_phantom(PhantomOptions(slices=slices, spacing_mm=spacing, matrix=matrix)), folder)
        (folder / "complete").touch()
    return sorted(folder.glob("*.dcm"))


def jpeg_lossless(files: list[Path]) -> list[Path]:
    """The same series as JPEG Lossless, compressed by DCMTK."""
    folder = files[0].parent.with_name(files[0].parent.name + "-jpeg")
    folder.mkdir(exist_ok=True)

    def compress(path: Path) -> None:
        if not (folder / path.name).exists():
            subprocess.run(["dcmcjpeg", "+e1", str(path), str(folder / path.name)], check=True)

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(compress, files))
    return [folder / path.name for path in files]


def renamed(files: list[Path], name: str) -> list[bytes]:
    """The same images as another series of another study."""
    first = dcmread(files[0], stop_before_pixels=True)
    shared = [str(first[keyword].value) for keyword in ("StudyInstanceUID", "SeriesInstanceUID")]
    contents = []
    for path in files:
        content = path.read_bytes()
        image = str(dcmread(path, specific_tags=["SOPInstanceUID"], stop_before_pixels=True).SOPInstanceUID)
        for uid in (*shared, image):
            content = content.replace(uid.encode(), _same_length(uid, name))
        contents.append(content)
    return contents


def _same_length(uid: str, name: str) -> bytes:
    """Another identifier of the same length, so that the files can be changed in place."""
    fresh = str(generate_uid(entropy_srcs=[uid, name])).encode()
    return (fresh + b"1" * len(uid))[: len(uid)]
