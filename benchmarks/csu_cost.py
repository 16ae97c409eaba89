"""What `loramend repair` with csu costs: peak memory, and time beside the floor no repair can go under.

The models are two bf16 checkpoints of random weights, sharded, with q and v projections alone; the adapter
has rank 16. Each repeat runs these three in processes of their own, with the same number of threads and the
weights in the page cache:

    floor  what a repair must do whatever its code: read the bytes of every one of those tensors once, and
           the range finder's own products of D = W_aligned - W_base (twelve, with k = 64 columns). For
           D only: those of W_base for its own spectrum (twelve with 32 columns), forming D, the QRs between
           products, hashing, start-up and the repair itself are not counted
    cold   `loramend repair … --step csu:k=64` with an empty cache, from start to exit
    warm   the same again, as for another adapter of the same pair: its subspaces are in the cache

and prints cold/floor, then its median and range; beside it the products of W_base too, which are as
inevitable where the report compares the update with the base. Peak memory is the largest resident set of the
process as the kernel counts it, torch included.

    python -m benchmarks.csu_cost            32 layers of 4096²: 4.3 GB under --work, minutes
    python -m benchmarks.csu_cost --layers 2 --size 512 --repeats 1
    python -m benchmarks.csu_cost --clean    delete what was made under --work
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MEMORY_LIMIT = 1.5e9  # bytes
TIME_LIMIT = 3.0  # times the floor
RANK = 16
K = 64  # more than csu's default of 4: what `k = None` takes at most
LAYERS_A_SHARD = 4
PROJECTIONS = ("q_proj", "v_proj")


@dataclass(frozen=True)
class Run:
    """One process: wall seconds, and the kernel's largest resident set in bytes."""

    seconds: float
    peak_bytes: int


def names(layers: int) -> list[str]:
    """The weights' names without `.weight`, layer by layer."""
    return [f"model.layers.{layer}.self_attn.{part}" for layer in range(layers) for part in PROJECTIONS]


def make(work: Path, layers: int, size: int) -> None:
    """The two checkpoints and the adapter under `work`, where they are not there yet."""
    import torch
    from safetensors.torch import save_file

    done = work / "made"
    if done.exists():
        return
    needed = 2 * layers * len(PROJECTIONS) * size * size * 2
    work.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(work).free
    if free < 1.2 * needed:
        sys.exit(f"{work} has {free / 1e9:.1f} GB free; the checkpoints need {needed / 1e9:.1f} GB")
    generator = torch.Generator().manual_seed(0)
    every = names(layers)
    for role in ("base", "aligned"):
        folder = work / role
        folder.mkdir(exist_ok=True)
        weight_map: dict[str, str] = {}
        a_shard = LAYERS_A_SHARD * len(PROJECTIONS)
        shards = [every[start : start + a_shard] for start in range(0, len(every), a_shard)]
        for number, part in enumerate(shards, 1):
            file = f"model-{number:05}-of-{len(shards):05}.safetensors"
            tensors = {
                f"{name}.weight": (torch.randn(size, size, generator=generator) * size**-0.5).bfloat16()
                for name in part
            }
            save_file(tensors, folder / file, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(tensors, file)
        index = {"metadata": {"total_size": needed // 2}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": size}))
    adapter = work / "adapter"
    adapter.mkdir(exist_ok=True)
    factors = {}
    for name in every:
        A = torch.randn(RANK, size, generator=generator) * size**-0.5
        B = torch.randn(size, RANK, generator=generator) * 0.02
        factors[f"base_model.model.{name}.lora_A.weight"] = A
        factors[f"base_model.model.{name}.lora_B.weight"] = B
    save_file(factors, adapter / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "base",
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "target_modules": list(PROJECTIONS),
    }
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    done.touch()


def floor(work: Path) -> None:
    """Time the floor in this process and print it as JSON: seconds of reading and of each product."""
    import torch

    from loramend.reference.checkpoint import Checkpoint
    from loramend.reference.digests import DigestMemo
    from loramend.reference.range_finder import POWER_ITERATIONS, columns
    from loramend.spectrum.measures import ALIGNMENT_K

    memo = DigestMemo(work / "unused")
    base, aligned = (Checkpoint(work / role, role=role, memo=memo) for role in ("base", "aligned"))
    seconds = {"reading": 0.0, "displacement": 0.0, "base": 0.0}
    for name in sorted(base.names, key=lambda name: (base.find(name).order, base.find(name).begin)):
        weights = []
        for checkpoint in (base, aligned):
            stored = checkpoint.find(name)
            buffer = bytearray(stored.end - stored.begin)
            start = time.perf_counter()
            with stored.file.path.open("rb", buffering=0) as file:
                file.seek(stored.begin)
                file.readinto(buffer)
            seconds["reading"] += time.perf_counter() - start
            weights.append(torch.frombuffer(buffer, dtype=torch.bfloat16).view(stored.shape))
        D = weights[1].float() - weights[0].float()
        for part, matrix, k in (("displacement", D, K), ("base", weights[0].float(), ALIGNMENT_K)):
            X = torch.randn(matrix.shape[1], columns(k)) / matrix.shape[1]
            start = time.perf_counter()
            for _ in range(POWER_ITERATIONS + 1):
                X = matrix.mT @ (matrix @ X)
            seconds[part] += time.perf_counter() - start
    print(json.dumps({**seconds, "threads": torch.get_num_threads()}))


def measure(command: Sequence[str | Path]) -> Run:
    """Run a command to its end. It must succeed."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{said.decode()}")
    return Run(seconds, usage.ru_maxrss * 1024)


def repair(work: Path, cache: Path, out: Path) -> Run:
    """One `loramend repair` with csu."""
    command: list[str | Path] = [sys.executable, "-m", "loramend.cli.main", "repair", work / "adapter"]
    command += ["--step", f"csu:k={K}", "--device", "cpu"]
    command += ["--base", work / "base", "--aligned", work / "aligned"]
    return measure([*command, "--cache", cache, "--out", out])


def alone(part: str, work: Path, *options: str) -> str:
    """What a part of this script prints, run in a process of its own so that its memory is its own too."""
    command = [sys.executable, "-m", "benchmarks.csu_cost", "--part", part, "--work", str(work), *options]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def compare(work: Path, repeats: int) -> bool:
    """Run the repeats, print them, and tell whether both limits hold."""
    alone("floor", work)  # fills the page cache, so that every run after it reads from memory
    print(
        "seconds: floor = read + products of D; cold, warm; cold/floor, the same with W_base's products too"
    )
    ratios, peaks = [], []
    for repeat in range(1, repeats + 1):
        timed: dict[str, float] = json.loads(alone("floor", work))
        least = timed["reading"] + timed["displacement"]
        with tempfile.TemporaryDirectory(dir=work) as scratch:
            cold = repair(work, Path(scratch) / "cache", Path(scratch) / "cold")
            warm = repair(work, Path(scratch) / "cache", Path(scratch) / "warm")
        ratios.append(cold.seconds / least)
        peaks.append(max(cold.peak_bytes, warm.peak_bytes))
        print(
            f"{repeat}: {least:.2f} = {timed['reading']:.2f} + {timed['displacement']:.2f}; "
            f"{cold.seconds:.2f}, {warm.seconds:.2f}; "
            f"{ratios[-1]:.2f}, {cold.seconds / (least + timed['base']):.2f}; "
            f"peak {cold.peak_bytes / 1e9:.2f} GB cold, {warm.peak_bytes / 1e9:.2f} GB warm; "
            f"threads: {timed['threads']}",
            flush=True,
        )
    ratio, peak = statistics.median(ratios), max(peaks)
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"cold/floor: median {ratio:.2f}, range {spread} (limit {TIME_LIMIT:g})")
    print(f"peak memory: {peak / 1e9:.2f} GB (limit {MEMORY_LIMIT / 1e9:g})")
    return ratio <= TIME_LIMIT and peak < MEMORY_LIMIT


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, default=Path(".work/csu_cost"), help="where the checkpoints are kept"
    )
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--check", action="store_true", help="exit with 1 over a limit")
    parser.add_argument("--clean", action="store_true", help="delete what was made, and stop")
    parser.add_argument("--part", choices=("make", "floor"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.clean:
        shutil.rmtree(options.work, ignore_errors=True)
    elif options.part == "make":
        make(options.work, options.layers, options.size)
    elif options.part == "floor":
        floor(options.work)
    else:
        work = options.work / f"{options.layers}x{options.size}"
        alone("make", work, "--layers", str(options.layers), "--size", str(options.size))
        within = compare(work, options.repeats)
        sys.exit(1 if options.check and not within else 0)


if __name__ == "__main__":
    main()
