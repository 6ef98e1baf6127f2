"""What a page may ask about its run beside moving through it: one channel function, many named inquiries.

Each area is a module here with a table of `INQUIRIES`; a name is the area's and the verb's, such as "breakpoints.add".
"""

from __future__ import annotations

from collections.abc import Mapping

from laser_studio.studio.inquiries.inquiry import Context, Inquiry, InquiryRequest

__all__ = ["INQUIRIES", "Context", "Inquiry", "InquiryRequest"]

INQUIRIES: Mapping[str, Inquiry] = {}
"""By name. Made of the tables of all areas."""
