# syntax=docker/dockerfile:1
# docker build -t watchpost .
# docker run -d --name watchpost -p 3100:3100 -p 16686:16686 -p 4317:4317 -p 4318:4318 \
#     -v watchpost:/var/lib/watchpost watchpost

FROM rust:1.95-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ make libclang-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches keep RocksDB between builds; what leaves this stage is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/target \
    CARGO_TARGET_DIR=/target cargo build --locked --profile dist --bin watchpost \
    && install -D /target/dist/watchpost /out/usr/bin/watchpost \
    && install -d /out/var/lib/watchpost /out/etc/watchpost

# glibc, libgcc and libstdc++, which RocksDB needs; no shell.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="watchpost" \
      org.opencontainers.image.description="Logs and traces of a small cluster in one process" \
      org.opencontainers.image.licenses="Apache-2.0"
# 65532 is the image's user; a new volume takes over the owner of what it covers.
COPY --from=build --chown=65532:65532 /out/ /
ENV WATCHPOST__STORAGE__PATH=/var/lib/watchpost
VOLUME /var/lib/watchpost
# Loki; Jaeger query; thrift over HTTP; gRPC; OTLP; sampling; agent by UDP.
EXPOSE 3100 16686 16685 17271 14268 14250 14269 4317 4318 5778 9411 5775/udp 6831/udp 6832/udp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["/usr/bin/watchpost", "healthcheck"]
ENTRYPOINT ["/usr/bin/watchpost"]
CMD ["serve"]
