# a comment about the base
ARG VERSION=1.0
FROM busybox AS base
ARG VERSION
# the user's name
ARG NAME=bob
ENV A b
RUN --mount=type=secret,id=tok,required=true --mount=type=cache,target=/c,id=cc --mount=type=ssh true
# final image
FROM base as Final
EXPOSE 80/TCP
CMD echo hi
