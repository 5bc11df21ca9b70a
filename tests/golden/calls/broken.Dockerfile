FRM busybox AS x
