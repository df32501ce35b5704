"""Well-known networks under our manifests: their own packages' functions and ours have to agree.

Weights are random (what is compared is the way to the network and back) or those of a threshold, where a mask has to
make sense. Each test skips where the network's package is not installed.
"""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from covid_ct.inference.manifest import load_manifest
from covid_ct.inference.preprocessing import axis_weights, resample_plane
from covid_ct.inference.scan import Scan
from covid_ct.inference.session import Model
from covid_ct.inference.windows import predict, sliding_windows, to_tensor
from tests.inference import tiny_models

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

SPACING = (3.0, 1.5, 1.5)

R231 = {
    "model_input": {
        "region": "body",
        "size": [256, 256],
        "clip_hu": [-1024, 600],
        "scale_to": [0, 1],
        "interpolation": "linear",
    },
    "output": {"activation": "softmax", "classes": ["background", "right lung", "left lung"]},
}

SEGRESNET = {
    "model_input": {
        "dimensions": 3,
        "axes": "xyz",
        "directions": "RAS",
        "region": "lungs",
        "region_margin_mm": 10,
        "spacing_mm": [5, 0.8, 0.8],
        "size": [32, 224, 224],
        "overlap": 0.6,
        "clip_hu": [-1000, 500],
        "scale_to": [0, 1],
        "interpolation": "linear",
    },
    "output": {"activation": "softmax", "classes": ["background", "lesion"]},
}

DENSENET = {
    "model_input": {
        "dimensions": 3,
        "axes": "xyz",
        "directions": "RAS",
        "region": "lungs",
        "region_margin_mm": 0,
        "size": [64, 192, 192],
        "clip_hu": [-1500, 100],
        "scale_to": [0, 1],
    },
    "output": {"activation": "sigmoid", "classes": ["COVID-19"], "aggregation": None},
}


def chest(slices=12, size=256):
    """A smooth chest with a table, and where its lungs are; standard axial view, 1.5 mm pixels."""
    z, y, x = np.ogrid[-1 : 1 : slices * 1j, -1 : 1 : size * 1j, -1 : 1 : size * 1j]
    hu = np.full((slices, size, size), -1000.0)
    hu[np.broadcast_to((x / 0.85) ** 2 + (y / (0.6 + 0.1 * z)) ** 2 < 1, hu.shape)] = 30
    right = ((x + 0.4) / 0.3) ** 2 + (y / 0.42) ** 2 + (z / 1.1) ** 2 < 1
    left = ((x - 0.42) / 0.26) ** 2 + (y / 0.42) ** 2 + (z / 1.1) ** 2 < 1
    hu[right | left] = -850
    hu[((x + 0.5) / 0.1) ** 2 + ((y - 0.2) / 0.12) ** 2 + (z / 0.6) ** 2 < 1] = -450
    hu[:, int(size * 0.9) : int(size * 0.92)] = 150
    noise = np.random.default_rng(0).normal(0, 15, hu.shape)
    return np.rint(hu + noise).astype(np.int16), (right * 1 + left * 2).astype(np.uint8)


def export(folder, role, module, settings, features=None):
    """A module as ONNX with a manifest, loaded as the plugin loads it."""
    content = tiny_models.manifest(role, **settings)
    model_input = content["input"]
    size = model_input["size"][::-1] if model_input.get("axes") == "xyz" else model_input["size"]
    path = folder / "exported.onnx"
    torch.onnx.export(
        module.eval(),
        (torch.zeros(2, 1, *size),),
        str(path),
        input_names=["image"],
        output_names=["output"],
        dynamic_axes={"image": {0: "batch"}, "output": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    tiny_models.write(folder, content, onnx.load(path))
    return Model(load_manifest(folder / role, role))


def dice(first, second):
    return 2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second))


def small(settings, size):
    """The same settings with a smaller tensor, so that a test takes seconds."""
    return {**settings, "model_input": {**settings["model_input"], "size": size}}


@pytest.fixture(scope="module")
def r231(tmp_path_factory):
    """lungmask's network itself, and exported."""
    resunet = pytest.importorskip("lungmask.resunet")
    torch.manual_seed(0)
    network = resunet.UNet(n_classes=3, padding=True, depth=5, up_mode="upsample", batch_norm=True, residual=False)
    return network.eval(), export(tmp_path_factory.mktemp("r231"), "lungs", network, R231)


@pytest.fixture(scope="module")
def segresnet(tmp_path_factory):
    """The lesion network itself, and exported for small windows."""
    nets = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(0)
    network = nets.SegResNet(spatial_dims=3, init_filters=16, in_channels=1, out_channels=2, upsample_mode="deconv")
    exported = export(tmp_path_factory.mktemp("segresnet"), "lesions", network, small(SEGRESNET, [16, 48, 32]))
    return network.eval(), exported


class TestR231:
    """lungmask's U-Net for right and left lung (Hofmanninger et al. 2020)."""

    def test_the_network_answers_through_onnx_as_it_does_itself(self, r231):
        network, model = r231
        image = np.random.default_rng(0).random((2, 256, 256), np.float32)
        with torch.inference_mode():
            own = network(torch.from_numpy(image)[:, None])
        # Its last layer is a log-softmax; the softmax of that is the softmax.
        np.testing.assert_allclose(model.run(image), own.exp().numpy(), atol=1e-4)

    def test_the_network_sees_what_lungmask_shows_it(self, r231):
        utils = pytest.importorskip("lungmask.utils")
        hu, _ = chest()
        prepared, boxes = utils.preprocess(hu, resolution=[256, 256])
        own = (prepared + 1024) / 1624
        model_input = r231[1].manifest.input
        scan = Scan(hu, SPACING)
        our_boxes = scan.slice_boxes(model_input, range(len(hu)), scan.box(model_input))
        for ours, theirs in zip(our_boxes, boxes, strict=True):
            # Both look for the body in a coarse image of 128 x 128.
            np.testing.assert_allclose((*ours.rows, *ours.columns), np.array(theirs)[[0, 2, 1, 3]], atol=3)
        images = scan.slices(model_input, our_boxes)
        assert np.median(np.abs(images - own)) < 0.01  # 16 HU, the noise
        assert np.corrcoef(images.ravel(), own.ravel())[0, 1] > 0.98

    def test_masks_come_back_where_lungmask_puts_them(self, tmp_path):
        mask = pytest.importorskip("lungmask.mask")

        class Threshold(torch.nn.Module):
            """Right and left lung by density and column, on R231's input."""

            def forward(self, image):
                lung = (0.3 - image) * (image - 0.06) * 1e3
                side = torch.linspace(-5, 5, image.shape[-1]) + 0 * image
                return torch.cat([0 * image, lung - side, lung + side], dim=1)

        hu, truth = chest()
        inferer = object.__new__(mask.LMInferer)
        inferer.batch_size, inferer.tqdm_disable, inferer.device = 4, True, torch.device("cpu")
        inferer.volume_postprocessing = False
        theirs = inferer._inference(hu, Threshold())
        model = export(tmp_path, "lungs", Threshold(), R231)
        prediction = predict(model, Scan(hu, SPACING), lambda fraction: None)
        for number in (0, 1):
            ours = prediction.probabilities[number] > 127
            assert dice(ours, theirs == number + 1) > 0.985
            assert abs(dice(ours, truth == number + 1) - dice(theirs == number + 1, truth == number + 1)) < 0.01

    def test_the_whole_network_fits_its_manifest(self, r231):
        hu, _ = chest(slices=3)
        prediction = predict(r231[1], Scan(hu, SPACING), lambda fraction: None)
        assert prediction.probabilities.shape == (2, 3, 256, 256)


class TestSegResNet:
    """NVIDIA's and MONAI's lesion network, clara_pt_covid19_ct_lesion_segmentation."""

    def test_windows_are_blended_as_monai_blends_them(self, segresnet):
        inferers = pytest.importorskip("monai.inferers")
        network, model = segresnet
        volume = np.random.default_rng(0).random((70, 40, 21), np.float32)
        ours = sliding_windows(model, volume, lambda fraction: None)
        tensor = torch.from_numpy(volume)[None, None]
        with torch.inference_mode():
            theirs = inferers.sliding_window_inference(
                tensor, (32, 48, 16), 4, lambda window: torch.softmax(network(window), dim=1), overlap=0.6
            )
        np.testing.assert_allclose(ours[0], theirs.numpy()[0, 1], atol=2e-4)

    def test_lesions_come_back_where_monai_puts_them(self, tmp_path):
        """Spacing, intensities, windows and the way back, with a network that finds lesions by density."""
        transforms = pytest.importorskip("monai.transforms")
        inferers = pytest.importorskip("monai.inferers")
        data = pytest.importorskip("monai.data")

        class Threshold(torch.nn.Module):
            def forward(self, image):
                return torch.cat([0 * image, (0.5 - image) * (image - 0.2) * 1e3], dim=1)

        hu, lungs = chest(slices=30)
        settings = small(SEGRESNET, [8, 96, 96])
        model = export(tmp_path, "lesions", Threshold(), settings)
        scan = Scan(hu, SPACING, lungs)
        box = scan.box(model.manifest.input)
        prediction = predict(model, scan, lambda fraction: None)
        grid = prediction.grid
        ours = resample_plane(
            prediction.probabilities[0],
            *(
                axis_weights(cells, (0, cells), interval[1] - interval[0])
                for cells, interval in zip(grid.cells, (grid.rows, grid.columns), strict=True)
            ),
        )
        ours = ours > 127.5

        # MONAI's way: the same box as a NIfTI-like image of x, y, z ascending to right, anterior, superior.
        cut = np.ascontiguousarray(hu[box.index].transpose(2, 1, 0)[::-1, ::-1]).astype(np.float32)
        affine = np.diag([SPACING[2], SPACING[1], SPACING[0], 1.0])
        image = data.MetaTensor(torch.from_numpy(cut)[None], affine=torch.from_numpy(affine))
        spaced = transforms.Spacing((0.8, 0.8, 5.0), mode="bilinear")(image)
        scaled = transforms.ScaleIntensityRange(-1000, 500, 0, 1, clip=True)(spaced)
        with torch.inference_mode():
            answer = inferers.sliding_window_inference(
                scaled[None], (96, 96, 8), 4, lambda window: torch.softmax(Threshold()(window), 1), overlap=0.6
            )
        back = transforms.SpatialResample(mode="bilinear")(
            data.MetaTensor(torch.as_tensor(answer[0, 1:]), affine=spaced.affine),
            dst_affine=torch.from_numpy(affine),
            spatial_size=cut.shape,
        )
        theirs = back.numpy()[0].transpose(2, 1, 0)[:, ::-1, ::-1] > 0.5
        # At the lungs' edge everything has a lesion's density somewhere.
        inside = binary_erosion(lungs[box.index], np.ones((1, 3, 3)), iterations=4)
        truth = (hu[box.index] > -650) & inside
        assert dice(ours & inside, theirs & inside) > 0.9
        assert dice(ours & inside, truth) > dice(theirs & inside, truth) - 0.01


class TestDenseNet:
    """NVIDIA's and MONAI's classifier, clara_pt_covid19_3d_ct_classification."""

    def test_the_network_sees_what_monai_shows_it(self, tmp_path):
        nets = pytest.importorskip("monai.networks.nets")
        transforms = pytest.importorskip("monai.transforms")
        torch.manual_seed(0)
        network = nets.DenseNet121(spatial_dims=3, in_channels=1, out_channels=1).eval()
        # DenseNet121 halves five times: 32 is the smallest.
        settings = small(DENSENET, [32, 48, 64])
        model = export(tmp_path, "covid", network, settings)
        model_input = model.manifest.input
        hu, lungs = chest(slices=40)
        scan = Scan(hu, SPACING, lungs)
        ours = to_tensor(scan.volume(model_input, scan.box(model_input))[np.newaxis], model_input)

        turned = [np.ascontiguousarray(array.transpose(2, 1, 0)[::-1, ::-1]) for array in (hu, lungs)]
        both = {
            "image": torch.from_numpy(turned[0].astype(np.float32))[None],
            "lungs": torch.from_numpy(turned[1])[None],
        }
        cropped = transforms.CropForegroundd(["image"], source_key="lungs", allow_smaller=True)(both)["image"]
        scaled = transforms.ScaleIntensityRange(-1500, 100, 0, 1, clip=True)(cropped)
        theirs = transforms.Resize((64, 48, 32), mode="area")(scaled).numpy()
        assert ours.shape == theirs.shape == (1, 64, 48, 32)
        assert np.median(np.abs(ours - theirs)) < 0.01
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.99
        with torch.inference_mode():
            own = torch.sigmoid(network(torch.from_numpy(theirs)[None])).item()
        assert model.run(ours)[0, 0] == pytest.approx(own, abs=0.02)
