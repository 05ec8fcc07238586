"""Pictures from files, arrays and strangers, and back to what people look at. Needs Pillow and numpy."""

from reprogram.media.images import Samples, as_samples, as_unit, read_image, to_data_uri, to_picture, to_sample

__all__ = ["Samples", "as_samples", "as_unit", "read_image", "to_data_uri", "to_picture", "to_sample"]
