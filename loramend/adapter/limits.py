"""Caps on what an untrusted adapter may ask of this machine."""

from dataclasses import dataclass

MiB = 1 << 20
GiB = 1 << 30


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes, times in seconds.

    max_archive_bytes   of an archive as uploaded
    max_unpacked_bytes  of all members together, counted while they are written
    max_ratio           unpacked over archive size, once more than `ratio_free_bytes` are unpacked: zeros
                        compress well, and small archives harm nobody
    max_members         of an archive, folders included
    max_path_length     of a member's name
    max_header_bytes    of a safetensors header
    max_tensors         in a safetensors file
    max_name_length     of a tensor's name
    max_updates         modules of an adapter, counting experts one by one
    max_rank            of one module
    max_config_bytes    of adapter_config.json
    max_patterns        keys in rank_pattern or alpha_pattern
    max_pattern_length  of one such key, a regular expression
    pattern_seconds     for compiling all of them and matching them against all modules
    """

    max_archive_bytes: int = 2 * GiB
    max_unpacked_bytes: int = 4 * GiB
    max_ratio: float = 100.0
    ratio_free_bytes: int = 64 * MiB
    max_members: int = 2000
    max_path_length: int = 512
    max_header_bytes: int = 16 * MiB
    max_tensors: int = 200_000
    max_name_length: int = 512
    max_updates: int = 100_000
    max_rank: int = 4096
    max_config_bytes: int = 4 * MiB
    max_patterns: int = 10_000
    max_pattern_length: int = 512
    pattern_seconds: float = 5.0
