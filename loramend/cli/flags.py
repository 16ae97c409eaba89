"""Places in a request by the flag of the command line that they come from."""

import re

_FLAGS = {
    "/source": "ADAPTER",
    "/base": "--base",
    "/aligned": "--aligned",
    "/threat": "--threat",
    "/steps": "--step",
    "/clean": "--clean",
    "/unlabelled": "--unlabelled",
    "/validation": "--validation",
    "/validation_share": "--validation-share",
    "/evaluation/data": "--evaluate",
    "/evaluation/trigger": "--trigger",
    "/evaluation/triggered": "--triggered",
    "/evaluation/target": "--target",
    "/evaluation/metric": "--metric",
    "/evaluation/probes": "--probes",
    "/evaluation/max_examples": "--max-examples",
    "/evaluation/max_new_tokens": "--max-new-tokens",
    "/evaluation/controls": "--controls",
    "/evaluation": "--evaluate",
    "/publish": "--publish",
    "/hub_token": "--send-hub-token",
    "/webhook": "--webhook",
    "/webhook/secret": "--webhook-secret",
    "/seed": "--seed",
    "/header/Host": "--server",
}

# What to change where a message names no place.
_REMEDIES = {
    "no_default_recipe": "--step, or --base with --aligned, or --clean",
    "reference_required": "--base, or --aligned for a step that reads it",
    "reference_not_found": "--base and --aligned",
    "reference_mismatch": "--base and --aligned",
    "reference_identical": "--base and --aligned",
    "path_not_allowed": "--base and --aligned",
    "data_required": "--clean or --unlabelled",
    "method_unsupported": "--step",
    "scale_guard": "--step",
    "hub_forbidden": "HF_TOKEN, or `hf auth login`",
    "publish_forbidden": "--publish",
    "signing_key_invalid": "--sign-key or --key",
}


def place(pointer: str) -> str:
    """`--base` for /base/path, `--step 2: k` for /steps/1/csu/k; what is no pointer stays as it is."""
    step = re.fullmatch(r"/steps/(\d+)((?:/[^/]+)*)", pointer)
    if step:
        field = step[2].rpartition("/")[2]
        return f"--step {int(step[1]) + 1}" + (f": {field}" if field else "")
    parts = pointer.split("/")
    for end in range(len(parts), 1, -1):
        if flag := _FLAGS.get("/".join(parts[:end])):
            return flag
    return pointer


def remedy(code: str) -> str | None:
    """The flags to look at for a code; None where none would help."""
    return _REMEDIES.get(code)
