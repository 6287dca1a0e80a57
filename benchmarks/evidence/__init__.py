"""Does the verdict keep its error rates? Simulated count-level cohorts through the real score, contrast and verdict."""
