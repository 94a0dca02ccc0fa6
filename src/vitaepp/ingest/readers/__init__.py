"""Readers turn one image file into an array and its grid, or raise a one-line error.

Only the geometry in a file's header is used. Nothing else from the header leaves this package, not
even in an error message, because headers hold patient data.
"""

from vitaepp.data.suffixes import PICTURE_SUFFIXES, SCAN_SUFFIXES, suffix_of
from vitaepp.ingest.readers.arrays import (
    NpzArray,
    npz_keys,
    open_array,
    read_array,
    read_given,
    space_of,
)
from vitaepp.ingest.readers.dicom import read_series, series_grid, stack
from vitaepp.ingest.readers.dicom_elements import is_dicom, pixels_of, series_uid
from vitaepp.ingest.readers.dicom_header import DicomHeader, OtherObject, Slice, read_dicom_header
from vitaepp.ingest.readers.header import read_grid
from vitaepp.ingest.readers.image import NO_FORM, Image, is_grey, to_grey
from vitaepp.ingest.readers.npy import npy_axes
from vitaepp.ingest.readers.pictures import read_picture
from vitaepp.ingest.readers.scans import read_scan

__all__ = [
    "NO_FORM",
    "PICTURE_SUFFIXES",
    "SCAN_SUFFIXES",
    "DicomHeader",
    "Image",
    "NpzArray",
    "OtherObject",
    "Slice",
    "is_dicom",
    "is_grey",
    "npy_axes",
    "npz_keys",
    "open_array",
    "pixels_of",
    "read_array",
    "read_dicom_header",
    "read_given",
    "read_grid",
    "read_picture",
    "read_scan",
    "read_series",
    "series_grid",
    "series_uid",
    "space_of",
    "stack",
    "suffix_of",
    "to_grey",
]
