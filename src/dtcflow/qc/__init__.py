"""Quality control of cells: metrics, first-pass lineage, thresholds, doublets, ambient RNA and the loss audit.

Nothing in this room removes a cell from a table. :func:`dtcflow.qc.run.qc_sample` says which cells pass and why the
others do not; :func:`dtcflow.qc.loss_audit.audit_losses` lists every cell with tumour evidence that was lost.
"""
