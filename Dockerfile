# LoopViz for anybody: not root, and a root file system that may be read-only (docs/hosting.md, "Docker").
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app

# The packages first: they change more seldom than the code. PyTorch without CUDA, which would be several GB.
COPY requirements.txt ./
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu \
    && pip install -r requirements.txt

COPY app.py ./
COPY loopviz loopviz
COPY assets assets
COPY pyproject.toml README.md LICENSE CITATION.cff ./

# All that is written while it runs: below /cache, which may be a volume, and /tmp.
RUN python -m compileall -q loopviz \
    && useradd --system --uid 10001 --no-create-home --home-dir /cache loopviz \
    && install -d -o 10001 -g 10001 /cache
ENV HOME=/cache HF_HOME=/cache/huggingface LOOPVIZ_CACHE=/cache/loopviz XDG_CACHE_HOME=/cache MPLCONFIGDIR=/tmp \
    GRADIO_TEMP_DIR=/tmp/gradio GRADIO_SERVER_NAME=0.0.0.0 GRADIO_SERVER_PORT=7860 LOOPVIZ_LOG=json
USER 10001
VOLUME /cache
EXPOSE 7860
# What ends it: as the first process of a container Python does not hear SIGTERM, and would be killed ten seconds later.
STOPSIGNAL SIGINT
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/loopviz-health', timeout=4)"]
CMD ["python", "app.py"]
