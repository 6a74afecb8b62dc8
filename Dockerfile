# The server, and the SDK of Python for workers: stage one builds wheels, stage two has nothing but them.
FROM python:3.13-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY sdk_python sdk_python
COPY server server
RUN python -m pip wheel --no-cache-dir --wheel-dir /wheels ".[server]"

FROM python:3.13-slim-bookworm
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    python -m pip install --no-cache-dir --no-index --find-links=/wheels "stepwell[server]" \
    && useradd --system --uid 10001 --create-home stepwell
USER 10001
WORKDIR /home/stepwell
ENV STEPWELL_LISTEN=0.0.0.0:7777 PYTHONUNBUFFERED=1
EXPOSE 7777
HEALTHCHECK --interval=5s --timeout=6s --start-period=30s --retries=3 CMD ["stepwell", "health", "--ready"]
ENTRYPOINT ["stepwell"]
CMD ["serve"]
