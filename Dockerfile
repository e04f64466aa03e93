# One image for all of a team's servers; docker-compose.yml says which service is which.
# The project (params.yaml, dvc.yaml, data) is not in it: it is mounted at /project. Where code lies
# there, that is what runs, in servers and commands alike; else the image's.
FROM python:3.11.14-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && pip install --no-cache-dir uv==0.13.9 \
    && install --directory --mode=1777 /var/lib/seaweedfs

WORKDIR /opt/tevad
COPY requirements.lock ./
# The lock names torch without its build; PyTorch's own index has the one without CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN torch="$(grep '^torch==' requirements.lock)" \
    && uv pip install --system --no-cache --index-url "$TORCH_INDEX" --no-deps "$torch" \
    && uv pip install --system --no-cache --compile-bytecode -r requirements.lock
COPY . .
RUN uv pip install --system --no-cache --no-deps --editable .

# Whoever the container runs as has neither a home nor a name in it; DVC, for one, asks for a name.
ENV HOME=/tmp USER=tevad PYTHONUNBUFFERED=1 PYTHONPATH=/project
WORKDIR /project
ENTRYPOINT []
CMD ["tevad", "--help"]
