"""A Prefect server of our own, for machines where no Prefect API is configured.

server          starts, finds, uses and stops it
server_process  its process, which ends when nobody uses it any more
server_record   what it has recorded of a run
api             which Prefect API this process talks to, and whether it answers
state_file      JSON about a process that is true as long as the process lives
"""
