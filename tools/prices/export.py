"""Write the prices that the installed genai-prices carries in the form in which its project publishes them.

The package holds them as Python, for its own use; the generator of the book reads the published form.
"""

import dataclasses
import datetime
import decimal
import json
import sys

from genai_prices.data import providers


def published(value):
    """Return what json can write: objects without what is not set, and Python's names with a trailing _ without it."""
    if isinstance(value, decimal.Decimal):
        # Written in its shortest form, a double shows the digits of every decimal of up to 15.
        return float(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (list, tuple)):
        return [published(v) for v in value]
    if isinstance(value, dict):
        return {k: published(v) for k, v in value.items()}
    if dataclasses.is_dataclass(value) or type(value).__name__ == 'ModelPrice':
        return {k.rstrip('_'): published(v) for k, v in vars(value).items() if v is not None and k[0] != '_'}
    return value


json.dump(
    [
        {
            'id': p.id,
            'models': [
                {'id': m.id, 'match': published(m.match), 'prices': published(m.prices)} for m in p.models
            ],
        }
        for p in providers
    ],
    sys.stdout,
)
