"""Neural tangent kernels of programs and sources, their spectra, and what they say before any training."""

from reprogram.ntk.diagnose import DiagnoseOptions, diagnose
from reprogram.ntk.diagnosis import Curves, Diagnosis, Reading
from reprogram.ntk.kernel import SourceKernel, jacobian, program_kernel, source_kernel, source_kernel_of
from reprogram.ntk.lanczos import Density, Estimate, density, logdet_estimate
from reprogram.ntk.large import batches_of, sketch_kernel
from reprogram.ntk.sketch import Sketch, SketchResult
from reprogram.ntk.spectrum import Spectrum, rows_spectrum, spectrum
from reprogram.ntk.zeroth_order import Differences, zeroth_order_kernel

__all__ = [
    "Curves",
    "Density",
    "DiagnoseOptions",
    "Diagnosis",
    "Differences",
    "Estimate",
    "Reading",
    "Sketch",
    "SketchResult",
    "SourceKernel",
    "Spectrum",
    "batches_of",
    "density",
    "diagnose",
    "jacobian",
    "logdet_estimate",
    "program_kernel",
    "rows_spectrum",
    "sketch_kernel",
    "source_kernel",
    "source_kernel_of",
    "spectrum",
    "zeroth_order_kernel",
]
