"""The page of a night: one self-contained report.html, from the sealed store and what the night recorded.

No Prefect here.

report_page     writes the page
page_template   fills templates, and forbids a page any network
night_facts     the night in words and figures
row_columns     the numbers of all rows, as the page carries them
ranking         which rows get pictures
picture_strips  those pictures, as data URIs
mean_pictures   the classes' means as pictures
charts          the geometry of the charts
two_stores      the page of two compared stores
confusion       which classes are taken for which
sections/       what the explanations are worth, and the strategies
"""

from storage.nights.training_record import read_history
from tasks.report.report_page import write_report

__all__ = ["read_history", "write_report"]
