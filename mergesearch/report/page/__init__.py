"""The page of a run: one HTML file with all that it needs inside."""

from mergesearch.report.page.live import LivePage
from mergesearch.report.page.render import PAGE, page, write_page

__all__ = ["PAGE", "LivePage", "page", "write_page"]
