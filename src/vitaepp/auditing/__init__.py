"""Could a result be a shortcut? The room of `vitaepp audit`.

It is not called `audit`, because the function `vitaepp.audit` is, and a module would hide it.
"""
