# Orthanc with COVID-19 chest-CT analysis, for machines with and without an NVIDIA GPU.
FROM orthancteam/orthanc:26.6.0

# The image's Debian has Python 3.13, which Orthanc's Python plugin embeds.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends fonts-dejavu-core python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/covid-ct
COPY requirements-base.txt requirements-gpu.txt requirements-no-deps.txt ./
RUN python3 -m venv .venv \
    && .venv/bin/pip install --no-cache-dir -r requirements-gpu.txt \
    && .venv/bin/pip install --no-cache-dir --no-deps -r requirements-no-deps.txt
COPY LICENSE ./
COPY plugin plugin
COPY models models
COPY tools/explorer2.py tools/
RUN python3 tools/explorer2.py > /etc/orthanc/covid-ct-explorer2.json \
    && echo '{"OHIF": {"DataSource": "dicom-web"}}' > /etc/orthanc/covid-ct-ohif.json

# TensorRT's libraries lie in their wheel (which PyPI's package fetches from NVIDIA's own index); the plugin has those of CUDA and cuDNN loaded.
ENV LD_LIBRARY_PATH=/opt/covid-ct/.venv/lib/python3.13/site-packages/tensorrt_libs \
    DICOM_WEB_PLUGIN_ENABLED=true \
    STONE_WEB_VIEWER_PLUGIN_ENABLED=true \
    OHIF_PLUGIN_ENABLED=true \
    ORTHANC_EXPLORER_2_ENABLED=true \
    ORTHANC__PYTHON_SCRIPT=/opt/covid-ct/plugin/covid.py \
    ORTHANC__PYTHON__ALLOW_THREADS=true \
    ORTHANC__DICOM_ALWAYS_ALLOW_STORE=false \
    ORTHANC__DICOM_CHECK_MODALITY_HOST=true \
    ORTHANC__STONE_WEB_VIEWER__SKIP_SERIES_FROM_MODALITIES='["SEG", "PR"]'
