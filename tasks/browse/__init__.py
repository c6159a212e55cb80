"""`nightlens browse`: the pages of a root's nights over HTTP, on this machine alone; pictures are drawn when they are looked at.

Needs the extra `browse`, and neither TensorFlow nor Prefect.

browse_app        the addresses, and what each answers
browse_server     the server, from its port to its end
places            where nights are looked at: a root, the nights at an address, one store
published_nights  the nights at an address
shown_nights      the nights of a place, with the stores of few of them open
live_night        one night: its page, and the pictures of its rows
comparisons       pages of two nights, computed in the background
saved_rows        rows as a file to take along
"""
