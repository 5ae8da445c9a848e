# Builds with nothing but this folder: docker build -t runkon .
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
COPY pyproject.toml ./
COPY runkon_server runkon_server
COPY runkon_client runkon_client
COPY protos protos
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
 && python -m venv /opt/runkon \
 && /opt/runkon/bin/pip install --no-cache-dir /wheels/*.whl

FROM python:3.11-slim-bookworm
# No shell, no home to write to; the server keeps everything in PostgreSQL.
RUN useradd --system --no-create-home --shell /usr/sbin/nologin runkon
COPY --from=build /opt/runkon /opt/runkon
ENV PATH=/opt/runkon/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER runkon
EXPOSE 7411 9411
# SIGTERM drains: no new work, leases handed over, streams told to reconnect.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["runkon-server", "health"]
ENTRYPOINT ["runkon-server"]
CMD ["serve"]
