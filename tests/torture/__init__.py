"""The torture harness: random traffic, kills and comparisons for as long as asked.

    make torture MINUTES=10 SERVER=valkey-9.1 SEED=7

`grammar` turns COMMAND DOCS into commands, so that a new command is attacked on the day it has a row in
the command table; `values` fills their arguments; `traffic` mixes them with what else a server is asked;
`pairs` sends all of it to a primary with a replica and an AOF and compares them; `kills` ends servers by
`kill -9` and looks for what had been acknowledged; `shrink` makes a failure small; `run` is the program.
"""
