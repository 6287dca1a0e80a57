"""The one-page report. Entry point: :func:`dtcflow.report.build.write_report`."""
