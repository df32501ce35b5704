"""What the report says, as plain text: no layout here, no DICOM there."""

import re
from collections.abc import Sequence

from pydicom import Dataset

from covid_ct.analysis.findings import BySide, Findings, Lesion, Measurements, ModelIdentity
from covid_ct.results.source import positive_number, slice_corner, source_slice, text_of
from covid_ct.series.volume import Volume

DROPPED_CHARACTERS = "A box or question mark in a name stands for a character that no font on this server has."

_SCRIPTS = 3
"""Spellings that DICOM gives a name: alphabetic, ideographic, phonetic."""

LARGEST_LESIONS = 5
"""How many lesions the report lists."""


def percent(ratio: float) -> str:
    """Fraction 0-1 as percent with one decimal; what is there but rounds to nothing is said so."""
    if 0 < ratio < 0.001:
        return "< 0.1 %"
    return f"{ratio * 100:.1f} %"


def milliliters(volume: float) -> str:
    """Volume in ml, with a decimal below 10 ml."""
    if 0 < volume < 0.1:
        return "< 0.1 ml"
    return f"{volume:.0f} ml" if volume >= 10 else f"{volume:.1f} ml"


def probability(value: float) -> str:
    """Probability with two decimals; never a certainty that no network has."""
    return f"{min(max(value, 0.01), 0.99):.2f}" if 0.01 <= value <= 0.99 else ("< 0.01" if value < 0.01 else "> 0.99")


def person_name(name: str) -> str:
    """DICOM person name as people write it: family name, given names; each script's spelling on a line of its own."""
    groups = []
    for group in name.split("=")[:_SCRIPTS]:
        family, given, middle, prefix, suffix = (group.split("^") + [""] * 5)[:5]
        first = " ".join(part.strip() for part in (prefix, given, middle, suffix) if part.strip())
        groups.append(", ".join(part for part in (family.strip(), first) if part))
    return "\n".join(group for group in groups if group)


def date(value: str) -> str:
    """DICOM date as ISO 8601 writes it; anything else as it is."""
    return f"{value[:4]}-{value[4:6]}-{value[6:8]}" if len(value) == 8 and value.isdigit() else value


def age(value: str) -> str:
    """DICOM age, such as 039Y, as people write it; anything else as it is."""
    units = {"D": "days", "W": "weeks", "M": "months", "Y": "years"}
    return f"{int(value[:3])} {units[value[3]]}" if re.fullmatch(r"\d{3}[DWMY]", value) else value


def patient_cells(header: Dataset) -> list[tuple[str, str]]:
    """Label and value of what identifies patient and study; the name may have several lines."""
    born = (
        date(text_of(header, "PatientBirthDate")),
        age(text_of(header, "PatientAge")),
        text_of(header, "PatientSex"),
    )
    cells = {
        "Patient": person_name(text_of(header, "PatientName")),
        "Patient ID": text_of(header, "PatientID"),
        "Born, age, sex": ", ".join(part for part in born if part),
        "Study date": date(text_of(header, "StudyDate")),
        "Accession": text_of(header, "AccessionNumber"),
    }
    return [(label, value or "not stated") for label, value in cells.items()]


def lesion_answer(measurements: Measurements) -> tuple[str, ...]:
    """The finding in a line, then lines that say more."""
    lesion, ratio = measurements.lesion_volume_ml, measurements.lesion_to_lung_ratio
    lung = milliliters(measurements.lung_volume_ml.total)
    if lesion.total == 0:
        return "No lesion found", f"in {lung} of lung"
    return (
        f"Lesions {percent(ratio.total)} of lung",
        f"{milliliters(lesion.total)} of {lung}",
        f"{percent(ratio.right)} of the right lung, {percent(ratio.left)} of the left",
    )


def probability_answer(value: float, model: ModelIdentity) -> tuple[str, ...]:
    """The probability in a line, then lines that say of what and by what."""
    return (
        f"COVID-19 probability {probability(value)}",
        "of COVID-19 pneumonia, from 0 to 1",
        f"by {model.name} {model.version}",
    )


def volume_rows(measurements: Measurements) -> list[tuple[str, list[tuple[str, str]]]]:
    """Rows of the table: a label, then volume and share for both lungs, right and left."""

    def cells(volume: BySide, ratio: BySide | None) -> list[tuple[str, str]]:
        return [
            (milliliters(getattr(volume, part)), percent(getattr(ratio, part)) if ratio else "")
            for part in ("total", "right", "left")
        ]

    return [
        ("Lung volume", cells(measurements.lung_volume_ml, None)),
        ("Lesions", cells(measurements.lesion_volume_ml, measurements.lesion_to_lung_ratio)),
        ("  Ground glass", cells(measurements.ground_glass_volume_ml, measurements.ground_glass_to_lung_ratio)),
        ("  Consolidation", cells(measurements.consolidation_volume_ml, measurements.consolidation_to_lung_ratio)),
    ]


def image_name(header: Dataset, index: int) -> str:
    """Name of a source image by the number that viewers show, or by its place where it has none."""
    number = text_of(header, "InstanceNumber")
    return f"image {number}" if number else f"slice {index + 1}"


def slice_caption(volume: Volume, standard_index: int) -> str:
    """Which image an axial picture of the standard view shows."""
    index = source_slice(volume, standard_index)
    height = slice_corner(volume, standard_index)[2]
    return f"{image_name(volume.headers[index], index).capitalize()}, z = {height:.1f} mm"


def coronal_caption(measurements: Measurements) -> str:
    """Which coronal plane is shown."""
    largest = "lesion" if measurements.lesion_volume_ml.total else "lung"
    return f"Coronal, where the area of {largest} is largest"


def lesion_lines(volume: Volume, lesions: Sequence[Lesion]) -> list[str]:
    """A line for each of the largest lesions: size, side and where to look."""
    largest = sorted(lesions, key=lambda lesion: -lesion.volume_ml)[:LARGEST_LESIONS]
    lines = [
        f"{milliliters(lesion.volume_ml)}, {lesion.side} lung, largest on "
        f"{image_name(volume.headers[lesion.slice_index], lesion.slice_index)}"
        for lesion in largest
    ]
    if len(lesions) > len(largest):
        lines.append(f"and {len(lesions) - len(largest)} smaller ones")
    return lines or ["None."]


def series_lines(volume: Volume) -> list[str]:
    """What was analysed."""
    header = volume.headers[0]
    number, description = text_of(header, "SeriesNumber"), text_of(header, "SeriesDescription")
    kernel, thickness = (
        text_of(header, "ConvolutionKernel").replace("\\", ", "),
        positive_number(header, "SliceThickness"),
    )
    slices, rows, columns = volume.hu.shape
    between, row, column = volume.spacing
    size = f"{column:.2f}" if round(row, 2) == round(column, 2) else f"{column:.2f} × {row:.2f}"
    scanner = " ".join(text_of(header, keyword) for keyword in ("Manufacturer", "ManufacturerModelName")).strip()
    return [
        f"{f'Series {number}: ' if number else ''}{description or 'no description'}",
        f"Kernel {kernel or 'not stated'}; thickness {f'{float(thickness):g} mm' if thickness else 'not stated'}",
        f"{slices} slices every {between:.2f} mm; {columns} × {rows} pixels of {size} mm",
        *([scanner] if scanner else []),
    ]


def model_lines(models: Sequence[ModelIdentity]) -> list[str]:
    """A line for each model: name, version, measured accuracy."""
    roles = {"lungs": "Lungs", "lesions": "Lesions", "covid": "Probability"}
    return [f"{roles[model.role]}: {model.name} {model.version}. {model.accuracy}" for model in models]


def foreign_text(volume: Volume, findings: Findings) -> str:
    """What of the report may be written in any script."""
    cells = [value for _, value in patient_cells(volume.headers[0])]
    return "\n".join((*cells, *series_lines(volume), *model_lines(findings.models), *findings.warnings))


def more_lines(count: int) -> str:
    """What stands where there was no room."""
    return f"... and {count} more lines: see the findings."
