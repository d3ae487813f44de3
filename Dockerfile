# One image for every service: `docker run polymart order_svc`, `docker run polymart order_svc migrate`.
# The digest is the base's, of the Python that the tests run on; another is given by --build-arg PYTHON_DIGEST=….
ARG PYTHON_DIGEST=sha256:2e32f7d302adc1c37428355c1e646897c0c53f4fd60b6a551245fb90ee129f91

FROM python:3.11-slim-bookworm@${PYTHON_DIGEST} AS build
WORKDIR /build
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
COPY pyproject.toml requirements.lock ./
# uv and the build backend, then what a service needs at run time: all by the lock file's versions and hashes.
RUN --mount=type=cache,target=/root/.cache \
    python -m venv /tools \
    && awk '/^uv==/ {on = 1} on {print} on && !/\\$/ {exit}' requirements.lock > /tools/uv.txt \
    && /tools/bin/pip install --disable-pip-version-check --require-hashes -r /tools/uv.txt \
    && /tools/bin/uv pip install --python /tools/bin/python --only-binary :all: --constraint requirements.lock hatchling \
    && python -m venv --without-pip /opt/polymart \
    && /tools/bin/uv pip install --python /opt/polymart/bin/python \
        --require-hashes --only-binary :all: --constraint requirements.lock -r pyproject.toml
COPY . .
RUN /tools/bin/hatchling build --target wheel \
    && /tools/bin/uv pip install --no-cache --python /opt/polymart/bin/python --no-deps dist/*.whl

FROM python:3.11-slim-bookworm@${PYTHON_DIGEST}
COPY --from=build /opt/polymart /opt/polymart
ENV PATH=/opt/polymart/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /opt/polymart
# `python -m`, for a process 1.
ENTRYPOINT ["python", "-m", "chassis.process"]
