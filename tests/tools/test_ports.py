"""Ports of servers that run side by side, as those of the tests do."""

import subprocess
import sys

from tools.orthanc_server import REPOSITORY
from tools.ports import free_port, is_free

HOLDER = "import sys; from tools.ports import free_port; print(free_port(int(sys.argv[1])), flush=True); input()"


def test_no_port_is_given_out_twice_though_nothing_listens_yet() -> None:
    ours = {free_port() for _ in range(50)}
    assert len(ours) == 50
    assert all(is_free(port) for port in ours)


def test_a_port_that_another_process_was_given_is_left_to_it_until_it_ends() -> None:
    command = [sys.executable, "-c", HOLDER, "0"]
    with subprocess.Popen(command, cwd=REPOSITORY, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        theirs = int(process.stdout.readline())
        assert is_free(theirs)
        assert free_port(theirs) != theirs
        process.kill()
        process.wait()
    assert free_port(theirs) == theirs


def test_a_port_of_this_process_can_be_asked_for_by_its_number() -> None:
    port = free_port()
    assert free_port(port) == port
