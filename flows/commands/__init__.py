"""What the command `nightlens` understands and shows.

Help comes at once: each command imports what it needs when it runs.

running/          `run`, `floor`: flows in the foreground
stores/           commands on stores and nights that are there
night_commands    `nights`, `pin`, `unpin`, `prune`, `models`: one root
service_commands  `ui`, `up`, `down`, `status`: servers and workers
setup_commands    `doctor`, `fetch`: before a night
alerts_command    `alerts`: where messages of nights go
doctor            what `doctor` checks, and what to do about each ✗
installation      what of the declared dependencies is there, broken or missing
model_contract    what `doctor --model` prints: how a model would be fed and read
status            what `status` says of server, worker, next runs, last night and disk
"""
