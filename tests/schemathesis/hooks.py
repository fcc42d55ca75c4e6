"""What schemathesis cannot know from the document."""

import os
from urllib.parse import quote

import requests
import schemathesis
from hypothesis import strategies as st

# A cursor is opaque to clients, so the document does not describe how one is made.
schemathesis.openapi.format("cursor", st.integers(0, 4_000_000_000_000).map(lambda at: f"{at}_job"))
schemathesis.openapi.format("run-cursor", st.uuids(version=4).map(str))


@schemathesis.hook
def before_call(context, case, kwargs):
    # A pool without a leader is waited for, then answered 503; only the default one is led here.
    entries = case.body if isinstance(case.body, list) else [case.body]
    for entry in entries:
        if isinstance(entry, dict) and isinstance(entry.get("pool"), str) and entry["pool"]:
            entry["pool"] = "default"
    # What follows a job goes on until the job ends, so it is ended first.
    if case.path in ("/v1/jobs/{id}/events", "/v1/jobs/{id}/logs"):
        stop = f"{case.operation.base_url.rstrip('/')}/v1/jobs/{quote(str(case.path_parameters['id']), safe='')}/stop"
        requests.post(stop, headers={"x-api-key": os.environ.get("QUINTET_API_KEY", "")}, timeout=15)
    # The same for a run.
    if case.path in ("/runs/{id}/events", "/v1/runs/{id}/events"):
        run = f"{case.operation.base_url.rstrip('/')}/v1/runs/{quote(str(case.path_parameters['id']), safe='')}"
        requests.delete(run, headers={"x-api-key": os.environ.get("QUINTET_API_KEY", "")}, timeout=15)
