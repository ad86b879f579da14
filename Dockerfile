# syntax=docker/dockerfile:1
# Stage 1 builds the wheels and installs them with their locked dependencies; stage 2 carries only the result, git, and
# what git calls: ssh to fetch and to verify, gpg to verify.
# Debian, not Alpine: the wheels of the dependencies are made for glibc.

FROM python:3.13-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements/ requirements/
RUN python -m venv /opt/cron-observer \
    && /opt/cron-observer/bin/pip install --require-hashes --requirement requirements/runtime.txt \
    && python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --requirement requirements/bootstrap.txt
COPY . .
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels ./sdk . \
    && /opt/cron-observer/bin/pip install --no-deps /wheels/*.whl

FROM python:3.13-slim-bookworm
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git gpg gpg-agent openssh-client tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/cron-observer --create-home cron-observer
COPY --from=build /opt/cron-observer /opt/cron-observer
ENV PATH=/opt/cron-observer/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    CRON_OBSERVER_HOST=0.0.0.0 \
    CRON_OBSERVER_DATA_DIR=/var/lib/cron-observer
USER 10001:10001
WORKDIR /var/lib/cron-observer
VOLUME /var/lib/cron-observer
EXPOSE 8475
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8475/livez', timeout=2)"]
# tini reaps what git and workers leave behind.
ENTRYPOINT ["tini", "--", "cron-observer"]
CMD ["serve"]
