"""Figures: data in, figures out, no reading or writing of results."""
