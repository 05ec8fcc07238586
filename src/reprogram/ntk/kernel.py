"""Neural tangent kernels of a program and of its source, on N samples and T outputs.

    K[n, t, m, s] = < dF_t(x_n)/dp , dF_s(x_m)/dp >

with p the program's learned numbers (I and O) or the source's parameters, and F the target scores after the output map.
Jacobians are float32 (float64 for float64 sources), Gram matrices float64. See `sweep` for what the model is asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, DataError, say
from reprogram.core.program import Input, Output, Program, evaluating, learns
from reprogram.core.source import Source
from reprogram.core.taxonomy import Alignment
from reprogram.ntk.memory import check_memory
from reprogram.ntk.pull import Pulled
from reprogram.ntk.recording import Recording, module_of, rest_gram, survey
from reprogram.ntk.spectrum import Spectrum, gram, product_gram, rows_spectrum, spectrum
from reprogram.ntk.sweep import CHUNK, Tile, check_source, exact_products, precision_of, sweep
from reprogram.outputs import Identity


@final
@dataclass(frozen=True, slots=True, eq=False)
class Jacobian:
    """The derivative of a program's N x T scores with respect to all it learns, part by part.

    Attributes:
        said: [N, S], the source's scores.
        scores: [N, T].
        parts: what `pull` found, by the name of the part.
        precision: of the arithmetic behind it (eps), which limits what a spectrum resolves.
        outputs: independent ones among the T, at most; see `independent_outputs`.
    """

    said: Tensor
    scores: Tensor
    parts: Mapping[str, Pulled]
    precision: float
    outputs: int

    @property
    def parameters(self) -> int:
        """P, learned numbers."""
        return sum(self._count(p) for p in self.parts.values())

    @property
    def cap(self) -> int:
        """The largest rank the kernel can have: N independent outputs times N samples, or P."""
        return min(len(self.scores) * self.outputs, self.parameters)

    @property
    def routes(self) -> dict[str, str]:
        """How each part was found."""
        return {name: part.route for name, part in self.parts.items()}

    def _count(self, part: Pulled) -> int:
        width = part.rows.shape[2] * (part.factor.shape[1] if part.factor is not None else 1)
        return width * (self.scores.shape[1] if part.eye else 1)

    def gram(self) -> Tensor:
        """K as a matrix, [NT, NT] float64, sample by sample and target by target."""
        n, targets = self.scores.shape
        total: Tensor | None = None
        for part in self.parts.values():
            if part.eye:
                eye = torch.eye(targets, dtype=torch.float64, device=part.rows.device)
                mine = torch.einsum("nm,ts->ntms", gram(part.rows), eye).reshape(n * targets, -1)
            else:
                mine = gram(part.rows) if part.factor is None else product_gram(part.rows, part.factor)
            total = mine if total is None else total.add_(mine)
        return total if total is not None else torch.zeros(n * targets, n * targets, dtype=torch.float64)

    def spectrum(self) -> Spectrum:
        """Eigenvalues and vectors, through the P x P matrix where that is the smaller one."""
        n, targets = self.scores.shape
        plain = [p.rows for p in self.parts.values() if not p.eye and p.factor is None]
        if plain and len(plain) == len(self.parts) and self.parameters < n * targets:
            rows = plain[0] if len(plain) == 1 else torch.cat(plain, 2)
            return rows_spectrum(rows, cap=self.cap, jacobian_eps=self.precision)
        return spectrum(self.gram().view(n, targets, n, targets), cap=self.cap, jacobian_eps=self.precision)

    def product(self, vector: Tensor) -> Tensor:
        """``K v`` for v [NT], float64, without the kernel: what `lanczos.density` asks for where K does not fit."""
        v = vector.double().view(self.scores.shape)
        total = torch.zeros_like(v)
        for part in self.parts.values():
            rows, pulled = part.rows.double(), _pulled_back(part, v)
            if part.eye:
                total += rows[:, 0] @ pulled.T
            elif part.factor is not None:
                total += torch.einsum("ntr,nr->nt", rows, part.factor.double() @ pulled.T)
            else:
                total += rows @ pulled
        return total.flatten()

    def slope(self, direction: Tensor) -> float:
        """``|J^T d|^2`` for a direction d, [N, T]: the squared gradient of a loss whose derivative by the scores is d.

        No kernel and no further backward pass is needed for it.
        """
        return sum(float(_pulled_back(part, direction).square().sum()) for part in self.parts.values())


def _pulled_back(part: Pulled, direction: Tensor) -> Tensor:
    """``J^T d`` of one part for d [N, T], float64: [T, R] of a linear output, [R, Q] with a factor, else [R]."""
    weights = direction.double().to(part.rows.device).unsqueeze(2) * part.rows.double()  # [N, T, R]
    if part.factor is not None:
        return torch.einsum("nr,nq->rq", weights.sum(1), part.factor.double())
    return weights.sum(0) if part.eye else weights.sum((0, 1))


def jacobian(program: Program, x: Tensor, *, chunk: int = CHUNK, recording: Recording | None = None) -> Jacobian:
    """The derivative of a program's scores with respect to what it learns.

    Args:
        program: in any mode; taken in eval mode.
        x: [N, ...], as `Split.fetch` gives them.
        chunk: samples to a forward pass.
        recording: keeps what is needed of the source's own parameters in the same passes.

    Raises:
        CapabilityError: nothing is learned, or the source has no gradients or couples samples.
        DataError: something is not finite.
        ConfigError: it would not fit into memory.
    """
    _check_input(x)
    rows = _Rows(len(x))
    for tile in sweep(program, x, chunk=chunk, recording=recording):
        rows.add(tile)
    return rows.done(program)


class _Rows:
    """Tiles, written into arrays made once."""

    def __init__(self, samples: int) -> None:
        self.samples, self.filled = samples, 0
        self.held: dict[str, list[Tensor | None]] = {}
        self.parts: dict[str, Pulled] = {}
        self.said: list[Tensor] = []
        self.scores: list[Tensor] = []

    def add(self, tile: Tile) -> None:
        if not self.held:
            targets = tile.scores.shape[1]
            wide = {name: part.rows.shape[2] for name, part in tile.parts.items()}
            check_memory(self.samples, targets, sum(wide.values()))
            self.held = {
                name: [v if v is None else v.new_empty(self.samples, *v.shape[1:]) for v in (part.rows, part.factor)]
                for name, part in tile.parts.items()
            }
        piece = slice(self.filled, self.filled + len(tile.scores))
        for name, part in tile.parts.items():
            for whole, value in zip(self.held[name], (part.rows, part.factor), strict=True):
                if whole is not None and value is not None:
                    whole[piece] = value
        self.parts = tile.parts
        self.said.append(tile.said)
        self.scores.append(tile.scores)
        self.filled = piece.stop

    def done(self, program: Program) -> Jacobian:
        whole = {name: Pulled(*self.held[name], eye=p.eye, route=p.route) for name, p in self.parts.items()}  # pyright: ignore
        scores = torch.cat(self.scores)
        outputs = independent_outputs(program.output, scores.shape[1])
        return Jacobian(torch.cat(self.said), scores, whole, precision_of(program), outputs)


def program_kernel(program: Program, x: Tensor, *, chunk: int = CHUNK) -> Float[Tensor, " n target n target"]:
    """The program's kernel, [N, T, N, T] float64.

    Args:
        program: its learned numbers are meant, of I and of O.
        x: N inputs, as `Split.fetch` gives them.
        chunk: samples to a forward pass.

    Raises:
        CapabilityError: the program learns nothing, or its source has no gradients or couples samples.
        DataError: scores or gradients that are not finite.
        ConfigError: it would not fit into memory; the message says which route to take.
    """
    found = jacobian(program, x, chunk=chunk)
    if not found.parts:
        remedy = "Its kernel would be zero. source_kernel asks about the source."
        raise CapabilityError(
            say("program", "must learn something by gradients to have a kernel", _name(program), remedy)
        )
    n, targets = found.scores.shape
    return found.gram().view(n, targets, n, targets)


@dataclass(frozen=True, slots=True, eq=False)
class SourceKernel:
    """The kernel of the source's own parameters.

    Attributes:
        kernel: [N, T, N, T] float64.
        parameters: how many numbers the source has.
        layerwise: how many of them went by the layers' rules; the rest went through autograd one output at a time.
        rest: names of the parameters that had no rule.
        cap: the largest rank the kernel can have.
    """

    kernel: Tensor
    parameters: int
    layerwise: int
    rest: tuple[str, ...]
    cap: int


def source_kernel(
    source: Source, x: Tensor, output: Output | None = None, *, chunk: int = CHUNK
) -> Float[Tensor, " n target n target"]:
    """The kernel of all the source's parameters, [N, T, N, T] float64.

    Args:
        source: a module in memory.
        x: N inputs of the source, pixels in [0, 1], before its normalisation.
        output: which T outputs to take; None for all S source scores.
        chunk: samples to a forward pass.

    Raises:
        CapabilityError, DataError, ConfigError: as for `program_kernel`.
    """
    program = Program(Input(), source, output or Identity(source.spec.outputs))
    return source_kernel_of(program, x, chunk=chunk).kernel


def source_kernel_of(program: Program, x: Tensor, *, chunk: int = CHUNK) -> SourceKernel:
    """The kernel of the source's parameters at a program's inputs I(x), read through its output map."""
    _check_input(x)
    recording = start_recording(program, x)
    targets = 0
    for tile in sweep(program, x, chunk=chunk, recording=recording.taps, learned=False):
        targets = tile.scores.shape[1]
    return recording.finish(program, x, targets)


@dataclass(slots=True, eq=False)
class SourceRecording:
    """A recording under way, and the parameters it leaves out."""

    taps: Recording
    rest: tuple[str, ...]

    def finish(self, program: Program, x: Tensor, targets: int) -> SourceKernel:
        """The kernel of the samples recorded."""
        own = dict(module_of(program.source).named_parameters())
        with evaluating(program), exact_products():
            total = self.taps.gram()
            if self.rest:
                extra = rest_gram(program, x, self.rest)
                total = extra if total is None else total.add_(extra)
        n = len(x)
        total = torch.zeros(n * targets, n * targets, dtype=torch.float64) if total is None else total
        rest = sum(own[name].numel() for name in self.rest)
        whole = sum(p.numel() for p in own.values())
        cap = min(n * independent_outputs(program.output, targets), whole)
        return SourceKernel(total.view(n, targets, n, targets), whole, whole - rest, self.rest, cap)


def start_recording(program: Program, x: Tensor, samples: int | None = None) -> SourceRecording:
    """Look at the source with a few samples and get ready to record the first `samples` of a sweep."""
    check_source(program.source)
    with evaluating(program), exact_products():
        plan, rest = survey(program, x[:3].to(program.source.device))
    return SourceRecording(Recording(module_of(program.source), plan, samples), tuple(rest))


def independent_outputs(output: Output, targets: int) -> int:
    """How many of the T outputs can move independently of the others: the rank of a fixed linear map, else T.

    A label mapping from counts over a source that predicts few of its classes has linearly dependent columns, and then
    no kernel read through it can have full rank, whatever program or source.

    >>> from reprogram.outputs import FirstClasses, BayesianMap
    >>> independent_outputs(FirstClasses(5, 3), 3), independent_outputs(BayesianMap(5, 3), 3)
    (3, 0)
    """
    fold = None if output.alignment is Alignment.IDENTITY else getattr(output, "fold", None)
    if fold is None or learns(output) or getattr(output, "log_probabilities", False):
        return targets
    matrix = fold().detach().double()
    return int(torch.linalg.matrix_rank(matrix)) if matrix.shape[1] == targets else targets


def _check_input(x: Tensor) -> None:
    if not len(x):
        raise DataError(say("x", "must hold at least one sample", list(x.shape)))
    if x.ndim < 2:
        raise ConfigError(say("x", "must be a batch of samples, [N, ...]", list(x.shape)))


def _name(program: Program) -> str:
    return program.origin.method if program.origin else "a program made by hand"
