# vitaepp in a container, without root.
#
#   docker build -t vitaepp .                            for CPUs
#   docker build -t vitaepp:cuda --target cuda .         for NVIDIA GPUs
#   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" vitaepp demo
#   docker run --rm --gpus all --shm-size=2g -v "$PWD:/work" --user "$(id -u):$(id -g)" \
#       vitaepp:cuda doctor

ARG PYTHON=3.12

FROM python:${PYTHON}-slim-bookworm AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim-bookworm AS base
# Anybody may be the user (--user): what is downloaded and cached goes where all may write.
ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    HOME=/cache \
    USER=vitaepp \
    TORCH_HOME=/cache/torch \
    HF_HOME=/cache/huggingface \
    MPLCONFIGDIR=/cache/matplotlib
RUN useradd --uid 1000 --home-dir /cache --no-create-home vitaepp \
    && install --directory --mode=1777 /cache /work
WORKDIR /work
COPY constraints.txt /opt/vitaepp/
ENTRYPOINT ["vitaepp"]
CMD ["--help"]

# torch from PyPI comes with CUDA; the driver is the machine's.
FROM base AS cuda
COPY --from=wheel /wheels /opt/vitaepp/wheels
RUN pip install --constraint /opt/vitaepp/constraints.txt \
        "vitaepp[report,xlsx,model,hub,onnx] @ file://$(echo /opt/vitaepp/wheels/*.whl)"
USER 1000

FROM base AS cpu
COPY --from=wheel /wheels /opt/vitaepp/wheels
RUN pip install --constraint /opt/vitaepp/constraints.txt \
        --index-url https://download.pytorch.org/whl/cpu torch \
    && pip install --constraint /opt/vitaepp/constraints.txt \
        "vitaepp[report,xlsx,model,hub,onnx] @ file://$(echo /opt/vitaepp/wheels/*.whl)"
USER 1000
