import contextlib
import errno
from pathlib import Path
from zipfile import ZipFile

import pytest

from covid_ct.server.jobs import State
from covid_ct.server.outbox import Outbox


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "outbox")


def test_results_appear_whole_or_not_at_all(outbox: Outbox) -> None:
    with contextlib.suppress(OSError), outbox.filling("j1") as archive:
        archive.writestr("a.dcm", b"a")
        raise OSError(errno.ENOSPC, "the disk is full")
    assert list(outbox.folder.iterdir()) == []
    with outbox.filling("j1") as archive:
        archive.writestr("a.dcm", b"a")
        assert not outbox.of("j1").exists()
    with ZipFile(outbox.of("j1")) as archive:
        assert archive.namelist() == ["a.dcm"]
        assert archive.read("a.dcm") == b"a"
    outbox.empty("j1")
    outbox.empty("j1")
    assert list(outbox.folder.iterdir()) == []


def test_what_an_attempt_left_half_written_does_not_disturb_the_next(outbox: Outbox) -> None:
    outbox.folder.mkdir()
    (outbox.folder / "j1.unfinished").write_bytes(b"half an archive")
    with outbox.filling("j1") as archive:
        archive.writestr("b.dcm", b"b")
    with ZipFile(outbox.of("j1")) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["b.dcm"]


def test_tidying_keeps_what_is_still_to_be_stored(outbox: Outbox) -> None:
    outbox.folder.mkdir()
    for name in ("waiting.zip", "done.zip", "unknown.zip", "half.unfinished", "elsewhere.unfinished"):
        (outbox.folder / name).touch()
    (outbox.folder / "waiting").mkdir()
    (outbox.folder / "waiting" / "of an earlier version.dcm").touch()
    outbox.tidy({"waiting": State.PENDING, "done": State.SUCCESS, "half": State.RETRY, "elsewhere": State.RUNNING}.get)
    assert {path.name for path in outbox.folder.iterdir()} == {"waiting.zip", "elsewhere.unfinished"}
