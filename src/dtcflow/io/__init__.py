"""Everything that comes from the user: configuration, sample sheet, count matrices.

One concern per module: :mod:`~dtcflow.io.schema` (keys, limits, defaults), :mod:`~dtcflow.io.config`,
:mod:`~dtcflow.io.sheet`, :mod:`~dtcflow.io.detect` (which format), :mod:`~dtcflow.io.hdf5` and :mod:`~dtcflow.io.text`
(reading it), :mod:`~dtcflow.io.values` (are these raw counts), :mod:`~dtcflow.io.readers` (all of it in one call),
:mod:`~dtcflow.io.intake` (one sample for the workflow) and :mod:`~dtcflow.io.checks` (a study before it runs).
"""
