"""lungmask, MONAI and highdicom on one series, each as its own documentation runs it.

Runs in the peers' own Python (tests/benchmarks/requirements.txt), without this package, and prints JSON.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import torch
from lungmask import utils
from lungmask.mask import LMInferer
from lungmask.resunet import UNet
from monai.data import MetaTensor
from monai.inferers import sliding_window_inference
from monai.networks.nets import DenseNet121, SegResNet
from monai.transforms import ResizeWithPadOrCrop, ScaleIntensityRange, Spacing
from pydicom.sr.codedict import codes
from scipy import ndimage

WINDOW = (224, 224, 32)
OVERLAP = 0.6
CLASSIFIER_SIZE = (192, 192, 64)

steps: list[dict[str, object]] = []


def timed(name: str, work: Callable[[], object], measured_on: str = "all", share: float = 1.0) -> object:
    """Do a step, of which only a share is done, and note its time."""
    begin = time.perf_counter()
    answer = work()
    seconds = time.perf_counter() - begin
    steps.append({"name": name, "measured_on": measured_on, "measured_s": seconds, "all_s": seconds / share})
    return answer


def read(folder: Path) -> list[pydicom.Dataset]:
    images = [pydicom.dcmread(path) for path in folder.glob("*.dcm")]
    return sorted(images, key=lambda image: float(image.ImagePositionPatient[2]))


def air_inside(hu: np.ndarray) -> np.ndarray:
    """What stands for the networks' masks: the two largest regions of air that no side of the images cuts."""
    regions, _ = ndimage.label(ndimage.binary_opening(hu < -500, iterations=1))
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    for side in (regions[:, 0], regions[:, -1], regions[:, :, 0], regions[:, :, -1]):
        sizes[np.unique(side)] = 0
    largest = [number for number in np.argsort(sizes)[-2:] if sizes[number]]
    return np.isin(regions, largest)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    for name, default in (("lung-slices", 12), ("windows", 2), ("threads", 2), ("filters", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    torch.set_grad_enabled(False)

    def load() -> tuple[list[pydicom.Dataset], np.ndarray]:
        images = read(options.folder)
        hu = np.stack([image.pixel_array * image.RescaleSlope + image.RescaleIntercept for image in images])
        return images, hu.astype(np.int16)

    images, hu = timed("reading with pydicom", load)
    lungs = air_inside(hu)

    network = UNet(n_classes=3, padding=True, depth=5, up_mode="upsample", batch_norm=True, residual=False).eval()
    inferer = object.__new__(LMInferer)
    inferer.batch_size, inferer.tqdm_disable, inferer.device = 20, True, torch.device("cpu")
    inferer.volume_postprocessing = False
    count = min(options.lung_slices, len(hu))
    middle = slice(len(hu) // 2 - count // 2, len(hu) // 2 - count // 2 + count)
    timed("lungs: lungmask R231", lambda: inferer._inference(hu[middle], network), f"{count} slices", count / len(hu))
    timed("lungs: lungmask's postprocessing of the volume", lambda: utils.postprocessing(lungs.astype(np.uint8)))

    place = np.nonzero(lungs)
    box = tuple(slice(int(indices.min()), int(indices.max()) + 1) for indices in place)
    # x, y, z ascending to the right, to the front, to the head, as a NIfTI file has them.
    cut = np.ascontiguousarray(hu[box].transpose(2, 1, 0)[::-1, ::-1]).astype(np.float32)
    spacing = [float(images[0].PixelSpacing[1]), float(images[0].PixelSpacing[0])]
    spacing.append(abs(float(images[1].ImagePositionPatient[2]) - float(images[0].ImagePositionPatient[2])))
    volume = MetaTensor(torch.from_numpy(cut)[None], affine=torch.diag(torch.tensor([*spacing, 1.0])))

    def prepare() -> torch.Tensor:
        return ScaleIntensityRange(-1000, 500, 0, 1, clip=True)(Spacing((0.8, 0.8, 5.0), mode="bilinear")(volume))[None]

    prepared = timed("lesions: MONAI's resampling", prepare)
    lesions = SegResNet(
        spatial_dims=3, init_filters=options.filters, in_channels=1, out_channels=2, upsample_mode="deconv"
    ).eval()
    laid = 0

    def count_only(window: torch.Tensor) -> torch.Tensor:
        nonlocal laid
        laid += len(window)
        return torch.zeros(len(window), 2, *window.shape[2:])

    sliding_window_inference(prepared, WINDOW, 1, count_only, overlap=OVERLAP)
    ran = min(options.windows, laid)
    window = torch.rand(1, 1, *WINDOW)
    timed("lesions: SegResNet", lambda: [lesions(window) for _ in range(ran)], f"{ran} of {laid} windows", ran / laid)

    classifier = DenseNet121(spatial_dims=3, in_channels=1, out_channels=1).eval()

    def classify() -> torch.Tensor:
        sized = torch.nn.functional.interpolate(torch.from_numpy(cut)[None, None], size=CLASSIFIER_SIZE)
        return classifier(ResizeWithPadOrCrop(CLASSIFIER_SIZE)(sized[0])[None])

    timed("probability: DenseNet121", classify)

    def write() -> None:
        labels = np.where(lungs, np.where(np.arange(hu.shape[2]) < hu.shape[2] // 2, 1, 2), 0).astype(np.uint8)
        for image in images:
            del image.PixelData
        names = ("right lung", "left lung")
        segments = [
            highdicom.seg.SegmentDescription(
                segment_number=number,
                segment_label=name,
                segmented_property_category=codes.SCT.Organ,
                segmented_property_type=codes.SCT.Lung,
                algorithm_type="AUTOMATIC",
                algorithm_identification=highdicom.AlgorithmIdentificationSequence(
                    "R231", codes.DCM.ArtificialIntelligence, "1"
                ),
            )
            for number, name in enumerate(names, start=1)
        ]
        segmentation = highdicom.seg.Segmentation(
            images, labels, "BINARY", segments,
            series_instance_uid=highdicom.UID(), series_number=1, sop_instance_uid=highdicom.UID(), instance_number=1,
            manufacturer="peers", manufacturer_model_name="peers", software_versions="1", device_serial_number="1",
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            segmentation.save_as(Path(folder) / "lungs.dcm")

    timed("one SEG with highdicom", write)
    packages = ("torch", "lungmask", "monai", "highdicom")
    print(
        json.dumps(
            {
                "steps": steps,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "versions": ", ".join(f"{name} {metadata.version(name)}" for name in packages),
            }
        )
    )


if __name__ == "__main__":
    main()
