# syntax=docker/dockerfile:1.7
# A worker: fetches, repairs and publishes. From the repository's root:
#   docker build -f docker/worker.Dockerfile -t loramend-worker .
# TORCH_INDEX chooses torch's build: the CPU one by default; https://pypi.org/simple has the one with CUDA,
# for which the host needs NVIDIA's driver and container toolkit, and this image nothing more.

FROM python:3.11-slim-bookworm AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/loramend
ENV PATH=/opt/loramend/bin:$PATH
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
RUN pip install -c constraints.txt --index-url "${TORCH_INDEX}" torch
# The other dependencies next, beside empty packages: they stay in a layer of their own while the code changes.
RUN mkdir loramend service worker \
    && pip install -c constraints.txt ".[worker,s3,sign]" \
    && pip uninstall -y loramend
COPY loramend loramend
COPY service service
COPY worker worker
RUN pip install --no-deps .

FROM python:3.11-slim-bookworm
RUN groupadd --gid 10001 loramend \
    && useradd --uid 10001 --gid loramend --home-dir /var/lib/loramend --shell /usr/sbin/nologin loramend \
    && install -d -o loramend -g loramend \
        /var/lib/loramend /var/lib/loramend/cache /var/lib/loramend/models /var/lib/loramend/work
COPY --from=build /opt/loramend /opt/loramend
COPY docker/worker_health.py /opt/loramend/worker_health.py
ENV PATH=/opt/loramend/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TMPDIR=/var/lib/loramend/work \
    LORAMEND_WORK_DIR=/var/lib/loramend/work \
    LORAMEND_CACHE_DIR=/var/lib/loramend/cache \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /var/lib/loramend
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "-P", "/opt/loramend/worker_health.py"]
CMD ["python", "-P", "-m", "worker", "--queues", "io,spectral,train"]
