"""The commands that run a flow in the foreground.

run_command    `run`: a night
floor_command  `floor`: how much reasons differ by chance alone
foreground     progress on the terminal, the record on a server, how the command ends
"""
