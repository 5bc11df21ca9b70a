FROM base
ONBUILD COPY --from=tools /tool /usr/local/bin/
ONBUILD RUN --mount=from=tools,target=/m cp /m/tool /copied
