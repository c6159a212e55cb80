"""The page of a night: one self-contained report.html, from the sealed store and what the night recorded. No Prefect here."""

from tasks.report.report_page import write_report
from tasks.report.sources import read_history, read_night

__all__ = ["read_history", "read_night", "write_report"]
