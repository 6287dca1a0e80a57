"""Everything that comes from the user: configuration, sample sheet, count matrices.

One concern per module: :mod:`~dtcflow.io.schema` (keys, limits, defaults), :mod:`~dtcflow.io.config`,
:mod:`~dtcflow.io.sheet`, :mod:`~dtcflow.io.files` (opening, limits), :mod:`~dtcflow.io.detect` (which format),
:mod:`~dtcflow.io.annstore` (h5ad and zarr), :mod:`~dtcflow.io.loom`, :mod:`~dtcflow.io.hdf5` (10x .h5),
:mod:`~dtcflow.io.folders` and :mod:`~dtcflow.io.mtx` (Matrix Market), :mod:`~dtcflow.io.text` (dense tables),
:mod:`~dtcflow.io.stored` and :mod:`~dtcflow.io.slots` (matrices in HDF5 and zarr, and which one holds the counts),
:mod:`~dtcflow.io.values` (are these raw counts), :mod:`~dtcflow.io.readers` (all of it in one call),
:mod:`~dtcflow.io.intake` (one sample for the workflow) and :mod:`~dtcflow.io.checks` (a study before it runs).
"""
