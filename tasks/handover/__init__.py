"""A finished night in other hands.

published_copy  the night's folder at an address, s3://bucket/prefix and the like, verified: `run.publish_to`
"""
