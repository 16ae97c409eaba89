"""Does a direction resemble a singular vector of a large matrix? Decided without the matrix's full SVD.

For a unit x and the left singular vectors u_j of W, the question is whether max_j |⟨u_j, x⟩| reaches ε. The
spectral measure of x, μ = Σ_j ⟨u_j, x⟩² δ(σ_j²), holds the answer: has it an atom of mass ε² or more?
Cheapest certificate first:

leading   a computed leading u_j has |⟨u_j, x⟩| >= ε: yes
rest      the leading u_j computed leave less than ε² of x: no
lanczos   n Lanczos steps of WWᵀ from what is left of x give the orthonormal polynomials p_0..p_{n-1} of its
          measure. No atom at λ is heavier than the Christoffel function 1/Σ p_i(λ)², the least ∫p²dμ of a
          polynomial with p(λ) = 1 (Szegő, Orthogonal Polynomials, chapter 3): below ε² for every λ, no. A
          heavy atom shows as a converged Ritz value with its mass as Gauss weight (Golub and Meurant,
          Matrices, Moments and Quadrature, 2010): yes
exact     the eigenvectors of WWᵀ, or of WᵀW where that is smaller

For W with more rows than columns, the u_j are those of the thin SVD: directions outside W's range are none.
Where singular values coincide the u_j, and so the question, are not determined; here as in any SVD.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from loramend.spectrum.krylov import Operator

Certificate = Literal["leading", "rest", "lanczos", "exact"]

EXACT_BELOW = 384
"""Where W's smaller side is at most this, the exact answer costs less than the search for a cheaper one."""
LANCZOS_STEPS = 160
LANCZOS_BYTES = 1 << 27
RANK_TOLERANCE = 1e-7
"""σ_j at or under this share of σ_1 has no usable u_j."""
MARGIN = 0.9
"""The Christoffel bound is taken between Ritz values on a grid: it must clear ε² by this factor."""


@dataclass(frozen=True)
class Overlap:
    """The answer for one direction.

    resembles    max_j |⟨u_j, x⟩| >= ε
    cosine       the largest |⟨u_j, x⟩| found; the maximum itself where the certificate is `exact`
    certificate  what decided
    """

    resembles: bool
    cosine: float
    certificate: Certificate


def overlaps(
    W: Operator, U: Tensor, S: Tensor, X: Tensor, threshold: float, *, exact_below: int = EXACT_BELOW
) -> list[Overlap]:
    """The answer for every unit column of X (rows, n), at ε = threshold.

    U (rows, k), S (k,)  converged leading left singular vectors and values of W
    """
    C = U.mT @ X  # (k, n)
    best = C.abs().amax(0)
    rest = X - U @ C
    answers: dict[int, Overlap] = {}
    undecided = []
    for i in range(X.shape[1]):
        cosine = min(1.0, float(best[i]))
        if cosine >= threshold:
            answers[i] = Overlap(True, cosine, "leading")
        elif float(rest[:, i].square().sum()) < threshold**2:
            answers[i] = Overlap(False, cosine, "rest")
        else:
            undecided.append(i)
    if min(W.shape) > exact_below:
        size = max(1, LANCZOS_BYTES // (8 * W.shape[0] * LANCZOS_STEPS))
        for start in range(0, len(undecided), size):
            chunk = undecided[start : start + size]
            decided = _lanczos(W, rest[:, chunk], float(S[0]) ** 2, float(S[-1]) ** 2, threshold**2)
            for i, answer in zip(chunk, decided, strict=True):
                if answer is not None:
                    resembles, mass = answer
                    cosine = max(float(best[i]), mass**0.5)
                    answers[i] = Overlap(resembles, min(1.0, cosine), "lanczos")
    undecided = [i for i in undecided if i not in answers]
    if undecided:
        cosines = largest_cosines(W, X[:, undecided])
        for i, value in zip(undecided, cosines.tolist(), strict=True):
            answers[i] = Overlap(value >= threshold, min(1.0, value), "exact")
    return [answers[i] for i in range(X.shape[1])]


def largest_cosines(W: Operator, X: Tensor) -> Tensor:
    """max_j |⟨u_j, x⟩| (n,) for every unit column of X (rows, n), from all eigenvectors of W's smaller Gram
    matrix."""
    tall = W.shape[0] > W.shape[1]
    side = W if tall else W.T
    n = side.shape[1]
    G = torch.empty(n, n, dtype=torch.float64, device=W.device)
    for start in range(0, n, 512):
        columns = slice(start, min(n, start + 512))
        identity = torch.zeros(n, columns.stop - start, dtype=torch.float64, device=W.device)
        identity[columns].fill_diagonal_(1.0)
        G[:, columns] = side.T @ (side @ identity)
    values, E = torch.linalg.eigh(G)
    if not tall:
        return torch.amax((E.mT @ X).abs(), 0)
    # u_j = W e_j/σ_j
    sigma = values.clamp_min(0.0).sqrt()
    usable = sigma > RANK_TOLERANCE * sigma[-1]
    cosines = (E.mT @ (W.T @ X)).abs() / sigma.where(usable, torch.inf).unsqueeze(1)
    return torch.amax(cosines, 0)


def christoffel(alpha: Tensor, beta: Tensor, points: Tensor) -> Tensor:
    """1/Σ_{i<n} p_i(λ)² at each λ of `points`, for the measure of mass 1 whose Jacobi matrix has diagonal
    alpha (n,) and off-diagonal beta (n-1,)."""
    previous, current = torch.zeros_like(points), torch.ones_like(points)
    total = current.square()
    for i in range(len(beta)):
        following = (points - alpha[i]) * current
        if i:
            following = following - beta[i - 1] * previous
        # Far outside the support the polynomials grow beyond float64; there the bound is zero anyway.
        previous, current = current, (following / beta[i]).clamp(-1e140, 1e140)
        total = total + current.square()
    return 1.0 / total


def _lanczos(W: Operator, X: Tensor, top: float, cut: float, heavy: float) -> list[tuple[bool, float] | None]:
    """Has the spectral measure of each column of X (rows, n) under WWᵀ an atom of mass `heavy`?

    top = σ_1², cut = the largest eigenvalue not deflated from X. Answers (yes or no, largest mass found), or
    None where LANCZOS_STEPS do not tell. The recurrences run side by side, so that W is read once a step.
    """
    rows, n = X.shape
    steps = min(LANCZOS_STEPS, rows)
    mass = X.square().sum(0)  # (n,)
    Q = torch.zeros(n, steps, rows, dtype=torch.float64, device=X.device)
    Q[:, 0] = (X / mass.sqrt()).mT
    alpha = torch.zeros(n, steps, dtype=torch.float64)
    beta = torch.zeros(n, steps, dtype=torch.float64)
    # A thousandth of the mean distance between eigenvalues: closer ones are one to float32.
    resolution = 1e-3 * cut / min(W.shape)
    answers: list[tuple[bool, float] | None] = [None] * n
    active = list(range(n))
    for step in range(steps):
        w = W @ (W.T @ Q[active, step].mT)  # (rows, active)
        going = []
        for i, v in zip(active, w.mT, strict=True):
            basis = Q[i, : step + 1]  # (step + 1, rows)
            alpha[i, step] = basis[-1] @ v
            for _ in range(2):
                v = v - basis.mT @ (basis @ v)
            size = float(torch.linalg.vector_norm(v))
            ended = size <= 1e-12 * top
            beta[i, step] = 0.0 if ended else size
            if ended or step + 1 == steps or step % 8 == 7:
                answers[i] = _judge(
                    alpha[i, : step + 1], beta[i, : step + 1], float(mass[i]), cut, resolution, heavy
                )
            if answers[i] is None and not ended and step + 1 < steps:
                Q[i, step + 1] = v / size
                going.append(i)
        active = going
        if not active:
            break
    return answers


def _judge(
    alpha: Tensor, beta: Tensor, mass: float, cut: float, resolution: float, heavy: float
) -> tuple[bool, float] | None:
    """What n Lanczos steps tell; alpha (n,), beta (n,), beta[-1] the norm of the next vector, 0 at the end.

    resolution  how small the residual of a Ritz value must be for it to count as a single atom
    """
    J = torch.diag(alpha) + torch.diag(beta[:-1], 1) + torch.diag(beta[:-1], -1)
    nodes, vectors = torch.linalg.eigh(J)
    weights = vectors[0].square() * mass  # Gauss weights
    residuals = beta[-1] * vectors[-1].abs()
    # A Ritz value that still moves may stand for several atoms, and one at zero for a null space, whose
    # directions are no singular vectors of their own.
    atoms = (residuals <= resolution) & (nodes > 2 * resolution)
    largest = float(weights.where(atoms, 0.0).max())
    if largest >= heavy:
        return True, largest
    if float(beta[-1]) == 0:  # the quadrature is the measure itself
        return (False, largest) if float(weights.max()) < heavy else None
    ends = torch.cat([nodes.new_zeros(1), nodes, nodes.new_tensor([max(cut, float(nodes[-1]))])])
    grid = torch.linspace(0.0, 1.0, 9, dtype=nodes.dtype)
    points = (ends[:-1, None] + ends.diff()[:, None] * grid).flatten()
    if float(christoffel(alpha, beta[:-1], points).max()) * mass < MARGIN * heavy:
        return False, largest
    return None
