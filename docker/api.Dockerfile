# syntax=docker/dockerfile:1.7
# The HTTP front end: no torch, so it is small and starts in a second. From the repository's root:
#   docker build -f docker/api.Dockerfile -t loramend-api .
# It listens on every address of the container and therefore refuses to start without API keys.

FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/loramend
ENV PATH=/opt/loramend/bin:$PATH
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
# Dependencies first, beside empty packages: they stay in a layer of their own while the code changes.
RUN mkdir loramend service worker \
    && pip install -c constraints.txt ".[service,s3]" \
    && pip uninstall -y loramend
COPY loramend loramend
COPY service service
COPY worker worker
RUN pip install --no-deps .

FROM python:3.11-slim-bookworm
RUN groupadd --gid 10001 loramend \
    && useradd --uid 10001 --gid loramend --home-dir /var/lib/loramend --shell /usr/sbin/nologin loramend \
    && install -d -o loramend -g loramend \
        /var/lib/loramend /var/lib/loramend/models /var/lib/loramend/work
COPY --from=build /opt/loramend /opt/loramend
ENV PATH=/opt/loramend/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TMPDIR=/var/lib/loramend/work \
    LORAMEND_HOST=0.0.0.0 \
    LORAMEND_PORT=8000
USER 10001:10001
WORKDIR /var/lib/loramend
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as http; http.urlopen(f'http://localhost:{os.environ[\"LORAMEND_PORT\"]}/healthz', timeout=4)"]
CMD ["python", "-P", "-m", "service"]
