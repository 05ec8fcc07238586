"""Neural tangent kernels of programs and sources, their spectra, and what they say before any training."""

from reprogram.ntk.diagnose import DiagnoseOptions, diagnose
from reprogram.ntk.diagnosis import Curves, Diagnosis, Reading
from reprogram.ntk.kernel import SourceKernel, jacobian, program_kernel, source_kernel, source_kernel_of
from reprogram.ntk.spectrum import Spectrum, rows_spectrum, spectrum

__all__ = [
    "Curves",
    "DiagnoseOptions",
    "Diagnosis",
    "Reading",
    "SourceKernel",
    "Spectrum",
    "diagnose",
    "jacobian",
    "program_kernel",
    "rows_spectrum",
    "source_kernel",
    "source_kernel_of",
    "spectrum",
]
