from busybox
run echo $undefined \

  && true
EXPOSE 8080:80
CMD a
CMD b
FROM busybox AS Scratch
FROM busybox AS context
COPY --chown=x a /b
LABEL a b
