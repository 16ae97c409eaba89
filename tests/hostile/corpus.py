"""All hostile adapters."""

from tests.hostile.case import Case
from tests.hostile.configs import configs
from tests.hostile.headers import headers
from tests.hostile.tars import tars
from tests.hostile.tensors import tensor_cases
from tests.hostile.zips import zips


def corpus() -> list[Case]:
    return [*zips(), *tars(), *headers(), *configs(), *tensor_cases()]
