"""READS: source -> tokens -> instructions -> stages -> graph.

The face: ``parse.parse(data, name) -> Dockerfile``, ``lower.lower(dockerfile, options, images) -> Plan``,
``lower.Lowering(dockerfile, options).base_images()``, ``checks.remarks(…)``; the types
stand in ``instructions`` and ``options``.
"""
