"""Intruder reduction: scale down leading directions of W + ΔW that resemble none of W's.

Source      arXiv 2410.21228; equals `reduce_intruder_dimension` of peft 0.21.
Approach    of the top_k left singular vectors x_i of W + ΔW, those whose best |cosine| with W's left
            singular vectors is under the threshold are intruders; X = ΔW + (λ - 1)·Σ σ_i x_i y_iᵀ over
            them, truncated to rank r. W + ΔW is never formed: its leading triplets come from products, X is
            factored, and whether a direction resembles any singular vector of W is decided by certificates
            (`spectrum.overlap`). Vectors are compared on the side that is the output of the *stored*
            weight, as peft does: for Conv1D and embeddings, stored (in, out), that is the input side of ΔW.
            There peft 0.21 writes the factors turned, which do not load again; ours do.
Limits      needs the base weight itself, not its spectrum. Where the cheaper certificates decide nothing, as
            for intruders in a weight with many more outputs than inputs, all eigenvectors of W's smaller Gram
            matrix are computed: O(min(out, in)³) time and a few such matrices in float64. Where singular
            values of W coincide, the test is not determined.
"""

from collections.abc import Iterator

import torch

from loramend.adapter.model import Adapter, Update
from loramend.contracts.steps import IntrudersStep
from loramend.methods.base import ZERO_UPDATE, Context, Outcome, left_alone, refactored
from loramend.methods.draws import generator
from loramend.spectrum.factored import Factors, combine, norm, truncate
from loramend.spectrum.krylov import Operator, leading_triplets
from loramend.spectrum.measures import ALIGNMENT_K
from loramend.spectrum.overlap import RANK_TOLERANCE, overlaps


def intruders(adapter: Adapter, params: IntrudersStep, context: Context) -> Iterator[Outcome]:
    """Reduce the intruders of every module; one without any, or with a zero update, is left alone."""
    for update in context.references.in_order(adapter.updates.values()):
        yield _reduced(update, params, context)


def _reduced(update: Update, params: IntrudersStep, context: Context) -> Outcome:
    if float(norm(update)) == 0:
        return left_alone(update, ZERO_UPDATE)
    spectrum = context.references.base_spectrum(update, ALIGNMENT_K)
    if spectrum.k == 0:
        return left_alone(update, "the base weight is zero: nothing to resemble")
    device = context.device
    W = context.references.base(update).to(device)  # (out, in)
    B, A = update.B.double().to(device) * update.scale, update.A.double().to(device)
    base, merged = Operator(W), Operator(W, B, A)
    near_base, near_update = spectrum.V, update.A.mT  # likely right singular vectors
    if update.transposed:
        base, merged = base.T, merged.T
        near_base, near_update = spectrum.U, update.B
    near_base, near_update = near_base.double().to(device), near_update.double().to(device)

    source = generator(context.seed, update.name, "intruders")
    known = leading_triplets(base, params.top_k, source, near_base, tolerance=1e-6)
    found = leading_triplets(merged, params.top_k, source, torch.cat([near_base, near_update], dim=1))
    usable = int(found.S.gt(RANK_TOLERANCE * found.S[0]).sum())
    answers = overlaps(base, known.U, known.S, found.U[:, :usable], params.threshold)
    index = [i for i, answer in enumerate(answers) if not answer.resembles]

    values = {
        "intruders": float(len(index)),
        "looked_at": float(usable),
        "residual": found.residual,
    }
    for place, i in enumerate(index, start=1):
        values[f"intruder_{place}_sigma"] = float(found.S[i])
        values[f"intruder_{place}_cosine"] = answers[i].cosine
    if not index:
        return left_alone(update, f"no intruder among the leading {usable} directions", values)
    if params.mitigation == 1:
        return left_alone(update, "mitigation 1 leaves intruders as they are", values)
    X, Y = found.U[:, index], found.V[:, index]
    if update.transposed:
        X, Y = Y, X
    change = Factors(X * found.S[index], Y.mT, params.mitigation - 1.0)
    factors, loss = truncate(combine((1.0, Factors(B, A)), (1.0, change)), update.rank)
    return Outcome(
        name=update.name,
        update=refactored(update, factors),
        values=values,
        truncation_loss=float(loss),
    )
