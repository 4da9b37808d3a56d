"""Many CTs: one idempotent job a case, on this computer or on a Ray cluster.

    from DiffSegLungLib.app.cohort import CohortRequest, run_cohort
    outcome = run_cohort(CohortRequest(Path("in"), Path("out"), workers=2, resume=True))

``io.cases`` finds the CTs, ``jobs`` does one of them, ``pool`` hands jobs to processes and outlives those
that die, ``ray_pool`` does the same on a cluster, ``tables`` gathers what is whole, ``command`` binds them.
"""

from __future__ import annotations

from DiffSegLungLib.app.cohort.command import CohortOutcome, CohortRequest, run_cohort

__all__ = ["CohortOutcome", "CohortRequest", "run_cohort"]
