FROM base
LABEL a=base b=base
EXPOSE 80 53/udp
VOLUME /data
STOPSIGNAL SIGINT
SHELL ["/bin/sh", "-uc"]
HEALTHCHECK --interval=7s --retries=2 CMD ["true"]
MAINTAINER of the base
ENV A=base B="b b"
ARG FORGOTTEN=x
ENTRYPOINT ["/bin/sh"]
CMD ["-c", "true"]
WORKDIR /
USER daemon
