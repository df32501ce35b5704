"""The table of faults tried. It is here since a run in several processes reads no other conftest where it ends."""

import pytest

from tests.orthanc.faults import PROPERTY, write_faults


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for report in terminalreporter.getreports("passed") if report.when == "call"]
    tried = dict(value for report in reports for name, value in report.user_properties if name == PROPERTY)
    if tried:
        write_faults(tried)
        terminalreporter.section("faults tried")
        for fault, outcome in tried.items():
            terminalreporter.write_line(f"{fault}: {outcome}")
