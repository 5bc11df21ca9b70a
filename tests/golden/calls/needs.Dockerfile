FROM busybox AS one
RUN --mount=type=secret,id=a true
RUN --mount=type=secret,id=b,required true
FROM busybox AS two
RUN --mount=type=ssh --mount=type=secret,id=a,env=A true
FROM one AS last
ARG V=1
COPY --from=two /x /y
ENV S=$V
ENV c d
