"""What huggingface_hub must be told through the environment, before it is first imported."""

from urllib.parse import urlsplit

HUGGINGFACE = "https://huggingface.co"


def environment(endpoint: str) -> dict[str, str]:
    """Variables for the process's environment: no telemetry, no progress bars of its own, and, unless the
    Hub is huggingface.co, no Xet: huggingface_hub would push through it to hubs that do not speak it."""
    variables = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    if not is_huggingface(endpoint):
        variables["HF_HUB_DISABLE_XET"] = "1"
    return variables


def is_huggingface(endpoint: str) -> bool:
    """Whether this is the public Hub."""
    host = urlsplit(endpoint).hostname or ""
    return host == "huggingface.co" or host.endswith(".huggingface.co")
