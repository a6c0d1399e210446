"""What people look at: tables, figures and the page of a sweep."""

from dr3_ray.report.html import write_report
from dr3_ray.report.tables import summary_table

__all__ = ["summary_table", "write_report"]
