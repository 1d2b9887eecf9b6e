"""The demo: real server processes, real work, a leader killed, and a proof at the end.

Read `conductor` for the plot, `worker` for what a client does, `judge` for what is checked and
from which records. `words` is the state machine a user would write; `servers` starts and kills.
"""
