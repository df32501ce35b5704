"""Fonts of the report: embedded ones of the system, so that names in any installed script can be read."""

import os
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path

from fontTools import subset  # type: ignore[import-untyped]
from fontTools.ttLib import TTFont, TTLibError  # type: ignore[import-untyped]
from fpdf import FPDF
from fpdf.fonts import TTFFont

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

_LATIN_1 = range(0x100)

_BLOCK = 128
"""Code points that a small font has or lacks together: about those of a script."""

_SMALL_FONTS = 16
"""How many small fonts are kept between reports: regular and bold, for several mixtures of scripts."""


class ReportFonts:
    """The fonts of one PDF, and whether they can show what is to be written.

    Parameters
    ----------
    pdf: FPDF
        Gets the fonts.
    text: str
        What will be written, as far as it may be anything but English. Characters of other scripts than these are
        possible, but are neither joined nor turned, and each further font takes a tenth of a second.
    folders: Iterable[Path]
        Where to look for fonts.

    Attributes
    ----------
    family: str
        Family for `FPDF.set_font`, in regular and bold.
    dropped: bool
        Whether a character had to be replaced so far.
    """

    def __init__(self, pdf: FPDF, text: str, folders: Iterable[Path] = FONT_FOLDERS) -> None:
        self._pdf = pdf
        self._shapes = _is_shaped(text)
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
            self._covered = _characters(main[0]) & _characters(main[1])
            if not self._shapes:
                blocks = {code // _BLOCK for code in (*_LATIN_1, ord(MISSING_GLYPH), *map(ord, text))}
                self._covered = frozenset(code for code in self._covered if code // _BLOCK in blocks)
            self._add_main("", main[0])
            self._add_main("B", main[1])
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
        self._pdf.set_text_shaping(self._shapes and _is_shaped(spaced))
        return spaced.translate(dict.fromkeys(missing, self._substitute))

    def _add_main(self, style: str, path: Path) -> None:
        """Add a main font, without the glyphs that are not needed where letters need no shaping.

        fpdf2 parses all glyphs of a font for each PDF, thousands where the report has a hundred; what it embeds in the
        end is the same.
        """
        if self._shapes:
            self._pdf.add_font(self.family, style, path)
            return
        # It has to be a file, if one in memory; fpdf2's own `add_font` wants one with a font's suffix. It stays open.
        with os.fdopen(os.memfd_create("font"), "wb") as file:
            file.write(_small_font(path, self._covered))
            file.flush()
            key = f"{self.family}{style}"
            self._pdf.fonts[key] = TTFFont(self._pdf, Path(f"/proc/self/fd/{file.fileno()}"), key, style)

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


def _is_shaped(text: str) -> bool:
    """Whether a text has letters that join, move or run from right to left."""
    return any(ord(character) in _SHAPED for character in text)


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


@lru_cache(_SMALL_FONTS)
def _small_font(path: Path, characters: frozenset[int]) -> bytes:
    """The part of a font that has the glyphs of some code points, without tables that shape."""
    options = subset.Options(notdef_outline=True, recommended_glyphs=True)
    options.drop_tables += ["FFTM", "GDEF", "GPOS", "GSUB", "MATH"]
    # The PDF's description of the font is that of the whole one.
    with TTFont(path, lazy=True, recalcBBoxes=False, recalcTimestamp=False) as font:
        subsetter = subset.Subsetter(options)
        subsetter.populate(unicodes=characters)
        subsetter.subset(font)
        content = BytesIO()
        font.save(content)
    return content.getvalue()
