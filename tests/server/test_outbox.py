import errno
import os
from pathlib import Path

import pytest

from covid_ct.server.jobs import State
from covid_ct.server.outbox import Outbox


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "outbox")


def test_results_appear_whole_or_not_at_all(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        assert not outbox.of("j1").exists()
        raise OSError(errno.ENOSPC, "the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(OSError, match="full"):
            outbox.put("j1", b"an archive")
    assert list(outbox.folder.iterdir()) == []
    outbox.put("j1", b"an archive")
    assert outbox.of("j1").read_bytes() == b"an archive"
    outbox.empty("j1")
    outbox.empty("j1")
    assert list(outbox.folder.iterdir()) == []


def test_an_orthanc_that_was_thought_dead_does_not_disturb_the_one_that_took_over(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both write the same archive into the same folder."""
    sync, others = os.fsync, ["the other"]

    def meanwhile(descriptor: int) -> None:
        if others:
            others.pop()
            outbox.put("j1", b"an archive")
        sync(descriptor)

    monkeypatch.setattr("os.fsync", meanwhile)
    outbox.put("j1", b"an archive")
    assert [path.read_bytes() for path in outbox.folder.iterdir()] == [b"an archive"]


def test_tidying_keeps_what_is_still_to_be_stored(outbox: Outbox) -> None:
    outbox.folder.mkdir()
    for name in (
        "waiting.zip",
        "done.zip",
        "failed.zip",
        "unknown.zip",
        "half.0a.unfinished",
        "elsewhere.0b.unfinished",
    ):
        (outbox.folder / name).touch()
    (outbox.folder / "waiting").mkdir()
    (outbox.folder / "waiting" / "of an earlier version.dcm").touch()
    states = {"waiting": State.PENDING, "done": State.SUCCESS, "failed": State.FAILURE, "half": State.RETRY}
    outbox.tidy({**states, "elsewhere": State.RUNNING}.get)
    assert {path.name for path in outbox.folder.iterdir()} == {"waiting.zip", "elsewhere.0b.unfinished"}
