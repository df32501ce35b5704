"""The manifest of a model: what its network wants to see and what its answer means."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from covid_ct.errors import ModelError
from covid_ct.inference.onnx_file import has_external_data, last_operation
from covid_ct.inference.preprocessing import Interpolation
from covid_ct.inference.section import Section

Role = Literal["lungs", "lesions", "covid"]
SpacedOver = Literal["lungs", "lesions"]

MANIFEST_NAME = "model.json"

MAX_MANIFEST_BYTES = 1_000_000
"""A larger model.json is a mistake."""

MAX_MODEL_BYTES = 2**31 - 1
"""The limit of the ONNX format itself for a model in one file."""

CLASSES: dict[Role, tuple[tuple[str, ...], ...]] = {
    "lungs": (("background", "right lung", "left lung"), ("background", "lung")),
    "lesions": (("background", "ground glass", "consolidation"), ("background", "lesion")),
    "covid": (("other", "COVID-19"), ("COVID-19",)),
}
"""The classes that a model of each role may tell apart, in the order of the network's output."""

FEATURES = (
    "lesion_ratio",
    "consolidation_share",
    "bilateral",
    "peripheral",
    "posterior",
    "lower",
    "multifocal",
)
"""What a classifier may be told beside the image; defined in `covid_ct.analysis.distribution`."""


@dataclass(frozen=True)
class ModelInput:
    """What a network gets.

    Attributes
    ----------
    dimensions: int
        2: single slices, tensor (batch, 1, rows, columns). 3: tensor (batch, 1, and the three `axes`).
    size: tuple[int, ...]
        (rows, columns) or (slices, rows, columns) of the tensor; for 3-D with `spacing_mm` the sliding window.
    region: str
        What is shown: the whole image "field", the bounding box of the "body" or that of the "lungs".
    region_margin_mm: float
        Added to that box on every side.
    outside_lungs_hu: int | None
        HU that everything outside the slightly dilated lungs is set to; None leaves it.
    spacing_mm: tuple[float, float, float] | None
        Spacing of slices, rows, columns that the region is resampled to; None scales the region to `size`.
    overlap: float
        Share of a sliding window that its neighbour covers too.
    axes: str
        Order of the tensor's axes, "zyx" or "xyz".
    directions: str
        Where the tensor's x, y and z ascend to: "LPS" as in DICOM, or "RAS" as in NIfTI and MONAI.
    clip_hu, scale_to: tuple[float, float]
        The range of HU kept and what its ends become.
    standardise: bool
        Whether every image gets zero mean and unit variance afterwards.
    interpolation: Interpolation
    finest_mm: float | None
        2-D only: smaller pixels of the region are averaged to about this size before they are scaled to `size`, as for
        a network that learned from coarser images. None leaves them.
    """

    dimensions: int
    size: tuple[int, ...]
    region: Literal["field", "body", "lungs"]
    region_margin_mm: float
    outside_lungs_hu: int | None
    spacing_mm: tuple[float, float, float] | None
    overlap: float
    axes: Literal["zyx", "xyz"]
    directions: Literal["LPS", "RAS"]
    clip_hu: tuple[float, float]
    scale_to: tuple[float, float]
    standardise: bool
    interpolation: Interpolation
    finest_mm: float | None


@dataclass(frozen=True)
class Aggregation:
    """How a classifier of slices becomes one of the series.

    Attributes
    ----------
    slices: int
        Number of slices asked.
    spaced_over: SpacedOver
        What they are evenly spaced over: "lungs", all slices that show any, or "lesions", by their volume, so that the
        series is judged by what is ill of it, as a figure in a paper shows that.
    quantile: float
        Quantile, 0-1, of their logits that stands for the series.
    """

    slices: int
    spaced_over: SpacedOver
    quantile: float


@dataclass(frozen=True)
class Calibration:
    """Platt scaling: probability = sigmoid(slope * logit + intercept)."""

    slope: float
    intercept: float


@dataclass(frozen=True)
class ModelOutput:
    """What a network answers.

    Attributes
    ----------
    activation: str
        What is still to be applied: "none" (probabilities already), "softmax" over the classes, or "sigmoid"
        (one channel: the probability of the last class).
    classes: tuple[str, ...]
        One of `CLASSES` of the role.
    aggregation: Aggregation | None
        Classifiers of slices only.
    calibration: Calibration | None
        Classifiers only.
    """

    activation: Literal["none", "softmax", "sigmoid"]
    classes: tuple[str, ...]
    aggregation: Aggregation | None
    calibration: Calibration | None

    @property
    def channels(self) -> int:
        """Number of channels that the network answers with."""
        return 1 if self.activation == "sigmoid" else len(self.classes)


@dataclass(frozen=True)
class Manifest:
    """A model.json, checked.

    Attributes
    ----------
    role: Role
    name, version: str
    file: Path
        The ONNX file, beside the manifest.
    sha256: str
        Of that file, lower-case hexadecimal.
    licence: str
    accuracy: str
        One line: measured figure, on which data, when.
    input: ModelInput
    output: ModelOutput
    features: tuple[str, ...]
        Of `FEATURES`: what the network's second input "features" (batch, features) holds; empty without one.
    manifest_sha256: str
        Of the model.json itself.
    """

    role: Role
    name: str
    version: str
    file: Path
    sha256: str
    licence: str
    accuracy: str
    input: ModelInput
    output: ModelOutput
    features: tuple[str, ...]
    manifest_sha256: str


def load_manifest(folder: Path, role: Role) -> Manifest:
    """Read and check the manifest in a model's folder.

    Parameters
    ----------
    folder: Path
        Holds model.json and the ONNX file that it names.
    role: Role
        What the model is to be used for.

    Returns
    -------
    Manifest

    Raises
    ------
    ModelError
        Raised if the manifest is missing, is no JSON, lacks or adds a key, or holds a value that makes no sense.
    """
    path = folder / MANIFEST_NAME
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ModelError(
                f"The manifest {path} is larger than {MAX_MANIFEST_BYTES} bytes; it should be a short JSON."
            )
        raw = path.read_bytes()
        content = json.loads(raw)
    except OSError as error:
        raise ModelError(
            f"The manifest {path} of the {role} model cannot be read ({error.strerror}); "
            "put the model's folder there, or say where it is: ModelsFolder in Orthanc's configuration, or --models."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"The manifest {path} is no valid JSON ({error}); correct it.") from error
    section = Section(path, "", content)
    if section.text("role") != role:
        raise section.wrong("role", f'has to be "{role}" in this folder')
    file = section.text("file")
    if Path(file).name != file:
        raise section.wrong("file", "has to be the bare name of an ONNX file beside the manifest")
    sha256 = section.text("sha256").lower()
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise section.wrong("sha256", f"has to be the 64 hexadecimal digits that `sha256sum {file}` prints")
    features = section.names("features", FEATURES) if "features" in section else ()
    if features and role != "covid":
        raise section.wrong("features", "is for the covid model only; leave it out")
    manifest = Manifest(
        role=role,
        name=section.text("name"),
        version=section.text("version"),
        file=folder / file,
        sha256=sha256,
        licence=section.text("licence"),
        accuracy=section.text("accuracy"),
        input=_read_input(section.section("input"), role),
        output=_read_output(section.section("output"), role),
        features=features,
        manifest_sha256=hashlib.sha256(raw).hexdigest(),
    )
    section.finish()
    if manifest.input.axes != "zyx" and manifest.input.dimensions == 2:
        raise section.wrong("input.axes", "is the order of a volume's axes; leave it out for a 2-D network")
    if manifest.output.aggregation is None and role == "covid" and manifest.input.dimensions == 2:
        raise section.wrong("output.aggregation", "has to say how a classifier of slices becomes one of the series")
    if role == "covid" and manifest.input.spacing_mm is not None:
        raise section.wrong("input.spacing_mm", "has to be null for a classifier, which sees its region as a whole")
    if manifest.output.aggregation is not None and manifest.input.dimensions == 3:
        raise section.wrong("output.aggregation", "has to be null for a 3-D network, which sees the series at once")
    return manifest


def read_model(manifest: Manifest) -> bytes:
    """Read the ONNX file of a manifest and check that it is the one meant.

    Parameters
    ----------
    manifest: Manifest

    Returns
    -------
    bytes
        The very bytes that were checked, to be given to ONNX Runtime.

    Raises
    ------
    ModelError
        Raised if the file is missing, too large, has another sha256, keeps weights in other files, or ends in what the
        manifest would apply once more.
    """
    path = manifest.file
    try:
        if path.stat().st_size > MAX_MODEL_BYTES:
            raise ModelError(f"The model {path} is larger than the 2 GB that one ONNX file may have.")
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"The model {path} cannot be read ({error.strerror}); put the ONNX file there "
            f'or correct "file" in {path.with_name(MANIFEST_NAME)}.'
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != manifest.sha256:
        raise ModelError(
            f"The model {path} has the sha256 {found}, but {path.with_name(MANIFEST_NAME)} says {manifest.sha256}; "
            "restore the file, or write the new sha256 into the manifest if the change is meant."
        )
    try:
        external = has_external_data(content)
    except ValueError as error:
        raise ModelError(f"The model {path} is no ONNX file ({error}); export it again.") from error
    if external:
        raise ModelError(
            f"The model {path} keeps weights in other files, which its sha256 does not cover; write it as one file: "
            "onnx.save_model(onnx.load(path), path, save_as_external_data=False)."
        )
    last = last_operation(content)
    if last in ("Sigmoid", "Softmax") and manifest.output.activation != "none":
        raise ModelError(
            f"The model {path} ends in {last} itself, so that {manifest.output.activation} would be applied to "
            f'probabilities; write "none" as "output.activation" into {path.with_name(MANIFEST_NAME)}.'
        )
    return content


def _read_input(section: Section, role: Role) -> ModelInput:
    dimensions = section.integer("dimensions", 2, 3)
    spacing = section.numbers("spacing_mm", 3) if section["spacing_mm"] is not None else None
    if spacing is not None and (dimensions == 2 or min(spacing) <= 0):
        raise section.wrong(
            "spacing_mm", "has to be three positive mm (slices, rows, columns), and null for a 2-D network"
        )
    outside = section["outside_lungs_hu"]
    if outside is not None:
        outside = section.integer("outside_lungs_hu", -2000, 2000)
    region = section.choice("region", ("field", "body", "lungs"))
    if role == "lungs" and (region == "lungs" or outside is not None):
        raise section.wrong("region", "and outside_lungs_hu cannot ask the lung model for lungs not found yet")
    finest = section.number("finest_mm", 0.1, 10.0) if section.get("finest_mm") is not None else None
    if finest is not None and dimensions == 3:
        raise section.wrong("finest_mm", "is for 2-D networks; give the spacing_mm of a 3-D one")
    clip = section.numbers("clip_hu", 2)
    if clip[0] >= clip[1]:
        raise section.wrong("clip_hu", "has to be [low, high] with low < high")
    scale = section.numbers("scale_to", 2)
    if scale[0] == scale[1]:
        raise section.wrong("scale_to", "has to be two numbers that differ")
    result = ModelInput(
        dimensions=dimensions,
        size=section.sizes("size", dimensions),
        region=cast(Any, region),
        region_margin_mm=section.number("region_margin_mm", 0.0, 500.0),
        outside_lungs_hu=outside,
        spacing_mm=cast(tuple[float, float, float] | None, spacing),
        overlap=section.number("overlap", 0.0, 0.9) if "overlap" in section else 0.0,
        axes=cast(Any, section.choice("axes", ("zyx", "xyz")) if "axes" in section else "zyx"),
        directions=cast(Any, section.choice("directions", ("LPS", "RAS"))),
        clip_hu=(clip[0], clip[1]),
        scale_to=(scale[0], scale[1]),
        standardise=section.flag("standardise"),
        interpolation=cast(
            Interpolation, section.choice("interpolation", ("area", "linear")) if "interpolation" in section else "area"
        ),
        finest_mm=finest,
    )
    section.finish()
    return result


def _read_output(section: Section, role: Role) -> ModelOutput:
    classes = section.names("classes", tuple(name for names in CLASSES[role] for name in names))
    if classes not in CLASSES[role]:
        allowed = " or ".join(json.dumps(list(names)) for names in CLASSES[role])
        raise section.wrong("classes", f"has to be {allowed}")
    activation = section.choice("activation", ("none", "softmax", "sigmoid"))
    if (activation == "sigmoid" and len(classes) > 2) or (activation == "softmax" and len(classes) < 2):
        raise section.wrong(
            "activation", "has to be softmax for several classes, sigmoid for one beside the background"
        )
    aggregation = calibration = None
    if section.get("aggregation") is not None:
        inner = section.section("aggregation")
        aggregation = Aggregation(
            slices=inner.integer("slices", 1, 10_000),
            spaced_over=cast(
                SpacedOver, inner.choice("spaced_over", ("lungs", "lesions")) if "spaced_over" in inner else "lungs"
            ),
            quantile=inner.number("quantile", 0.0, 1.0),
        )
        inner.finish()
    if section.get("calibration") is not None:
        inner = section.section("calibration")
        calibration = Calibration(
            slope=inner.number("slope", 1e-6, 1e6), intercept=inner.number("intercept", -1e6, 1e6)
        )
        inner.finish()
    if role != "covid" and (aggregation or calibration):
        raise section.wrong("aggregation", "and calibration are for the covid model only")
    section.finish()
    return ModelOutput(cast(Any, activation), classes, aggregation, calibration)
