# JetPack 6 (TensorRT 10.3, CUDA 12.6, Python 3.10). Not built by this project: no Jetson and no container engine was at
# hand. Build it on the Jetson, or on any machine with QEMU; run it with the NVIDIA runtime:
#   docker build -f docker/jetson.Dockerfile --build-arg KERNELS=kernels.tar.gz -t edge-lsla .
#   docker run --rm --runtime nvidia --device /dev/video0 -v edge-lsla:/data edge-lsla infer camera 0 --engine /data/pests.lsla
FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0

RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        python3-venv python3-dev g++ cmake ninja-build libnvinfer-headers-dev python3-libnvinfer \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/edge-lsla
COPY . .
ENV PATH=/opt/edge-lsla/.venv/bin:/usr/local/cuda/bin:$PATH CUDA_ROOT=/usr/local/cuda
# TensorRT's Python module is the system's. OpenCV is left out: only the preview window needs it.
RUN python3 -m venv --system-site-packages .venv \
    && pip install --no-cache-dir -e '.[cli,signing]' 'av>=13' pycuda 'cuda-python==12.6.*'

# Made on a workstation: python cli.py plugin build --arch 87 --package kernels.tar.gz
ARG KERNELS=kernels.tar.gz
RUN python cli.py plugin build --kernels "$KERNELS"

# Engines that the device builds are kept here: mount a volume.
ENV XDG_CACHE_HOME=/data/cache XDG_CONFIG_HOME=/data/config XDG_STATE_HOME=/data/state
VOLUME /data
ENTRYPOINT ["python", "cli.py"]
CMD ["doctor"]
