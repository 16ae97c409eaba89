from tests.evaluation.models import bert, llama

__all__ = ["bert", "llama"]
