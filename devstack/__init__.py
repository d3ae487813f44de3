"""The development stack: real engines and all services as local processes, without Docker.

`devstack.engines` starts engines alone, `devstack.stack` everything. Nothing here is used in production.
"""
