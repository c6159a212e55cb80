"""Files and folders, whatever is in them.

durable  a file is there whole under its name, or not at all
lock     locks between processes, which the kernel takes back from the dead
sizes    how large a folder is while others write there
"""
