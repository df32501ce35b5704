"""What the training makes up, and what it ships; without PyTorch there is no training."""

import pytest

torch = pytest.importorskip("torch", reason="the training needs PyTorch")

from models.training.augment import add_domes  # noqa: E402
from models.training.networks import OneForeground, UNet, cut_at  # noqa: E402

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
