"""JOB_OR_URL and --server: which job of which server."""

import re

import typer

JOB_ID = r"[A-Za-z0-9_-]{1,64}"
_JOB_URL = re.compile(
    rf"(?P<server>https?://[^?#]+?)/jobs/(?P<job>{JOB_ID})(?:/(?:adapter|report|events))?/?"
)


def check_server(server: str) -> str:
    """The URL without its last slash. Raises typer.BadParameter."""
    if not re.match(r"https?://[^/]", server):
        raise typer.BadParameter(
            f"must be an http:// or https:// URL, not '{server}'", param_hint="'--server'"
        )
    return server.rstrip("/")


def locate_job(job_or_url: str, server: str) -> tuple[str, str]:
    """(server, job id). Raises typer.BadParameter."""
    url = re.fullmatch(_JOB_URL, job_or_url)
    if url:
        return url["server"], url["job"]
    if not re.fullmatch(JOB_ID, job_or_url):
        raise typer.BadParameter(f"'{job_or_url}' is neither a job's ID nor a URL such as {server}/jobs/JOB")
    return check_server(server), job_or_url
