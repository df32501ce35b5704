import pytest

from covid_ct.phantom import Anatomy, Lesions, Phantom, PhantomOptions, build_anatomy, scan

SMALL = PhantomOptions(matrix=128, slices=50, spacing_mm=6.0)


@pytest.fixture(scope="session")
def anatomy() -> Anatomy:
    return build_anatomy(SMALL.seed, Lesions.BOTH)


@pytest.fixture(scope="session")
def phantom(anatomy: Anatomy) -> Phantom:
    return scan(anatomy, SMALL)
