"""One member of a cluster: a synchronous middle and a thin asyncio shell around it.

Read ``member.py`` first, then ``effects.py`` and ``pump.py``. Knows nothing of the client side.
"""
