"""A frozen linear layer with exchangeable low-rank updates beside it."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from loramend.spectrum.factored import Factors
from loramend.training.dropout import dropout

Reading = Literal["output", "weight"]


class Trainable(nn.Module):
    """An update s·BA that is trained: A (r, in), B (out, r), float32; `dropout` is on its input."""

    def __init__(self, A: Tensor, B: Tensor, scale: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.A = nn.Parameter(A.detach().float().clone())
        self.B = nn.Parameter(B.detach().float().clone())
        self.scale = scale
        self.dropout = dropout

    def factors(self) -> Factors:
        """A copy of what it has become, without gradients."""
        return Factors(self.B.detach().clone(), self.A.detach().clone(), self.scale)


class LoraLinear(nn.Module):
    """y = frozen(x) + Σ s·B(Ax), in place of an nn.Linear or transformers' Conv1D.

    frozen(x) = Dropout((W + s_f·B_f A_f)x) + b under reading `output`, Dropout(W + s_f·B_f A_f)x + b under
    `weight`; the dropout acts only while the layer is in training mode. Low-rank products are float32
    whatever the dtype of W; the sum is rounded to x's dtype once. Under autocast all is in its dtype, as of
    any linear layer.

    frozen   the low-rank part of the frozen path
    added    a fixed update beside it, outside the dropout
    trained  the update that is trained, outside the dropout too
    offset   (out,), added to y: lora_B's bias times its scale
    merged   (out, in), W and the low-rank parts in one, read in their place by an input of its dtype
    """

    def __init__(self, base: nn.Module, *, transposed: bool) -> None:
        """`base` holds `weight`, (in, out) if `transposed`, else (out, in), and perhaps `bias` (out,)."""
        super().__init__()
        self.base = base
        self.transposed = transposed
        self.frozen: Factors | None
        self.added: Factors | None
        self.trained: Trainable | None
        self.offset: Tensor | None
        self.merged: Tensor | None
        self.mount(None, None, None, None)
        self.p = 0.0
        self.reading: Reading = "output"

    def mount(
        self, frozen: Factors | None, added: Factors | None, trained: Trainable | None, offset: Tensor | None
    ) -> None:
        """Exchange all four; see the class. What was merged is dropped."""
        # They belong to whoever mounts them: no submodules, so that train() and to() pass them by, and no
        # search through nn.Module's registries at every exchange.
        self.__dict__.update(frozen=frozen, added=added, trained=trained, offset=offset, merged=None)

    def merge(self, dtype: torch.dtype) -> None:
        """Fold what is mounted into one weight of the dtype, until the next mount: for reading alone, without
        gradients or dropout."""
        W = self.W.float()
        trained = self.trained.factors() if self.trained is not None else None
        for X in (self.frozen, self.added, trained):
            if X is not None:
                W = _folded(W, X)
        self.__dict__["merged"] = W.to(dtype)

    @property
    def weight(self) -> Tensor:
        """W as the base layer holds it."""
        weight = self.base.weight
        assert isinstance(weight, Tensor)
        return weight

    @property
    def bias(self) -> Tensor | None:
        """b (out,)."""
        bias = self.base.bias
        assert bias is None or isinstance(bias, Tensor)
        return bias

    @property
    def W(self) -> Tensor:
        """W (out, in), a view."""
        return self.weight.mT if self.transposed else self.weight

    @property
    def in_features(self) -> int:
        return int(self.W.shape[1])

    @property
    def out_features(self) -> int:
        return int(self.W.shape[0])

    def forward(self, x: Tensor) -> Tensor:
        """x (…, in) to y (…, out), in x's dtype, or autocast's."""
        flat = x.reshape(-1, x.shape[-1])  # (n, in)
        if torch.is_autocast_enabled(x.device.type):
            flat = x32 = flat.to(torch.get_autocast_dtype(x.device.type))
        else:
            x32 = flat.float()
        if self.merged is not None and self.merged.dtype == flat.dtype:
            y = F.linear(flat, self.merged, self.bias)  # (n, out)
        else:
            y = self._unmerged(flat, x32)
        if self.offset is not None:
            y = y + self.offset
        return y.to(flat.dtype).view(*x.shape[:-1], y.shape[-1])

    def _unmerged(self, x: Tensor, x32: Tensor) -> Tensor:
        y = self._frozen_path(x, x32)  # (n, out)
        if self.added is not None:
            y = _plus(y, x32, self.added)
        if self.trained is not None:
            update = self.trained
            dropped = dropout(x32, update.dropout) if update.dropout and self.training else x32
            y = _plus(y, dropped, Factors(update.B, update.A, update.scale))
        return y

    def _frozen_path(self, x: Tensor, x32: Tensor) -> Tensor:
        if not (self.training and self.p):
            y = F.linear(x, self.W, self.bias)
            return y if self.frozen is None else _plus(y, x32, self.frozen)
        if self.reading == "weight":
            W = self.W
            if self.frozen is not None:
                W = _folded(W, self.frozen).to(W.dtype)
            return F.linear(x, dropout(W, self.p), self.bias)
        y = F.linear(x, self.W)
        if self.frozen is not None:
            y = _plus(y, x32, self.frozen)
        return dropout(y, self.p, self.bias)


def _folded(W: Tensor, X: Factors) -> Tensor:
    """W (out, in) + s·BA, float32."""
    return W + X.scale * (X.B @ X.A)


def _plus(y: Tensor, x: Tensor, X: Factors) -> Tensor:
    """y (n, out) + s·x(BA)ᵀ, float32 for x (n, in) float32; under autocast in its dtype."""
    assert isinstance(X.scale, float)
    return torch.addmm(y.to(x.dtype), F.linear(x, X.A), X.B.mT, alpha=X.scale)
