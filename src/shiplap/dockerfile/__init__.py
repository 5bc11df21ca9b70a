"""READS: source -> tokens -> instructions -> stages -> graph.

The face: ``parse.parse(data, name) -> Dockerfile``, ``lower.lower(dockerfile, options, images) -> Plan``,
``lower.base_images(dockerfile, options)``, ``checks.remarks(…)``; the types stand in ``instructions`` and ``options``.
"""
