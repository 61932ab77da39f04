"""The flight page: what a flight looked like, as one HTML file to keep, mail and open anywhere."""

from edge_runtime.flight_page.making import PageOptions, PageSummary, make_page

__all__ = ["PageOptions", "PageSummary", "make_page"]
