# The package in Ray's images, in the versions of constraints.txt: `cpu` for machines without a GPU, `cuda` for the others.
#
#   docker build --target cuda --tag REGISTRY/dr3-ray:0.1.0 .
#
# With MinAtar, which is GPL-3.0: without it sweeps on its games have no returns.
FROM scratch AS package
COPY pyproject.toml constraints.txt README.md LICENSE /
COPY dr3_ray /dr3_ray

FROM rayproject/ray:2.60.0-py311-cpu AS cpu
COPY --from=package --chown=ray / /home/ray/dr3-ray/
WORKDIR /home/ray
USER ray
# the build of torch without CUDA, which is a tenth of the other one; a mirror of it can be named
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --constraint dr3-ray/constraints.txt --index-url "$TORCH_INDEX" torch
RUN pip install --no-cache-dir --constraint dr3-ray/constraints.txt "./dr3-ray[minatar]"
RUN dr3-ray --version

FROM rayproject/ray:2.60.0-py311-gpu AS cuda
COPY --from=package --chown=ray / /home/ray/dr3-ray/
WORKDIR /home/ray
USER ray
RUN pip install --no-cache-dir --constraint dr3-ray/constraints.txt "./dr3-ray[minatar]"
RUN dr3-ray --version
