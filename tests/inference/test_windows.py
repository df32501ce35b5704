import numpy as np
import pytest

from covid_ct.inference.manifest import load_manifest
from covid_ct.inference.scan import Scan
from covid_ct.inference.session import Model
from covid_ct.inference.windows import predict, sliding_windows
from tests.inference import tiny_models


def ignore(fraction):
    pass


def load(folder, content, network):
    tiny_models.write(folder, content, network)
    return Model(load_manifest(folder / content["role"], content["role"]), threads=1)


@pytest.fixture
def chest():
    """Two lungs of -850 HU in a body, a lesion in the right one (left in the image), 10 slices of 96x128."""
    hu = np.full((10, 96, 128), -1024, np.int16)
    hu[:, 8:88, 8:120] = 40
    hu[1:9, 24:72, 16:56] = -850
    hu[1:9, 24:72, 72:112] = -850
    hu[3:6, 40:56, 24:40] = -550
    return hu


def cells(prediction, number):
    return np.argwhere(prediction.probabilities[number] > 127)


def test_slices_of_the_whole_field(tmp_path, chest):
    model = load(tmp_path, tiny_models.manifest("lungs"), tiny_models.lungs_by_density())
    seen = []
    prediction = predict(model, Scan(chest, (5, 1, 1)), seen.append)
    grid = prediction.grid
    assert (grid.slices.tolist(), grid.rows, grid.columns) == (list(range(10)), (0, 96), (0, 128))
    assert prediction.probabilities.shape == (2, 10, 64, 64)
    assert grid.cell_mm((5, 1, 1)) == (5, 1.5, 2)
    assert seen == [0.2, 0.4, 0.6, 0.8, 1.0]
    # Network cells of 1.5 x 2 voxels; the left half of the image is the right lung.
    assert cells(prediction, 0).min(axis=0).tolist() == [1, 16, 8]
    assert cells(prediction, 0).max(axis=0).tolist() == [8, 47, 27]
    assert cells(prediction, 1).min(axis=0).tolist() == [1, 16, 36]


def test_slices_cropped_to_the_body_come_back_to_the_field(tmp_path, chest):
    """The body's box differs from slice to slice; the lungs come back to where they are."""
    chest[5:, 8:16] = -1024
    content = tiny_models.manifest("lungs", model_input={"region": "body"})
    model = load(tmp_path, content, tiny_models.lungs_by_density())
    prediction = predict(model, Scan(chest, (5, 1, 1)), ignore)
    either = prediction.probabilities.sum(axis=0) > 127
    assert either.shape == (10, 256, 256)
    grid_rows = np.repeat(np.arange(256) * 96 // 256, 1)
    grid_columns = np.arange(256) * 128 // 256
    truth = (chest == -850)[:, grid_rows][:, :, grid_columns] | (chest == -550)[:, grid_rows][:, :, grid_columns]
    overlap = 2 * np.count_nonzero(either & truth) / (np.count_nonzero(either) + np.count_nonzero(truth))
    assert overlap > 0.97


def test_the_lung_region_leaves_out_slices_without_lung(tmp_path, chest):
    lungs = ((chest == -850) | (chest == -550)).astype(np.uint8)
    lungs[2] = 0
    content = tiny_models.manifest("lesions", model_input={"region_margin_mm": 4})
    model = load(tmp_path, content, tiny_models.lesions_by_density())
    prediction = predict(model, Scan(chest, (2, 1, 1), lungs), ignore)
    assert prediction.grid.slices.tolist() == [1, 3, 4, 5, 6, 7, 8]
    assert prediction.grid.rows == (20, 76)
    assert prediction.grid.columns == (12, 116)
    # What is not lung between the lungs looks like a lesion here.
    assert np.unique(cells(prediction, 0)[:, 0]).tolist() == list(range(7))


def test_windows_lie_as_monai_lays_them(tmp_path):
    """The first channel's answer is the mean over windows of a network that tells voxels by density."""
    content = tiny_models.manifest(
        "lesions",
        model_input={"dimensions": 3, "size": [4, 16, 16], "overlap": 0.6, "spacing_mm": [5, 1, 1]},
    )
    model = load(tmp_path, content, tiny_models.lesions_by_density(3))
    volume = np.full((9, 33, 12), -850, np.float32)
    volume[2:5, 10:20, 3:9] = -550
    volume[6:8, 25:33, 3:9] = 0
    ticks = []
    answer = sliding_windows(model, volume, ticks.append)
    # Steps of int(4 * 0.4) = 1 and int(16 * 0.4) = 6: 6 x 4 windows, and one in the padded columns.
    assert len(ticks) == 6 * 4
    assert answer.shape == (2, 9, 33, 12)
    np.testing.assert_array_equal(answer[0] > 0.5, volume == -550)
    np.testing.assert_array_equal(answer[1] > 0.5, volume == 0)


@pytest.mark.parametrize("axes", ["zyx", "xyz"])
@pytest.mark.parametrize("directions", ["LPS", "RAS"])
def test_a_volume_is_turned_and_turned_back(tmp_path, chest, axes, directions):
    """Without a spacing the region is scaled to the size; turned or not, the lesion is where it is."""
    lungs = ((chest == -850) | (chest == -550)).astype(np.uint8)
    content = tiny_models.manifest(
        "lesions",
        model_input={
            "dimensions": 3,
            "axes": axes,
            "directions": directions,
            "region_margin_mm": 0,
            "spacing_mm": [5, 2, 2],
            "size": [8, 24, 48],
            "overlap": 0.5,
        },
    )
    model = load(tmp_path, content, tiny_models.lesions_by_density(3))
    prediction = predict(model, Scan(chest, (5, 1, 1), lungs), ignore)
    assert (prediction.grid.slices.tolist(), prediction.grid.cells) == (list(range(1, 9)), (24, 48))
    assert prediction.probabilities.shape == (2, 8, 24, 48)
    glass = prediction.probabilities[0] > 127
    wanted = np.zeros_like(glass)
    wanted[2:5, 8:16, 4:12] = True
    inside = lungs[1:9, 24:72:2, 16:112:2] > 0
    # Beside the lesion, cells of the lung's edge have its density.
    inside[:, :, [0, 19, 28, 47]] = False
    np.testing.assert_array_equal(glass & inside, wanted)


def test_a_network_sees_its_axes(tmp_path, chest):
    """A classifier that takes the first axis's gradient would notice a wrong order; here the shape tells."""
    content = tiny_models.manifest(
        "lesions", model_input={"dimensions": 3, "axes": "xyz", "spacing_mm": [5, 1, 1], "size": [4, 24, 48]}
    )
    network = tiny_models.lesions_by_density(3)
    for dimension, value in zip(network.graph.input[0].type.tensor_type.shape.dim[2:], (48, 24, 4), strict=True):
        dimension.ClearField("dim_param")
        dimension.dim_value = value
    load(tmp_path, content, network)


def test_thick_resampling_keeps_the_amount(chest):
    """Resampled from 5 mm to 2.5 and 10 mm, the mean density of the box stays."""
    content = tiny_models.manifest("lesions")["input"]
    for spacing in ([2.5, 1, 1], [10, 2, 2], [7, 1.3, 0.7]):
        model_input = _input({**content, "dimensions": 3, "size": [4, 16, 16], "spacing_mm": spacing})
        scan = Scan(chest, (5, 1, 1))
        volume = scan.volume(model_input, scan.box(model_input))
        assert volume.mean() == pytest.approx(chest.mean(), abs=12)


def test_a_network_of_coarse_images_sees_no_fine_noise(chest):
    """Noise of single pixels is averaged away in pixels of 4 mm, not in those of 1 mm, which are no finer."""
    content = {**tiny_models.manifest("lungs")["input"], "size": list(chest.shape[1:])}
    noise = np.random.default_rng(0).normal(0, 100, chest.shape)
    scan = Scan(np.clip(chest + noise, -1024, 600).astype(np.int16), (5, 1, 1))
    spreads = []
    for finest in (None, 1.0, 4.0):
        model_input = _input({**content, "finest_mm": finest})
        boxes = scan.slice_boxes(model_input, range(len(chest)), scan.box(model_input))
        prepared = scan.slices(model_input, boxes)
        # Along rows, so that the edges of the lungs count little.
        spreads.append(np.abs(np.diff(prepared, axis=2)).mean())
    assert spreads[1] == spreads[0]
    assert spreads[2] < spreads[0] / 4


def _input(content):
    from covid_ct.inference.manifest import ModelInput

    return ModelInput(
        **{
            "finest_mm": None,
            **content,
            "region": "field",
            "overlap": 0.0,
            "axes": "zyx",
            "interpolation": "area",
            "size": tuple(content["size"]),
            "clip_hu": tuple(content["clip_hu"]),
            "scale_to": tuple(content["scale_to"]),
        }
    )


def test_a_network_sees_thin_slices_at_a_distance(tmp_path, chest, monkeypatch):
    model = load(tmp_path, tiny_models.manifest("lungs"), tiny_models.lungs_by_density())
    seen = []
    run = Model.run
    monkeypatch.setattr(Model, "run", lambda self, images: [seen.extend(images), run(self, images)][1])
    everything = predict(model, Scan(chest, (4, 1, 1)), ignore)
    assert len(seen) == 10
    seen.clear()
    thin = predict(model, Scan(chest, (1, 1, 1)), ignore)
    assert len(seen) == 4  # 0, 4, 8 and 9, the last one
    assert thin.grid.slices.tolist() == [0, 4, 8, 9]
    assert thin.grid.cell_mm((1, 1, 1)) == (3, 1.5, 2)
    np.testing.assert_array_equal(thin.probabilities, everything.probabilities[:, [0, 4, 8, 9]])
