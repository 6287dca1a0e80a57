"""The analysis plan evaluated: patient-level contrasts, tests, controls and a three-way verdict."""
