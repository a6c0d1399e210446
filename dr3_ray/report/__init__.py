"""What people look at: tables, figures and the page of a sweep."""

from dr3_ray.report.html import Report, write_report

__all__ = ["Report", "write_report"]
