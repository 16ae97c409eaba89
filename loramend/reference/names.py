"""Finding a weight by name in a checkpoint that may spell its leading components otherwise.

Order never decides. What follows the first number's component, and that component, must agree; only what
stands in front may differ: `bert.encoder.layer.0.x` and `encoder.layer.0.x`,
`model.language_model.layers.0.x` and `language_model.model.layers.0.x`.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

# Leading components that name no part of a model that has a sibling: they may be swapped for one another.
WRAPPERS = frozenset(
    {"base_model", "language_model", "llm", "model", "module", "text_model", "thinker", "transformer"}
)

# kohya's `lora_<part>_` and the folders of a diffusers pipeline it may stand for.
KOHYA = re.compile(r"lora_(unet|transformer|te[123]?)_(?P<rest>[^.]+)(\.weight)?")
KOHYA_PARTS: dict[str, tuple[str, ...]] = {
    "unet": ("unet", "transformer"),
    "transformer": ("transformer",),
    "te": ("text_encoder",),
    "te1": ("text_encoder",),
    "te2": ("text_encoder_2",),
    "te3": ("text_encoder_3",),
}


class Names:
    """The names of a checkpoint's tensors."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_core: dict[tuple[str, ...], list[str]] = defaultdict(list)
        self._flat: dict[str, str] = {}
        self._names = frozenset(names)
        for name in sorted(self._names):
            self._by_core[_split(name)[1]].append(name)
            self._flat[name] = name.removesuffix(".weight").replace(".", "_")

    def like(self, wanted: str) -> list[str]:
        """Names that can mean `wanted`: all that the first fitting rule finds, so several are an ambiguity.

        1. the name itself; 2. the same with leading components dropped or added; 3. the same with other
        wrappers in front; for kohya's `lora_unet_…` the name whose dots as underscores give it, whole or
        from a dot on.
        """
        if wanted in self._names:
            return [wanted]
        kohya = KOHYA.fullmatch(wanted)
        return next((found for found in (self._kohya(kohya) if kohya else self._dotted(wanted)) if found), [])

    def _dotted(self, wanted: str) -> Iterator[list[str]]:
        front, core = _split(wanted)
        same = [(name, _split(name)[0]) for name in self._by_core.get(core, [])]
        yield [name for name, other in same if _ends(front, other) or _ends(other, front)]
        yield [name for name, other in same if WRAPPERS.issuperset(front) and WRAPPERS.issuperset(other)]

    def _kohya(self, wanted: re.Match[str]) -> Iterator[list[str]]:
        rest, parts = wanted["rest"], KOHYA_PARTS[wanted[1]]
        yield [name for name, flat in self._flat.items() if flat in {f"{part}_{rest}" for part in parts}]
        yield [name for name, flat in self._flat.items() if flat == rest]
        yield [name for name, flat in self._flat.items() if flat.endswith(f"_{rest}")]


def _split(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(what may differ, what must agree): cut one component before the first number, or the last two."""
    parts = tuple(name.split("."))
    number = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts) - 1)
    cut = max(0, number - 1)
    return parts[:cut], parts[cut:]


def _ends(parts: tuple[str, ...], tail: tuple[str, ...]) -> bool:
    return len(tail) <= len(parts) and parts[len(parts) - len(tail) :] == tail
