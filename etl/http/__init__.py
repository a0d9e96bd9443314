"""HTTP for all extractors.

`client` makes a logical call of one or more attempts; `transport` connects only to checked addresses and keeps
deadlines; `body` decodes within limits; `status` says what an answer means; `freshness` when to ask again; `target` is
a request with its secrets; `token` gets OAuth2 tokens.
"""
