# syntax=docker/dockerfile:1
# The image: one binary on distroless, as a user without rights, with a volume for the journal.
#
#   docker build -t kiln .
#   docker run -p 2575:2575 -p 8576:8576 -v kiln:/var/lib/kiln kiln
#
# A site of one's own is mounted over /etc/kiln: kiln.yaml and beside it routes/.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --profile dist && cp target/dist/kiln /kiln
# What the final image cannot make for itself: it has no shell.
RUN mkdir -p /image/var/lib/kiln /image/etc/kiln/routes && cp examples/container/kiln.yaml /image/etc/kiln/

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /kiln /usr/local/bin/kiln
COPY --from=build /image/etc/kiln /etc/kiln
COPY --from=build --chown=65532:65532 --chmod=0700 /image/var/lib/kiln /var/lib/kiln
USER 65532:65532
WORKDIR /var/lib/kiln
VOLUME /var/lib/kiln
# MLLP, and /metrics, /healthz, /readyz. The console stays on the container's loopback.
EXPOSE 2575 8576
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/kiln"]
CMD ["serve", "--config", "/etc/kiln/kiln.yaml"]
