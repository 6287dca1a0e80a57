"""The malignant-cell caller against infercnvpy on real cells with known answers: ``python -m caller`` (see ``run``)."""
