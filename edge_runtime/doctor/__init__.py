"""`skyfix doctor`: what works on this machine, what does not, and the command that mends it."""

from edge_runtime.doctor.examination import examine
from edge_runtime.doctor.finding import Finding, Verdict
from edge_runtime.doctor.page import page

__all__ = ["Finding", "Verdict", "examine", "page"]
