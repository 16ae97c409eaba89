"""Which module and parameter a LoRA layer belongs to, from target_modules and target_parameters."""

from collections import defaultdict
from collections.abc import Iterator

from loramend.adapter.config import CONFIG_FILE, LoraSettings
from loramend.adapter.quote import quote
from loramend.contracts.errors import AdapterError

# In the order in which MoE modules of transformers define them. PEFT wraps parameters of one module in that
# order and saves only how deep each wrapper lies.
_DEFINITION_ORDER = (
    "gate_up_proj",
    "gate_up_proj_bias",
    "gate_proj",
    "up_proj",
    "up_proj_bias",
    "down_proj",
    "down_proj_bias",
)
_MAX_PARAMETERS = 16


class Targets:
    """target_modules and target_parameters, looked up by the ends of a module's path."""

    def __init__(self, settings: LoraSettings) -> None:
        modules = settings.target_modules
        self._modules = None if modules is None or isinstance(modules, str) else frozenset(modules)
        self._owned: dict[str, list[str]] = defaultdict(list)
        for target in settings.target_parameters or ():
            owner, _, parameter = target.rpartition(".")
            self._owned[owner].append(parameter)

    def parameters(self, module: str) -> tuple[list[str], bool]:
        """The parameters of this module that target_parameters may mean, and whether they are named with it.

        Raises AdapterError `limit_exceeded` for more than any module has: each is looked up for each module.

        PEFT matches a target against the end of `<module>.<parameter>`; one without a dot fits every module.
        """
        named = [name for end in _ends(module) for name in self._owned.get(end, ())]
        names = list(dict.fromkeys(named or self._owned.get("", [])))
        if len(names) > _MAX_PARAMETERS:
            raise AdapterError(
                "limit_exceeded",
                f"target_parameters names {len(names)} parameters of {quote(module)}; at most "
                f"{_MAX_PARAMETERS} are taken.",
                where=f"{CONFIG_FILE}#/target_parameters",
            )
        return names, bool(named)

    def has(self, module: str) -> bool:
        """Whether target_modules names this module. A string, an expression or 'all-linear', may name any."""
        return self._modules is None or any(end in self._modules for end in _ends(module))


def _ends(module: str) -> Iterator[str]:
    """`a.b.c`, `b.c`, `c`."""
    while module:
        yield module
        module = module.partition(".")[2]


def in_definition_order(names: list[str], count: int) -> list[str] | None:
    """`names` as the module defines them; None where they are not `count` or their order is not known."""
    if len(names) == count == 1:
        return names
    known = [name for name in _DEFINITION_ORDER if name in names]
    return known if len(known) == len(names) == count else None
