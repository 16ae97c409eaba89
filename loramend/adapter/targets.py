"""Which module and parameter a LoRA layer belongs to, from target_modules and target_parameters."""

from loramend.adapter.config import LoraSettings

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


def target_parameters(module: str, settings: LoraSettings) -> tuple[list[str], bool]:
    """The parameters of this module that target_parameters may mean, and whether they are named with it.

    PEFT matches a target against the end of `<module>.<parameter>`; one without a dot fits every module.
    """
    named: list[str] = []
    bare: list[str] = []
    for target in settings.target_parameters or ():
        owner, _, parameter = target.rpartition(".")
        if not owner:
            bare.append(parameter)
        elif module == owner or module.endswith(f".{owner}"):
            named.append(parameter)
    return list(dict.fromkeys(named or bare)), bool(named)


def in_definition_order(names: list[str], count: int) -> list[str] | None:
    """`names` as the module defines them; None where they are not `count` or their order is not known."""
    if len(names) == count == 1:
        return names
    known = [name for name in _DEFINITION_ORDER if name in names]
    return known if len(known) == len(names) == count else None


def targets_module(module: str, settings: LoraSettings) -> bool:
    """Whether target_modules names this module. A string, an expression or 'all-linear', may name any."""
    targets = settings.target_modules
    if targets is None or isinstance(targets, str):
        return True
    return any(module == target or module.endswith(f".{target}") for target in targets)
