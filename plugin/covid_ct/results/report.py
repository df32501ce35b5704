"""The report for people: one page as PDF."""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime
from io import BytesIO
from typing import cast

from fpdf import FPDF
from fpdf.enums import MethodReturnValue

from covid_ct import RESEARCH_USE_ONLY, __version__, identity
from covid_ct.analysis.findings import Findings
from covid_ct.results import wording
from covid_ct.results.fonts import ReportFonts
from covid_ct.results.pictures import LUNG_COLOR, Plane, StandardView, as_jpeg, picture_of
from covid_ct.results.source import content_date_time
from covid_ct.results.terms import STRUCTURES_OF_LESIONS
from covid_ct.series.volume import Volume

TITLE = "Chest CT: COVID-19 analysis"

_PAGE_WIDTH, _PAGE_HEIGHT, _MARGIN = 210.0, 297.0, 14.0
_WIDTH = _PAGE_WIDTH - 2 * _MARGIN
_INK, _QUIET, _RULE, _PANEL = (28, 38, 48), (98, 110, 122), (208, 214, 220), (241, 244, 247)
_PIXELS_PER_MM = 9.0
"""Pixels of a picture for each mm of paper, about 230 dpi."""
_JPEG_QUALITY = 88
_GAP = 3.0
_HEADER_WIDTHS = (56.0, 38.0, 37.0, 23.0, 28.0)
_NAME_LINE = 4.4
"""Height of a line of a name or an identifier that takes several."""
_NAME_SIZE, _SMALLEST_NAME = 9.5, 8.0
"""Sizes of names and identifiers; what is too wide for a line even in the smaller one takes several."""
_MOST_LINES = 5
"""More than DICOM's longest identifier takes."""
_LONGEST = 2000
"""Characters of one text that are looked at, more than there is ever room for."""
_MARK = 4.2
"""Size of the badge that holds an orientation mark."""
_LINE, _HEADING = 3.6, 6.4
"""Height of a line of small print, and what a heading takes besides."""
_MOST_WARNINGS = 8
"""Lines."""


def report_pdf(volume: Volume, findings: Findings) -> bytes:
    """One page for clinicians, with text that can be searched.

    Parameters
    ----------
    volume: Volume
    findings: Findings

    Returns
    -------
    bytes
        A PDF; the same bytes for the same input and fonts.
    """
    page = _Page(volume, findings)
    page.header()
    page.answer()
    page.tables()
    page.key_images()
    page.coronal_and_origin()
    page.footer()
    return page.finish()


class _Page:
    """The page while it is drawn, from top to bottom. Lengths in mm."""

    def __init__(self, volume: Volume, findings: Findings) -> None:
        self._volume = volume
        self._findings = findings
        self._view = StandardView(volume, findings)
        self._pdf = pdf = FPDF(format="A4")
        pdf.set_auto_page_break(False)
        pdf.set_margin(0)
        pdf.c_margin = 0
        pdf.set_title(TITLE)
        pdf.set_producer(f"{identity.MANUFACTURER} {__version__}")
        pdf.set_lang("en")
        pdf.set_creation_date(_as_datetime(*content_date_time(volume.headers[0])))
        pdf.add_page()
        self._fonts = ReportFonts(pdf, wording.foreign_text(volume, findings))
        self._y = _MARGIN

    def finish(self) -> bytes:
        """The finished file."""
        return bytes(self._pdf.output())

    def header(self) -> None:
        """Patient and study."""
        header = self._volume.headers[0]
        self._text(_MARGIN, self._y, TITLE, size=15, bold=True)
        self._text(_MARGIN, self._y + 1.2, "Research use only", size=9, color=_QUIET, align="R", width=_WIDTH)
        self._y += 9
        self._rule()
        cells = wording.patient_cells(header)
        x, most = _MARGIN, 1
        for (label, value), width in zip(cells, _HEADER_WIDTHS, strict=True):
            self._text(x, self._y, label, size=7, color=_QUIET)
            lines = [line for text in value.split("\n") for line in self._lines(text, width - _GAP)]
            for number, (line, size) in enumerate(lines):
                self._text(x, self._y + 3.4 + _NAME_LINE * number, line, size=size, width=width - _GAP)
            x, most = x + width, max(most, len(lines))
        self._y += 10 + _NAME_LINE * (most - 1)
        self._rule()

    def answer(self) -> None:
        """What was found, in words, before any table."""
        measurements = self._findings.measurements
        height = 23.0
        self._panel(height)
        half = _WIDTH * 0.54
        answers = (
            (_MARGIN + 4, half - 6, wording.lesion_answer(measurements)),
            (
                _MARGIN + half + 3,
                _WIDTH - half - 7,
                wording.probability_answer(self._findings.covid_probability, self._findings.models[-1]),
            ),
        )
        for x, width, (headline, *details) in answers:
            self._text(x, self._y + 3, headline, size=15, bold=True, width=width)
            for line, detail in enumerate(details):
                self._text(x, self._y + 11.3 + 4.4 * line, detail, size=9, color=_QUIET, width=width)
        self._y += height + 4

    def tables(self) -> None:
        """Volumes and shares for each lung, and where in the lungs."""
        rows = wording.volume_rows(self._findings.measurements)
        top = self._y
        left, columns = 30.0, (16.5, 15.0)
        x = _MARGIN + left
        for heading in ("Both lungs", "Right", "Left"):
            self._text(x, top, heading, size=8, bold=True, align="R", width=sum(columns))
            x += sum(columns)
        self._y = top + 4.6
        self._rule(left + 3 * sum(columns), 0.8)
        for label, values in rows:
            self._text(_MARGIN, self._y, label, size=9, width=left)
            x = _MARGIN + left
            for volume, share in values:
                self._text(x, self._y, volume, size=9, align="R", width=columns[0])
                self._text(x + columns[0], self._y, share, size=9, align="R", width=columns[1], color=_QUIET)
                x += sum(columns)
            self._y += 4.9
        bottom = self._y
        x = _MARGIN + left + 3 * sum(columns) + 8
        self._thirds(x, top, _PAGE_WIDTH - _MARGIN - x)
        self._y = bottom + 4

    def _thirds(self, x: float, top: float, width: float) -> None:
        """Share of lesion in the thirds of each lung, as the patient faces the reader."""
        column = width * 0.28
        self._text(x, top, "Lesions", size=8, bold=True, width=width - 2 * column)
        for number, side in enumerate(("Right", "Left")):
            start = x + width - (2 - number) * column
            self._text(start, top, side, size=8, bold=True, align="R", width=column)
        self._y = top + 4.6
        self._rule(width, 0.8, x)
        thirds = self._findings.measurements.lesion_to_lung_ratio_of_thirds
        for name in ("upper", "middle", "lower"):
            self._text(x, self._y, f"{name.capitalize()} third", size=9)
            for number, side in enumerate(("right", "left")):
                start = x + width - (2 - number) * column
                share = wording.percent(getattr(thirds[side], name)) if side in thirds else "-"
                self._text(start, self._y, share, size=9, align="R", width=column)
            self._y += 4.9

    def key_images(self) -> None:
        """Axial slices side by side, from head to feet."""
        planes = self._view.key_planes()
        width = (_WIDTH - 2 * _GAP) / 3
        heights = [self._picture(plane, _MARGIN + n * (width + _GAP), width, 48) for n, plane in enumerate(planes)]
        self._y += max(heights) + 1
        for number, plane in enumerate(planes):
            caption = wording.slice_caption(self._volume, plane.index)
            self._text(_MARGIN + number * (width + _GAP), self._y, caption, size=7.5, color=_QUIET, width=width)
        self._y += 6

    def coronal_and_origin(self) -> None:
        """Coronal plane on the left; on the right what was analysed and what with."""
        top = self._y
        width = 88.0
        height = self._picture(self._view.coronal(), _MARGIN, width, _PAGE_HEIGHT - _MARGIN - 17 - top)
        self._text(
            _MARGIN,
            top + height + 1,
            wording.coronal_caption(self._findings.measurements),
            size=7.5,
            color=_QUIET,
            width=width,
        )
        x = _MARGIN + width + 6
        self._y = top
        self._legend(x)
        right = _PAGE_WIDTH - _MARGIN - x
        self._paragraphs(x, right, "Series", wording.series_lines(self._volume), 6)
        lesions = wording.lesion_lines(self._volume, self._findings.measurements.lesions)
        self._paragraphs(x, right, "Largest lesions", lesions, 6)
        models, warnings = wording.model_lines(self._findings.models), self._findings.warnings or ("None.",)
        # Warnings come first in what there is room for, and last on the page.
        room = int((_PAGE_HEIGHT - _MARGIN - 10 - self._y - 2 * _HEADING) / _LINE)
        shown = min(len(self._wrapped(right, warnings)), _MOST_WARNINGS)
        self._paragraphs(x, right, "Models and measured accuracy", models, room - shown)
        self._paragraphs(x, right, "Warnings", warnings, _MOST_WARNINGS)

    def footer(self) -> None:
        """That this is no diagnosis, and what made it."""
        self._y = _PAGE_HEIGHT - _MARGIN - 8
        self._rule()
        self._text(_MARGIN, self._y, RESEARCH_USE_ONLY, size=9, bold=True)
        made_by = f"{identity.MODEL_NAME}, {identity.MANUFACTURER} {__version__}"
        self._text(_MARGIN, self._y, made_by, size=7.5, color=_QUIET, align="R", width=_WIDTH)
        if self._fonts.dropped:
            self._text(_MARGIN, self._y + 4.5, wording.DROPPED_CHARACTERS, size=7.5, color=_QUIET, width=_WIDTH)

    def _legend(self, x: float) -> None:
        """Colours of the pictures."""
        colors = [("Lung", LUNG_COLOR)] + [(s.label, s.color) for s in STRUCTURES_OF_LESIONS.values()]
        for label, color in colors:
            self._pdf.set_fill_color(*color)
            self._pdf.rect(x, self._y + 0.5, 3, 3, style="F")
            x += 4.5 + self._text(x + 4.5, self._y, label, size=8) + 5
        self._y += 6.5

    def _paragraphs(self, x: float, width: float, heading: str, lines: Sequence[str], most: int) -> None:
        """Heading and wrapped lines below each other; what has no room is counted, not dropped in silence."""
        self._text(x, self._y, heading, size=8, bold=True)
        self._y += 4
        wrapped = self._wrapped(width, lines)
        if len(wrapped) > most:
            wrapped = [*wrapped[: most - 1], wording.more_lines(len(wrapped) - most + 1)]
        for line in wrapped:
            self._text(x, self._y, line, size=8, width=width)
            self._y += _LINE
        self._y += _HEADING - 4

    def _wrapped(self, width: float, lines: Sequence[str]) -> list[str]:
        """Lines of small print, broken where they are too wide."""
        self._set_font(8, bold=False)
        wrapped: list[str] = []
        for line in lines:
            text = self._printable(line)
            parts = self._pdf.multi_cell(width, _LINE, text, dry_run=True, output="LINES", align="L")
            wrapped += cast("list[str]", parts)
        return wrapped

    def _picture(self, plane: Plane, x: float, width: float, most_height: float) -> float:
        """Draw a plane with its orientation marks into a box from the current height on; returns the box's height."""
        rows_mm: float
        columns_mm: float
        rows_mm, columns_mm = plane.hu.shape[0] * plane.spacing[0], plane.hu.shape[1] * plane.spacing[1]
        scale = min(width / columns_mm, most_height / rows_mm)
        shown_width, height = columns_mm * scale, rows_mm * scale
        picture = as_jpeg(picture_of(plane, scale * _PIXELS_PER_MM), _JPEG_QUALITY, "4:4:4")
        left = x + (width - shown_width) / 2
        self._pdf.set_fill_color(0, 0, 0)
        self._pdf.rect(x, self._y, width, height, style="F")
        self._pdf.image(BytesIO(picture), left, self._y, shown_width, height)
        for mark, place in (("R", left + 1), ("L", left + shown_width - 1 - _MARK)):
            middle = self._y + (height - _MARK) / 2
            self._pdf.set_fill_color(*_INK)
            self._pdf.rect(place, middle, _MARK, _MARK, style="F", round_corners=True, corner_radius=0.8)
            self._text(place, middle, mark, size=8, bold=True, color=(255, 255, 255), align="C", width=_MARK)
        return height

    def _text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float,
        bold: bool = False,
        color: tuple[int, int, int] = _INK,
        align: str = "L",
        width: float | None = None,
    ) -> float:
        """Write a line from a top left corner, shrunk, then cut with a sign where too wide; returns its width."""
        text = self._printable(text)
        self._set_font(size, bold=bold)
        if width is not None:
            text = self._fitted(text, size, width, bold=bold)
        self._pdf.set_text_color(*color)
        self._pdf.set_xy(x, y)
        own = float(self._pdf.get_string_width(text))
        self._pdf.cell(width or own, 4.2 * max(size / 9, 1), text, align=align)
        return own

    def _lines(self, text: str, width: float) -> list[tuple[str, float]]:
        """A name or an identifier in as many lines as it needs, with their size: cut, it could be somebody else's."""
        self._set_font(_SMALLEST_NAME, bold=False)
        printable = self._printable(text)
        if self._pdf.get_string_width(printable) <= width:
            return [(text, _NAME_SIZE)]
        broken = self._pdf.multi_cell(
            width, _NAME_LINE, printable, align="L", dry_run=True, output=MethodReturnValue.LINES
        )
        lines = cast("list[str]", broken)
        shown = [*lines[: _MOST_LINES - 1], "".join(lines[_MOST_LINES - 1 :])]
        return [(line, _SMALLEST_NAME) for line in shown if line]

    def _fitted(self, text: str, size: float, width: float, *, bold: bool) -> str:
        """Text that fits a width; leaves the font at the size that it found."""
        while size > 6.5 and self._pdf.get_string_width(text) > width:
            size -= 0.5
            self._set_font(size, bold=bold)
        if self._pdf.get_string_width(text) <= width:
            return text
        lengths = range(1, len(text) + 1)
        fitting = bisect_right(lengths, width, key=lambda length: self._pdf.get_string_width(text[:length] + "..."))
        return text[:fitting] + "..."

    def _printable(self, text: str) -> str:
        """Text that the fonts can show, cut with a sign where it is endless."""
        return self._fonts.printable(text if len(text) <= _LONGEST else text[:_LONGEST] + "...")

    def _set_font(self, size: float, *, bold: bool) -> None:
        self._pdf.set_font(self._fonts.family, "B" if bold else "", size)

    def _panel(self, height: float) -> None:
        """Quiet background across the page."""
        self._pdf.set_fill_color(*_PANEL)
        self._pdf.rect(_MARGIN, self._y, _WIDTH, height, style="F", round_corners=True, corner_radius=1.5)

    def _rule(self, width: float = _WIDTH, below: float = 2.5, x: float = _MARGIN) -> None:
        """Thin line at the current height."""
        self._pdf.set_draw_color(*_RULE)
        self._pdf.set_line_width(0.2)
        self._pdf.line(x, self._y, x + width, self._y)
        self._y += below


def _as_datetime(date: str, time: str) -> datetime:
    """Source's date and time as a PDF dates itself."""
    return datetime.strptime(date + time[:6].ljust(6, "0"), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
