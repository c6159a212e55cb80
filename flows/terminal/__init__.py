"""What people and log collectors read: stdout has the result, stderr everything else.

progress_bars  how far a night is, on a terminal
logs           one JSON object a line, for collectors
json_lines     lines of stderr as JSON objects, whoever wrote them
complaints     an error as one line, and the exit code that belongs to it
finding_lines  how far a verification is, and its table of findings
options        options that several commands share
"""
