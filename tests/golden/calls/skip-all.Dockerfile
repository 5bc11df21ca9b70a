# check=skip=all
FROM busybox as X
ENV a b
