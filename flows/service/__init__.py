"""`nightlens up`: server, deployments and worker, kept going on one machine.

up              the service itself: it starts, watches, starts again, and stops
outfit          what is put on a server before nights can run there
deployments     the deployments of prefect.yaml, checked against their flows
heartbeat       the automation that marks runs Crashed whose machine died
alerts          messages of nights that warned or failed
worker          the worker that takes the runs of the work pool
worker_process  its process, which ends with whoever started it
stopping        Ctrl-C and SIGTERM, so that what was started is stopped and recorded
systemd         the service as a systemd unit
runs/           what the server says of runs, and pages of those that ended without a word
"""
