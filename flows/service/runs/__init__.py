"""What the server says of runs, and what is done about those that ended without a word.

schedule    what the server has planned, and times in words
run_news    a line when a run begins and when it ends
lost_pages  pages of nights that were killed, written in a process of its own
"""
