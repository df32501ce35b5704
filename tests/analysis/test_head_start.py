import dataclasses
import itertools
import threading
from concurrent.futures import wait

import numpy as np
import pytest
from pydicom import Dataset

from covid_ct.analysis.analyzer import Analyzer
from covid_ct.analysis.head_start import HeadStart
from covid_ct.errors import ModelError
from covid_ct.inference.manifest import load_manifest
from covid_ct.inference.session import Model
from covid_ct.series.volume import Volume
from tests.analysis import chest
from tests.inference import tiny_models


@pytest.fixture(scope="module")
def analyzer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    model_input = {"size": list(chest.SHAPE[1:])}
    network = tiny_models.lungs_by_density(chest.SHAPE[2])
    tiny_models.write(folder, tiny_models.manifest("lungs", model_input=model_input), network)
    content = tiny_models.manifest("lesions", model_input={"region": "field", **model_input})
    tiny_models.write(folder, content, tiny_models.lesions_by_density())
    content = tiny_models.manifest("covid", model_input={"outside_lungs_hu": -1000})
    tiny_models.write(folder, content, tiny_models.covid_by_mean())
    return Analyzer(folder, threads=1)


@pytest.fixture
def runs(monkeypatch):
    """How many slices each network has run on."""
    count = dict.fromkeys(("lungs", "lesions", "covid"), 0)
    run = Model.run

    def counted(self, images, features=None):
        count[self.manifest.role] += len(images)
        return run(self, images, features)

    monkeypatch.setattr(Model, "run", counted)
    return count


def with_headers(volume: Volume) -> Volume:
    headers = []
    for number in range(len(volume.hu)):
        header = Dataset()
        header.SeriesInstanceUID, header.SOPInstanceUID = "1.2.3.4", f"1.2.3.4.{number}"
        headers.append(header)
    return dataclasses.replace(volume, headers=tuple(headers))


def uids(volume: Volume) -> list[str]:
    return [str(header.SOPInstanceUID) for header in volume.headers]


def offer(head_start: HeadStart, volume: Volume, indices) -> None:
    """Slices of a volume, one by one, until the network has answered."""
    for index in indices:
        head_start.offer(Volume(volume.hu[index : index + 1], volume.affine, (volume.headers[index],)))
    wait(head_start._begun.values())


def same(one, other) -> bool:
    return (
        np.array_equal(one.lungs, other.lungs)
        and np.array_equal(one.lesions, other.lesions)
        and one.to_dict() == other.to_dict()
    )


@pytest.mark.parametrize("flips", list(itertools.product((1, -1), repeat=3)))
def test_what_is_known_early_is_not_asked_again_and_changes_nothing(analyzer, runs, flips):
    # Neither alike upside down nor the same in both slices of a batch.
    volume = with_headers(chest.volume(chest.hu()[7:], flips=flips))
    plain = analyzer.analyze(volume)
    asked = runs["lungs"]
    head_start = analyzer.head_start(uids(volume), volume.affine)
    offer(head_start, volume, np.random.default_rng(1).permutation(len(volume.hu)))
    assert runs["lungs"] == 2 * asked
    assert same(plain, analyzer.analyze(volume, head_start=head_start))
    assert runs["lungs"] == 2 * asked


def test_what_came_too_late_for_a_batch_is_asked_for_later(analyzer, runs):
    volume = with_headers(chest.volume())
    plain = analyzer.analyze(volume)
    asked = runs["lungs"]
    head_start = analyzer.head_start(uids(volume), volume.affine)
    offer(head_start, volume, range(7))
    assert runs["lungs"] == asked + 6
    assert same(plain, analyzer.analyze(volume, head_start=head_start))
    assert runs["lungs"] == 2 * asked


def test_a_network_that_answers_by_the_batch_sees_the_same_batches(analyzer, monkeypatch):
    """As networks of dynamic quantisation do, whose scale is that of the whole batch."""
    run, seen = Model.run, []

    def batched(self, images, features=None):
        if self.manifest.role == "lungs":
            seen.append(images.tobytes())
        return run(self, images, features)

    monkeypatch.setattr(Model, "run", batched)
    volume = with_headers(chest.volume())
    analyzer.analyze(volume)
    plain = sorted(seen)
    seen.clear()
    head_start = analyzer.head_start(uids(volume), volume.affine)
    offer(head_start, volume, np.random.default_rng(2).permutation(len(volume.hu))[:-9])
    assert 0 < len(seen) < len(plain)
    analyzer.analyze(volume, head_start=head_start)
    assert sorted(seen) == plain


def test_thin_slices_are_asked_for_as_the_analysis_will(analyzer, runs):
    thin = with_headers(chest.volume(np.repeat(chest.hu(), 4, axis=0)))
    thin.affine[2, 0] /= 4
    analyzer.analyze(thin)
    asked = runs["lungs"]
    assert asked < len(thin.hu)
    head_start = analyzer.head_start(uids(thin), thin.affine)
    offer(head_start, thin, range(len(thin.hu)))
    assert runs["lungs"] == 2 * asked


def test_a_series_that_is_not_what_was_expected_has_the_same_findings(analyzer):
    volume = with_headers(chest.volume())
    head_start = analyzer.head_start(uids(volume)[20:0:-3], volume.affine)
    offer(head_start, volume, range(len(volume.hu)))
    assert same(analyzer.analyze(volume), analyzer.analyze(volume, head_start=head_start))


def test_what_is_not_begun_when_all_is_read_is_left_to_the_analysis(analyzer, runs, monkeypatch):
    volume = with_headers(chest.volume())
    plain = analyzer.analyze(volume)
    asked = runs["lungs"]
    goes_on = threading.Event()
    run = Model.run

    def waits(self, images, features=None):
        goes_on.wait()
        return run(self, images, features)

    monkeypatch.setattr(Model, "run", waits)
    with analyzer.head_start(uids(volume), volume.affine) as head_start:
        for index in range(len(volume.hu)):
            head_start.offer(Volume(volume.hu[index : index + 1], volume.affine, (volume.headers[index],)))
        threading.Timer(0.2, goes_on.set).start()
        known = head_start.known(volume)
    assert 0 < len(known) < len(volume.hu)
    assert same(plain, analyzer.analyze(volume, head_start=head_start))
    assert runs["lungs"] == 2 * asked


def test_a_network_that_fails_early_is_told_of(tmp_path):
    network = tiny_models.nan_above(300)
    model = Model(load_manifest(tiny_models.write(tmp_path, tiny_models.manifest("lungs"), network), "lungs"))
    volume = with_headers(chest.volume(np.where(chest.hu() == 40, 400, chest.hu()).astype(np.int16)))
    with HeadStart(model, uids(volume), volume.affine) as head_start:
        offer(head_start, volume, range(len(volume.hu)))
        with pytest.raises(ModelError, match="no numbers"):
            head_start.known(volume)


def test_nothing_runs_any_more_after_its_end(analyzer):
    def at_work():
        return [thread for thread in threading.enumerate() if thread.name.startswith("covid-slices")]

    volume = with_headers(chest.volume())
    with analyzer.head_start(uids(volume), volume.affine) as head_start:
        offer(head_start, volume, range(4))
        assert at_work()
    assert not at_work()


def test_what_is_offered_may_be_overwritten(analyzer):
    volume = with_headers(chest.volume())
    head_start = analyzer.head_start(uids(volume), volume.affine)
    for index in range(len(volume.hu)):
        pixels = volume.hu[index : index + 1].copy()
        head_start.offer(Volume(pixels, volume.affine, (volume.headers[index],)))
        pixels[:] = 0
    wait(head_start._begun.values())
    assert same(analyzer.analyze(volume), analyzer.analyze(volume, head_start=head_start))


def test_a_network_of_volumes_waits_for_all_slices(tmp_path):
    content = tiny_models.manifest("lesions", model_input={"dimensions": 3, "size": [8, 64, 64], "region": "field"})
    folder = tiny_models.write(tmp_path, content, tiny_models.lesions_by_density(dimensions=3))
    volume = with_headers(chest.volume())
    head_start = HeadStart(Model(load_manifest(folder, "lesions")), uids(volume), volume.affine)
    offer(head_start, volume, range(len(volume.hu)))
    assert head_start.known(volume) == {}
