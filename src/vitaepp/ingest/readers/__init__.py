"""Readers: one image to an array and its grid, or one clear line on why not.

Of a file's header only geometry is used. Nothing else of it leaves this package, error messages
included: they name what is wrong, not what the file says about the patient.
"""

from vitaepp.ingest.readers.arrays import NpzArray, npz_keys, open_array, read_array, space_of
from vitaepp.ingest.readers.header import read_header
from vitaepp.ingest.readers.image import Image, is_grey, to_grey
from vitaepp.ingest.readers.pictures import read_picture
from vitaepp.ingest.readers.scans import read_scan
from vitaepp.ingest.readers.suffixes import PICTURE_SUFFIXES, SCAN_SUFFIXES, suffix_of

__all__ = [
    "PICTURE_SUFFIXES",
    "SCAN_SUFFIXES",
    "Image",
    "NpzArray",
    "is_grey",
    "npz_keys",
    "open_array",
    "read_array",
    "read_header",
    "read_picture",
    "read_scan",
    "space_of",
    "suffix_of",
    "to_grey",
]
