"""Signature scores: gene sets, the null-calibrated z, cell cycle and the scoring of a cohort."""
