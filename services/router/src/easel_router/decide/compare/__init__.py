"""Two answers to one request → where they differ, by field. Pure, and bounded whatever the answers are.

A field is `status`, `headers.content-type`, `body`, or a path in a JSON body such as `body.boxes[].text`: `[]` stands
for any item of a list, so that a field is the same thing in every answer. The body is compared as JSON where both are
JSON, else as text where both are UTF-8, else byte by byte; what the `content-type` says of it does not matter.

Symmetric: with the answers exchanged, the same fields differ.
"""

from easel_router.decide.compare.answers import Answer, Compared, Difference, compare, weight
from easel_router.decide.compare.excerpt import request_line

__all__ = ["Answer", "Compared", "Difference", "compare", "request_line", "weight"]
