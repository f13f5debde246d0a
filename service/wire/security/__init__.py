"""Who talks to the server, and what they may do.

A call's way, and where each step lives:

    connection ─certificates─▶ call ─guard, tokens─▶ inference, repository, controls ─guard, buckets─▶ engine

`certificates` checks files and gives gRPC the newest; `tokens` reads the file of tokens; `guard` is the one place that
says no; `buckets` is the arithmetic of rates; `files` sees that a file has changed.
"""
