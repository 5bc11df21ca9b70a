# check=experimental=InvalidDefinitionDescription
# wrong words
FROM busybox AS x
# V the version
ARG V=1
# other
ARG W=2
