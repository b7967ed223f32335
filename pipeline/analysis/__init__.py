"""The same plugin over any number of captures, on any executor.

from ringline.pipeline.analysis import run

result = run("flow_stats", ["captures/", "late.pcap.gz"])
result.tables["flows"]["rows"]
"""

from ringline.pipeline.analysis.analysis import run
from ringline.pipeline.analysis.result import Result

__all__ = ["Result", "run"]
