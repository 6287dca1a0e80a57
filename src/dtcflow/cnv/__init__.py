"""Copy number: reference, arm statistics, nulls, clone profiles, windows, clones."""
