# check=error=true
FROM busybox as x
