FROM busybox
MAINTAINER Rich <r@example.com>
ENV A=1 PATH=/bin:/usr/bin B="two words"
WORKDIR /srv/app
USER 1000:1000
EXPOSE 80 53/udp
VOLUME /data
LABEL from=rich x=y
SHELL ["/bin/sh", "-ec"]
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=5s CMD true
ENTRYPOINT ["/bin/echo"]
CMD ["hi"]
