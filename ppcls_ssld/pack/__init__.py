"""A list of images -> a few large tar shards of smaller JPEGs and a list of their members, for a faster reader."""
