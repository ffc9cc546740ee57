"""`harness watch`: the report, live, while a run goes on."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from harness.cli.console import notes, split_names
from harness.runs import LivePage, serve

Port = Annotated[int, Parameter(validator=Number(gte=0, lte=65535))]


def watch_(
    *runs: Annotated[str, Parameter(required=True)],
    port: Port = 0,
    suite: str | None = None,
    baseline: str | None = None,
) -> int:
    """Serve the report of runs on this machine while they go on; Ctrl-C ends it.

    The page asks again every ten seconds. Only this machine can reach it; from another, use a
    tunnel such as ssh -L.

    Parameters
    ----------
    runs
        Run folders.
    port
        Of 127.0.0.1; by default a free one.
    suite
        Which suites' scores, several with commas; all that there are by default.
    baseline
        The model that combined scores are measured from; the job's own by default.
    """
    suites = split_names(suite)
    page = LivePage(runs, suites=suites, baseline=baseline)
    with serve(page, port) as server:
        notes().print(f"http://127.0.0.1:{server.server_port}/ (Ctrl-C ends it)", markup=False)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            notes().print("Ended.")
    return 0
