ARG BASE=busybox:latest
ARG UNUSED=1
ARG TAG=$BASE
# syntax comment
FROM --platform=$BUILDPLATFORM ${TAG} AS build
# PORT the port
ARG PORT=80
ARG OTHER
ARG UNUSED
ARG DERIVED=${PORT}1
ARG TARGETARCH
RUN --mount=type=secret,target=/x/y.tok --mount=type=ssh,id=key,required cat $PORT
FROM scratch
ARG LATE=x
COPY --from=build / /
maintainer me
ENV TOKEN_KEY=1
WORKDIR rel
