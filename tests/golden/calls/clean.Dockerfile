FROM busybox AS x
