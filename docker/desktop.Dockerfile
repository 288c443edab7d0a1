# A desktop GPU, with TensorRT for RTX. Not built by this project: no container engine was at hand.
#   docker build -f docker/desktop.Dockerfile -t edge-lsla .
#   docker run --rm --gpus all --device /dev/video0 -v edge-lsla:/data edge-lsla infer camera 0 --engine /data/pests.lsla
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04 AS build
# pycuda is compiled here: it wants a compiler and CUDA's headers, which the running image does not need.
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv python3-dev && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH LIBRARY_PATH=/usr/local/cuda/lib64/stubs
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir '.[cli,camera,signing]' pycuda 'cuda-python==13.0.*' tensorrt-rtx-cu13

FROM nvidia/cuda:13.0.1-base-ubuntu24.04
RUN apt-get update && apt-get install -y --no-install-recommends python3 libgl1 libglib2.0-0t64 libcurand-13-0 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
# What the device builds and trusts is kept here: mount a volume.
ENV XDG_CACHE_HOME=/data/cache XDG_CONFIG_HOME=/data/config XDG_STATE_HOME=/data/state
VOLUME /data
ENTRYPOINT ["edge-lsla"]
CMD ["doctor"]
