"""Fonts of the report: embedded ones of the system, so that names in any installed script can be read."""

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from fontTools.ttLib import TTFont, TTLibError  # type: ignore[import-untyped]
from fpdf import FPDF

FONT_FOLDERS = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"))
"""Where systems keep their fonts."""

MAIN_FONTS = (
    ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf"),
    ("NotoSans-Regular.ttf", "NotoSans-Bold.ttf"),
    ("LiberationSans-Regular.ttf", "LiberationSans-Bold.ttf"),
    ("FreeSans.ttf", "FreeSansBold.ttf"),
)
"""File names of regular and bold fonts that can carry the whole report, the first installed one is taken."""

MISSING_GLYPH = "\N{WHITE SQUARE}"
"""Stands for a character that no installed font has."""

MISSING_GLYPH_LATIN_1 = "?"
"""The same where no font is installed at all and the report uses PDF's own Helvetica."""


_SHAPED = range(0x0590, 0x2000)
"""Code points whose letters join, move or run from right to left: Hebrew to Khmer and what lies between."""


class ReportFonts:
    """The fonts of one PDF, and whether they can show what is to be written.

    Parameters
    ----------
    pdf: FPDF
        Gets the fonts.
    folders: Iterable[Path]
        Where to look for fonts.

    Attributes
    ----------
    family: str
        Family for `FPDF.set_font`, in regular and bold.
    dropped: bool
        Whether a character had to be replaced so far.
    """

    def __init__(self, pdf: FPDF, folders: Iterable[Path] = FONT_FOLDERS) -> None:
        self._pdf = pdf
        self._folders = tuple(folders)
        self._fallbacks: dict[Path, frozenset[int]] = {}
        self.dropped = False
        main = _main_fonts(self._folders)
        if main is None:
            self.family = "Helvetica"
            self._covered = frozenset(code for code in range(256) if chr(code).isprintable())
            self._substitute = MISSING_GLYPH_LATIN_1
        else:
            self.family = "report"
            pdf.add_font(self.family, "", main[0])
            pdf.add_font(self.family, "B", main[1])
            self._covered = _characters(main[0]) & _characters(main[1])
            self._substitute = MISSING_GLYPH if ord(MISSING_GLYPH) in self._covered else "?"

    def printable(self, text: str) -> str:
        """Text that the fonts can show: blanks for control characters, a sign for each character without a glyph.

        The PDF writes what follows with joined letters and from right to left where the text's script wants it.
        """
        spaced = "".join(character if character.isprintable() else " " for character in text)
        missing = {ord(character) for character in spaced} - self._all_covered()
        if missing and self.family != "Helvetica":
            self._add_fallbacks(missing)
            missing -= self._all_covered()
        self.dropped |= bool(missing)
        self._pdf.set_text_shaping(any(ord(character) in _SHAPED for character in spaced))
        return spaced.translate(dict.fromkeys(missing, self._substitute))

    def _all_covered(self) -> frozenset[int]:
        """Code points that main and fallback fonts have."""
        return self._covered.union(*self._fallbacks.values())

    def _add_fallbacks(self, missing: set[int]) -> None:
        """Add installed fonts until they have all missing code points, as far as any has."""
        for path in _installed(self._folders):
            found = _characters(path) & missing
            if found and path not in self._fallbacks:
                family = f"fallback{len(self._fallbacks)}"
                self._pdf.add_font(family, "", path)
                self._fallbacks[path] = _characters(path)
                missing = missing - found
            if not missing:
                break
        if self._fallbacks:
            self._pdf.set_fallback_fonts(
                [f"fallback{number}" for number in range(len(self._fallbacks))], exact_match=False
            )


def _main_fonts(folders: tuple[Path, ...]) -> tuple[Path, Path] | None:
    """Paths of the first of `MAIN_FONTS` that is installed."""
    by_name = {path.name: path for path in _installed(folders)}
    for regular, bold in MAIN_FONTS:
        if regular in by_name and bold in by_name:
            return by_name[regular], by_name[bold]
    return None


@cache
def _installed(folders: tuple[Path, ...]) -> tuple[Path, ...]:
    """Font files below the folders, plain ones first, always in the same order."""

    def files() -> Iterator[Path]:
        for folder in folders:
            yield from (path for path in folder.rglob("*") if path.suffix.lower() in {".ttf", ".otf", ".ttc"})

    def variants(path: Path) -> int:
        return sum(style in path.name for style in ("Bold", "Italic", "Oblique", "Mono", "Serif"))

    return tuple(sorted(files(), key=lambda path: (variants(path), path.name, str(path))))


@cache
def _characters(path: Path) -> frozenset[int]:
    """Code points that a font has a glyph for; none where the file cannot be read."""
    try:
        with TTFont(path, fontNumber=0, lazy=True) as font:
            return frozenset(font.getBestCmap() or ())
    except (TTLibError, OSError, KeyError, AssertionError):
        return frozenset()
