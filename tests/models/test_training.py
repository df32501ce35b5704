"""What the training makes up, and what it ships; without PyTorch there is no training."""

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch", reason="the training needs PyTorch")

from torch.utils.data import DataLoader  # noqa: E402

from models.training.augment import Geometry, add_domes, move, paste_lesions  # noqa: E402
from models.training.covid import platt  # noqa: E402
from models.training.data import FOLDS, SHOWN_TO_ALL, Slices  # noqa: E402
from models.training.export import export_committee  # noqa: E402
from models.training.maps import Maps, export_classifiers  # noqa: E402
from models.training.member import keep_output, member_name  # noqa: E402
from models.training.networks import Classifier, Committee, OneForeground, UNet, cut_at, pool  # noqa: E402
from models.training.segmentation import Batches, Pool, Recipe, train  # noqa: E402

LUNG_HU, MUSCLE_HU = -850.0, 40.0


@pytest.fixture
def chest():
    """Two images of lungs, and where they are."""
    lungs = torch.zeros(2, 1, 128, 128, dtype=torch.bool)
    lungs[..., 30:100, 15:55] = lungs[..., 30:100, 75:115] = True
    return torch.where(lungs, LUNG_HU, MUSCLE_HU), lungs


def test_domes_are_dense_and_lie_where_lung_was(chest):
    hu, lungs = chest
    domed, gone = add_domes(hu, lungs, torch.Generator().manual_seed(5))
    assert gone.flatten(1).any(dim=1).all()
    assert not (gone & ~lungs[:, 0]).any()
    assert (domed[:, 0][gone] > LUNG_HU + 300).all()
    left = lungs[:, 0] & ~gone
    assert domed[:, 0][left].median() < LUNG_HU + 300
    assert torch.equal(domed[:, 0][~_around(lungs)], hu[:, 0][~_around(lungs)])


def _around(lungs):
    return torch.nn.functional.max_pool2d(lungs.float(), 3, 1, 1)[:, 0] > 0


def test_prone_images_and_their_labels_have_the_spine_at_the_top(chest):
    hu, lungs = chest
    hu[:, :, :20] = 1000.0
    whole = torch.tensor([[0.0, 128.0, 0.0, 128.0]] * 2)
    still = Geometry((128, 128), (1.0, 1.0 + 1e-7), 0.0, 0.0, mirror=0.0, prone=1.0)
    moved, labels, mirrored = move(hu, lungs.long(), whole, still, torch.Generator().manual_seed(5))
    assert torch.allclose(moved, hu.flip(2), atol=0.5)
    assert torch.equal(labels, lungs.long().flip(2))
    assert not mirrored.any()


def test_pasted_lesions_lie_in_aerated_lung_and_are_labelled(chest):
    hu, lungs = chest
    lungs = lungs[:, 0]
    own = torch.zeros(2, 128, 128, dtype=torch.long)
    own[:, 40:50, 20:30] = 2
    hu[:, 0][own > 0] = -100.0
    donor = torch.zeros(2, 128, 128, dtype=torch.long)
    donor[:, 35:95, 20:70] = 1  # in the right lung, over the own lesion, and beside the lung
    pasted, labels = paste_lesions(hu, lungs, own, torch.full_like(hu, -300.0), donor)
    inside = lungs & (donor > 0)
    assert torch.equal(labels > 0, inside | (own > 0))
    assert (pasted[:, 0][_within(inside)] == -300.0).all()
    far = ~_around(inside[:, None])
    assert torch.equal(pasted[:, 0][far], hu[:, 0][far])


def _within(mask):
    return ~_around(~mask[:, None])


@torch.no_grad()
def test_a_threshold_becomes_one_half():
    torch.manual_seed(0)
    network = UNet(3, (4, 8)).eval()
    image = torch.rand(1, 1, 32, 32)
    before = 1 - torch.softmax(network(image), 1)[:, 0]
    threshold = float(before.median())
    cut_at(network, threshold)
    after = 1 - torch.softmax(network(image), 1)[:, 0]
    certain = (before - threshold).abs() > 1e-4
    assert certain.any()
    assert torch.equal(after[certain] > 0.5, before[certain] > threshold)
    assert torch.allclose(torch.sigmoid(OneForeground(network)(image))[:, 0], after, atol=1e-5)


def answer(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert len(session.get_outputs()) == 1
    return session.run(None, {"image": images})[0]


def test_a_committee_answers_the_mean_of_its_networks_and_each_can_be_taken_out(tmp_path):
    torch.manual_seed(0)
    networks = [UNet(3, (4, 8)).eval() for _ in range(3)]
    images = np.random.default_rng(0).random((2, 1, 32, 32), np.float32)
    export_committee(Committee(networks), (32, 32), tmp_path / "model.onnx", images[:, 0])
    together = answer(tmp_path / "model.onnx", images)
    alone = []
    for number, network in enumerate(networks):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes((tmp_path / "model.onnx").read_bytes())
        keep_output(path, member_name(number))
        alone.append(answer(path, images))
        with torch.no_grad():
            expected = network(torch.from_numpy(images)).numpy()
        # Eight bits.
        assert np.abs(alone[-1] - expected).max() < 0.1 * np.abs(expected).max()
    assert np.allclose(together, np.mean(alone, axis=0), atol=1e-5)


@pytest.fixture
def lesion_maps(tmp_path):
    """Maps of two networks, in a file as that of the lesions is, for images of another size."""
    torch.manual_seed(0)
    committee = Committee([OneForeground(UNet(3, (4, 8, 8)).eval()) for _ in range(2)])
    images = np.random.default_rng(0).random((6, 32, 32), np.float32)
    export_committee(committee, (32, 32), tmp_path / "lesions.onnx", images)
    return Maps(tmp_path / "lesions.onnx", (32, 64))


def test_maps_are_those_of_each_network_on_the_way_down_and_up(lesion_maps):
    seen = lesion_maps(torch.rand(3, 1, 32, 64))
    sides = sorted([(16, 32), (8, 16), (4, 8), (8, 16)])
    assert [sorted(tuple(map_.shape[2:]) for map_ in network) for network in seen] == [sides, sides]
    assert not torch.equal(seen[0][0], seen[1][0])


def test_classifiers_answer_alike_as_a_file_and_for_an_image_and_its_mirror_image(lesion_maps, tmp_path):
    images = np.random.default_rng(0).random((6, 1, 32, 64), np.float32)
    pooled = [pool(network) for network in lesion_maps(torch.from_numpy(images))]
    torch.manual_seed(1)
    classifiers = [Classifier(features.shape[1]).eval() for features in pooled]
    export_classifiers(lesion_maps, classifiers, tmp_path / "model.onnx")
    given, mirrored = (answer(tmp_path / "model.onnx", part) for part in (images, images[..., ::-1].copy()))
    assert given.shape == (6, 1)
    assert given == pytest.approx(mirrored, abs=1e-5)
    assert np.ptp(given) > 1e-3
    with torch.no_grad():
        plain, turned = (
            torch.stack([unit(pool(maps)) for unit, maps in zip(classifiers, lesion_maps(part), strict=True)])
            for part in (torch.from_numpy(images), torch.from_numpy(images).flip(3))
        )
    assert given == pytest.approx(((plain + turned) / 2).mean(dim=0).numpy(), abs=1e-5)


@pytest.mark.parametrize("slope", [0.2, 1.0, 5.0])
def test_platt_scaling_finds_the_slope_of_logits_that_are_too_wide_or_too_narrow(slope):
    random = np.random.default_rng(0)
    true_logits = random.normal(0, 2, 20000)
    truth = random.random(20000) < 1 / (1 + np.exp(-true_logits))
    assert platt((true_logits / slope).astype(np.float32), truth) == pytest.approx((slope, 0.0), rel=0.1, abs=0.1)


def test_batches_are_the_same_however_many_processes_make_them():
    random = np.random.default_rng(0)
    hu = random.integers(-1000, 100, (8, 256, 256), dtype=np.int16)
    labels = (hu < -500).astype(np.uint8)
    pools = [Pool(Slices("made up", hu, labels, labels, np.arange(8), np.arange(8) % FOLDS), 1, whole_field=True)]
    recipe = Recipe("lungs", Geometry((32, 32)), (-1200.0, 200.0), steps=1)
    made = {}
    for processes in (0, 1, 2):
        batches = iter(DataLoader(Batches(pools, recipe), batch_size=None, num_workers=processes))
        made[processes] = [next(batches)[0] for _ in range(5)]
    assert not torch.equal(made[0][0], made[0][1])
    for processes in (1, 2):
        assert all(torch.equal(one, other) for one, other in zip(made[0], made[processes], strict=True))


def test_a_network_learns_nothing_from_its_own_fold():
    """Its fold's labels are all foreground, the others' none: it answers as the others say, and they learn both.

    The slices come in two sizes, as those of the sources do.
    """
    random = np.random.default_rng(0)
    labels = np.zeros((40, 256, 256), np.uint8)
    folds = np.where(np.arange(40) % 2 == 0, 0, SHOWN_TO_ALL)
    labels[folds == 0] = 1
    hu = np.where(labels > 0, -900, 0).astype(np.int16) + random.integers(-50, 50, labels.shape, dtype=np.int16)
    slices = Slices("made up", hu, labels, labels, np.arange(40), folds)
    fine_hu, fine_labels = (array.repeat(2, axis=1).repeat(2, axis=2) for array in (hu, labels))
    fine = Slices("made up, fine", fine_hu, fine_labels, fine_labels, np.arange(40), folds)
    torch.manual_seed(0)
    recipe = Recipe("lungs", Geometry((32, 32)), (-1200.0, 200.0), steps=120, opacities=0.0)
    pools = [Pool(slices, 1, whole_field=True), Pool(fine, 1, whole_field=True)]
    networks, _ = train([UNet(3, (4, 8)) for _ in range(FOLDS)], pools, recipe)
    image = (torch.from_numpy(hu[:1, np.newaxis, ::8, ::8]).float() + 1200.0) / 1400.0
    with torch.no_grad():
        foreground = [float(1 - torch.softmax(network(image), 1)[:, 0].mean()) for network in networks]
    assert foreground[0] < 0.5 < min(foreground[1:])
