"""TCP ports that nothing listens on."""

import socket

_reservations: dict[int, socket.socket] = {}
"""Ports given out in this process, each with what keeps other processes' `free_port` off it."""


def is_free(port: int) -> bool:
    """Whether nothing listens on a TCP port."""
    with socket.socket() as candidate:
        return _bind(candidate, port)


def free_port(wanted: int = 0) -> int:
    """A free TCP port: the wanted one, or where that is taken (or 0) any.

    It stays this process's: between the choice of a port and its use another `free_port`, such as that of a test beside
    this one, would find it free too, and a client would then talk to the other's server.
    """
    for port in (wanted, *[0] * 100):
        with socket.socket() as candidate:
            if not _bind(candidate, port):
                continue
            number = int(candidate.getsockname()[1])
            if (port and number in _reservations) or _reserve(number):
                return number
    raise OSError("There is no free port.")


def _bind(candidate: socket.socket, port: int) -> bool:
    candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        candidate.bind(("0.0.0.0", port))  # noqa: S104 - Orthanc binds all interfaces too
    except OSError:
        return False
    return True


def _reserve(port: int) -> bool:
    # A name of Linux's abstract namespace: it has one holder, and ends with the process, however that ends.
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0covid-ct-port-{port}")
    except OSError:
        name.close()
        return False
    _reservations[port] = name
    return True
