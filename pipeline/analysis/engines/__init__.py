"""The engines that run the tasks of an analysis in other processes and on other machines.

from ringline.pipeline.analysis import engines, run

with engines.opened("dask", "tcp://10.0.0.1:8786") as engine:
    result = run("flow_stats", ["/shared/captures/"], executor=engine)
"""

from ringline.pipeline.analysis.engines.opening import NAMES, opened

__all__ = ["NAMES", "opened"]
